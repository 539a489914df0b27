"""The paths of REST and their methods, for the edge: which a path takes where it is asked for another."""

import re

from scripts.openapi.contracts import Contracts

_HEAD = """\
-- Made by `make gen`: the paths that contracts bind, as Lua's patterns, and the methods that each takes.
"""
# A variable of one segment; an id has no colon, behind which stands a verb of our own.
_SEGMENT, _SEGMENTS = "[^/:]+", ".+"


def routes(contracts: Contracts) -> str:
    """The source in Lua of the table ROUTES."""
    verbs: dict[str, set[str]] = {}
    for method in contracts.methods:
        for binding in method.bindings:
            verb = binding.WhichOneof("pattern")
            pattern = _pattern(getattr(binding, verb))
            verbs.setdefault(pattern, set()).add(verb.upper())
    lines = (f'  {{"{path}", "{", ".join(sorted(of))}"}},\n' for path, of in sorted(verbs.items()))
    return f"{_HEAD}local ROUTES = {{\n{''.join(lines)}}}\n"


def _pattern(path: str) -> str:
    parts = re.split(r"(\{\w+(?:=\*\*)?\})", path)
    return f"^{''.join(map(_part, parts))}$"


def _part(part: str) -> str:
    if part.startswith("{"):
        return _SEGMENTS if "=**" in part else _SEGMENT
    return re.sub(r"([^\w/:])", r"%\1", part)
