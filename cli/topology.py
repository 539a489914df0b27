"""The services of the mesh, and what each is told at start."""

from collections.abc import Mapping
from pathlib import Path

from mesh.local import postgres
from mesh.local.certificates import Identity
from mesh.secrets import derive_text

# In the order in which they start.
SERVICES = ("auth", "keys", "usage", "items", "chat")
ROOT = Path(__file__).parent.parent

# What only one service may know, and secrets of ours that each gets a share of.
_PROVIDER_KEYS = ("OPENAI_API_KEY", "GROQ_API_KEY", "HF_TOKEN")
ONLY_CHAT = frozenset({*_PROVIDER_KEYS, *(f"{name}_FILE" for name in _PROVIDER_KEYS)})
ONLY_KEYS = frozenset({"REDIS_URL", "REDIS_URL_FILE"})
_SHARED_OUT = frozenset({"SECRET_KEY", "SECRET_KEY_PREVIOUS", "DATABASE_URL", "DB_PASSWORD"})


def migrations(service: str) -> Path:
    """The folder of a service's migrations."""
    return ROOT / "services" / service / "migrations"


def environment(
    service: str,
    addresses: Mapping[str, str],
    identity: Identity,
    admin_dsn: str,
    secret: str,
    given: Mapping[str, str],
) -> dict[str, str]:
    """The environment of a service: what was `given`, and what it is told by us.

    `addresses` are host:port by service. Of `secret` it gets a share that tells
    nothing of the others', and of the database a role of its own.
    """
    kept = {
        name: value
        for name, value in given.items()
        if name not in _SHARED_OUT
        and (service == "chat" or name not in ONLY_CHAT)
        and (service == "keys" or name not in ONLY_KEYS)
    }
    told = {
        "LISTEN": addresses[service],
        "TLS_CERT_FILE": str(identity.cert),
        "TLS_KEY_FILE": str(identity.key),
        "TLS_CA_FILE": str(identity.ca),
        "AUTH_ADDRESS": addresses["auth"],
        "KEYS_ADDRESS": addresses["keys"],
        "USAGE_ADDRESS": addresses["usage"],
        "ITEMS_ADDRESS": addresses["items"],
        "DATABASE_URL": postgres.service_dsn(admin_dsn, service, secret),
        "SECRET_KEY": derive_text(secret, f"service {service}"),
    }
    if previous := given.get("SECRET_KEY_PREVIOUS"):
        told["SECRET_KEY_PREVIOUS"] = derive_text(previous, f"service {service}")
    return kept | told
