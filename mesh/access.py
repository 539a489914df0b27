"""Who may call a method: which processes, and which people or programs for whom.

A service states one `Rule` for each of its methods; a method without one keeps
the service from starting, and a caller that no rule names is refused.
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mesh.time_limits import SHORT_CALL_S

# The identities that certificates of the mesh carry: spiffe://khesht/<name>.
EDGE = "edge"
OPERATOR = "operator"
SERVICES = frozenset({"auth", "chat", "keys", "usage", "items", "worker"})


class Caller(enum.Enum):
    """On whose behalf a method may be called."""

    OPEN = "anyone, without a credential"
    PERSON = "an account, by access token"
    ANY = "an account, by access token or by one of its API keys"
    OPTIONAL = "an account as for ANY, or a network address where no credential is sent"
    PROCESS = "a process of the mesh, on nobody's behalf"


@dataclass(frozen=True, slots=True)
class Model:
    """The model that a call is to: its id, and the other names it goes by."""

    id: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may call one method.

    `model` reads from a request which model it calls; such a call spends the
    caller's per-minute limit. `limit` is the longest that a call may take, in
    seconds, whatever time its caller gave it. `openai` says that it is for OpenAI's clients,
    who are told of errors and limits in OpenAI's words too.
    """

    caller: Caller
    peers: frozenset[str] = frozenset({EDGE})
    model: Callable[[Any], Model] | None = None
    limit: float = SHORT_CALL_S
    openai: bool = False


_ANY_PROCESS = SERVICES | {EDGE, OPERATOR}
INFRASTRUCTURE: dict[str, Rule] = {
    "/grpc.health.v1.Health/Check": Rule(Caller.PROCESS, _ANY_PROCESS),
    "/grpc.health.v1.Health/Watch": Rule(Caller.PROCESS, _ANY_PROCESS),
    "/grpc.health.v1.Health/List": Rule(Caller.PROCESS, _ANY_PROCESS),
    # Whom the edge brings has to say who they are; processes are known by their certificates.
    **{
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo": Rule(
            Caller.ANY, frozenset({OPERATOR, EDGE}), limit=600
        )
        for version in ("v1", "v1alpha")
    },
}


def check_complete(rules: Mapping[str, Rule], methods: list[str]) -> None:
    """Raises ValueError unless `rules` has exactly `methods`, by full name."""
    missing = sorted(set(methods) - set(rules))
    unknown = sorted(set(rules) - set(methods))
    if missing or unknown:
        raise ValueError(f"access rules: missing {missing}, without a method {unknown}")
