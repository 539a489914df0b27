"""The services of the mesh, and what each is told at start."""

import re
from collections.abc import Mapping
from pathlib import Path

from mesh.local import postgres
from mesh.local.certificates import Identity
from mesh.secrets import derive_text

# In the order in which they start.
SERVICES = ("auth", "keys", "usage", "items", "chat")
# Runs chat's background tasks: its code, its tables, and an identity of its own.
WORKER = "worker"
ROOT = Path(__file__).parent.parent

# Keys of providers, by how such variables are called: only who calls providers may know them.
_PROVIDER_KEY = re.compile(r"([A-Z0-9_]*_API_KEY|HF_TOKEN)(_FILE)?")
# Where Redis is, which only keys uses.
_REDIS = frozenset({"REDIS_URL", "REDIS_URL_FILE"})
# Secrets of ours that each gets a share of.
_SHARED_OUT = frozenset({"SECRET_KEY", "SECRET_KEY_PREVIOUS", "DATABASE_URL", "DB_PASSWORD"})


def migrations(service: str) -> Path:
    """The folder of a service's migrations."""
    return ROOT / "services" / service / "migrations"


def service_of(process: str) -> str:
    """The service that a process belongs to."""
    return "chat" if process.startswith(WORKER) else process


def is_provider_key(variable: str) -> bool:
    """Whether `variable` is called as keys of providers are."""
    return _PROVIDER_KEY.fullmatch(variable) is not None


def is_for(service: str, variable: str) -> bool:
    """Whether `service` may know `variable`; "" is no service, and may know what all may."""
    if is_provider_key(variable):
        return service == "chat"
    return variable not in _REDIS or service == "keys"


def environment(
    process: str,
    addresses: Mapping[str, str],
    identity: Identity,
    admin_dsn: str,
    secret: str,
    given: Mapping[str, str],
) -> dict[str, str]:
    """The environment of a process: what was `given`, and what it is told by us.

    `addresses` are host:port by process. Of the secrets it gets what `secrets` says.
    """
    service = service_of(process)
    kept = {
        name: value
        for name, value in given.items()
        if name not in _SHARED_OUT and is_for(service, name)
    }
    told = {
        "LISTEN": addresses[process],
        "TLS_CERT_FILE": str(identity.cert),
        "TLS_KEY_FILE": str(identity.key),
        "TLS_CA_FILE": str(identity.ca),
        "AUTH_ADDRESS": addresses["auth"],
        "KEYS_ADDRESS": addresses["keys"],
        "USAGE_ADDRESS": addresses["usage"],
        "ITEMS_ADDRESS": addresses["items"],
    }
    return kept | told | secrets(process, admin_dsn, secret, given.get("SECRET_KEY_PREVIOUS"))


def secrets(process: str, admin_dsn: str, secret: str, previous: str | None) -> dict[str, str]:
    """Settings that a process and nobody else may know.

    Of `secret`, and of the `previous` one, it gets a share that tells nothing of the
    others', and of the database a role of its own.
    """
    service = service_of(process)
    own = {
        "DATABASE_URL": postgres.service_dsn(admin_dsn, service, secret),
        "SECRET_KEY": derive_text(secret, f"service {service}"),
    }
    if previous:
        own["SECRET_KEY_PREVIOUS"] = derive_text(previous, f"service {service}")
    return own
