"""Channels to other services: mTLS, retries only where asked, quick to notice death."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from mesh.tls import Certificate

# Calls that may be repeated without harm; all others fail at the first failure.
_RETRIED = {
    "maxAttempts": 4,
    "initialBackoff": "0.05s",
    "maxBackoff": "0.5s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


@asynccontextmanager
async def channel(
    service: str, addresses: str, certificate: Certificate, *, repeatable: tuple[str, ...] = ()
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to `service`, spread over `addresses` (host:port, with commas).

    `repeatable` are full names `package.Service/Method` of calls that are tried
    again when the service can't be reached. Every call needs its own timeout.
    """
    host = addresses.split(":", 1)[0]
    numeric = host.replace(".", "").isdigit()
    target = f"ipv4:{addresses}" if numeric else f"dns:///{addresses}"
    credentials = grpc.ssl_channel_credentials(
        certificate.authority, certificate.key, certificate.chain
    )
    open_channel = grpc.aio.secure_channel(
        target, credentials, options=_options(service, repeatable)
    )
    try:
        yield open_channel
    finally:
        await open_channel.close()


def _options(service: str, repeatable: tuple[str, ...]) -> list[tuple[str, str | int]]:
    names = [dict(zip(("service", "method"), name.split("/"), strict=True)) for name in repeatable]
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": ""},
        "methodConfig": [{"name": names, "retryPolicy": _RETRIED}] if names else [],
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
    }
    return [
        ("grpc.service_config", json.dumps(config)),
        # Certificates name services, not machines.
        ("grpc.ssl_target_name_override", f"{service}.khesht.internal"),
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 3_000),
        # This one, not the keepalive's, decides when a frozen peer is given up.
        ("grpc.http2.ping_timeout_ms", 3_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),
        ("grpc.max_receive_message_length", 4 << 20),
    ]
