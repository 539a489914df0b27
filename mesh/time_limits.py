"""How long calls may take, and streams be silent: the one place, all in seconds.

Services, the edge and our own clients take their limits from here. Each limit is longer than the
one inside it, so that who knows why a call is late is the one who says so:
a provider, then the service that asks it, then the edge, then the client.
"""

# What one answer of a model may take, thoughts included: the most that settings can allow.
LONGEST_ANSWER_S = 3_600.0
# What each next hop has for the way back.
_HOP_S = 15.0

MODEL_CALL_S = LONGEST_ANSWER_S + _HOP_S
MODEL_CALL_AT_EDGE_S = MODEL_CALL_S + _HOP_S
MODEL_CALL_OF_CLIENT_S = MODEL_CALL_AT_EDGE_S + _HOP_S
# Longer than any stream: a connection that is being replaced ends those that run by then.
CONNECTION_GRACE_S = MODEL_CALL_OF_CLIENT_S + 60.0

# A table that is exported as a stream.
EXPORT_S = 120.0
EXPORT_AT_EDGE_S = EXPORT_S + _HOP_S

# Calls that ask no model: of services by default, at the edge, and as callers may ask there.
SHORT_CALL_S = 30.0
SHORT_CALL_AT_EDGE_S = 20.0
SHORT_CALL_ASKED_S = 15.0

# The edge ends a stream on which nothing has moved for so long: nobody reads it, or writes it.
SILENT_STREAM_AT_EDGE_S = 60.0
# A stream says that it is alive when nothing else was said for so long.
PING_INTERVAL_S = 15.0
# The headers of a stream go out after so long, with or without a first event.
EARLY_HEADERS_AFTER_S = 10.0


def of_edge(scale: float = 1.0) -> dict[str, str]:
    """The limits of the edge's template by name, as Envoy writes durations, or as their names say.

    Tests of what takes an hour make all of them shorter by `scale`.
    """
    limits = {
        "MODEL_CALL_LIMIT": MODEL_CALL_AT_EDGE_S,
        "EXPORT_LIMIT": EXPORT_AT_EDGE_S,
        "SHORT_CALL_LIMIT": SHORT_CALL_AT_EDGE_S,
        "SHORT_CALL_ASKED_LIMIT": SHORT_CALL_ASKED_S,
        "SILENT_STREAM_LIMIT": SILENT_STREAM_AT_EDGE_S,
    }
    unread_ms = round(SILENT_STREAM_AT_EDGE_S * scale * 1_000)
    return {
        "UNREAD_CONNECTION_MS": str(unread_ms),
        **{name: f"{seconds * scale:g}s" for name, seconds in limits.items()},
    }
