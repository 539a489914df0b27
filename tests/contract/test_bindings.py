"""Where RPCs lie in HTTP: each public one somewhere, no two in one place."""

import re
from itertools import combinations

import pytest

from tests.contract.described import Method, messages, methods

METHODS = list(methods())
BINDINGS = [(verb, path, each.name) for each in METHODS for verb, path in each.bindings]
STREAMS = [each for each in METHODS if each.streams]


def collide(one: str, other: str) -> bool:
    """Whether both templates match the same paths, so that the first listed hides the other.

    Where one has a literal and the other a variable, Envoy takes the literal.
    """
    return _segments(one) == _segments(other)


def _segments(template: str) -> list[str]:
    return re.sub(r"\{\w+(=\*\*)?\}", lambda m: "**" if m[1] else "*", template).split("/")


def test_no_two_rpcs_have_one_path():
    found = [
        (one, other)
        for one, other in combinations(BINDINGS, 2)
        if one[0] == other[0] and collide(one[1], other[1])
    ]
    assert not found


def test_templates_collide_whatever_their_variables_are_called():
    assert collide("/chats/{chat_id}", "/chats/{id}")
    assert not collide("/chats/{chat_id}", "/chats/{chat_id}/messages")
    assert not collide("/v1/usage/summary", "/v1/usage/{key_id}")


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_public_rpc_has_a_path_and_an_internal_one_has_none(method: Method):
    assert bool(method.bindings) is not method.internal


@pytest.mark.parametrize("method", STREAMS, ids=lambda method: method.name)
def test_a_stream_says_in_itself_how_it_ends(method: Method):
    message = messages()[method.response]
    if [field.type_name for field in message.field] == [".google.api.HttpBody"]:
        return  # Bytes in somebody else's format, which has its own words for it.
    (at,) = [at for at, oneof in enumerate(message.oneof_decl) if oneof.name == "event"]
    fields = {
        field.name
        for field in message.field
        if field.HasField("oneof_index") and field.oneof_index == at
    }
    assert {"done", "error"} <= fields


def test_the_rpcs_were_found():
    assert len(METHODS) >= 30
    assert len(BINDINGS) > sum(not each.internal for each in METHODS)
    assert "StreamReply" in {each.name.rsplit("/", 1)[1] for each in STREAMS}
