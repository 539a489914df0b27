"""One log line per RPC."""

import structlog

from mesh.calls.call import Call

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("rpc")


def ended(call: Call, code: str, reason: str, seconds: float) -> None:
    """Logs how `call` ended. Never what was said in it."""
    principal = call.principal
    log.info(
        "rpc",
        rpc=call.method,
        code=code,
        reason=reason or None,
        ms=round(seconds * 1000, 1),
        request_id=call.request_id,
        client_request_id=call.metadata.get("x-client-request-id"),
        peer=call.peer,
        user_id=str(principal.user_id) if principal else None,
        key_id=str(principal.key_id) if principal and principal.key_id else None,
    )
