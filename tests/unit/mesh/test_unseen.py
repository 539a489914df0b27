"""What is told of a body and a query, against the message that was made of them."""

import pytest
from google.protobuf.message import Message

from khesht.auth.v1.auth_service_pb2 import IssueTokenRequest
from khesht.chat.v1.chat_service_pb2 import CreateReplyRequest
from khesht.keys.v1.keys_service_pb2 import CreateApiKeyRequest
from mesh import errors
from mesh.calls import unseen
from mesh.calls.call import Call


def called(**metadata: str) -> Call:
    told = {name.replace("_", "-"): value for name, value in metadata.items()}
    return Call("/x", told, 0.0, 0.0, "id")


@pytest.mark.parametrize(
    ("message", "names", "unknown"),
    [
        (CreateReplyRequest(), "message,messages,messages.role,maxTokens", ()),
        (CreateReplyRequest(), "message,messages.nme,x,x.y,x.y.z", ("messages.nme", "x")),
        (CreateReplyRequest(), "message.x", ("message.x",)),
        (CreateApiKeyRequest(), "name,expires_at,expiresAt", ()),
        (CreateApiKeyRequest(), "?", ("?",)),
        (IssueTokenRequest(), "anything", ()),  # A form, which its service reads itself.
    ],
)
def test_names_are_those_of_the_contract(message: Message, names: str, unknown: tuple[str, ...]):
    assert unseen.unknown_names(called(x_khesht_names=names), message) == unknown


def test_who_says_nothing_of_names_is_asked_for_none():
    assert unseen.unknown_names(called(), CreateReplyRequest()) == ()


@pytest.mark.parametrize("path", ["/chats", "/chats?", "/chats?page_token=", "/chats?a=1&b=%20"])
def test_a_query_with_values_is_good(path: str):
    unseen.check_query(called(x_envoy_original_path=path))


def test_every_empty_parameter_is_named_once():
    with pytest.raises(errors.InvalidRequest) as refused:
        unseen.check_query(called(x_envoy_original_path="/x?a=&b&c=1&a="))
    assert [each.field for each in refused.value.violations] == ["a", "b"]
