"""Calls of every operation that succeed: what is in the path, the body, and who calls."""

import re
import uuid
from dataclasses import dataclass
from typing import Any

from tests.mesh.described import Operation
from tests.mesh.running import Account, Up

_TURNS = [{"role": "user", "content": "Hello Ada"}]
# Bodies that the document has no example of.
_BODIES: dict[str, Any] = {
    "CreateReply_chat_conversation": {"messages": _TURNS},
    "StreamReply_api_v1_chat_stream": {"messages": _TURNS},
    "StreamText": {"user_message": "Hello Ada"},
    "Summarize": {"text": "A long text"},
    "Translate": {"text": "A text", "target_language": "Spanish"},
    "UpdateChat": {"title": "Renamed"},
    "CreateTask": {"message": "Hello Ada"},
    "UpdateApiKey": {"name": "Renamed"},
    "ReplaceUserBudget": {"monthly_budget_usd": 10},
    "ChangePassword": {"current_password": "password123", "new_password": "password1234"},
    "Logout": {},
    "CancelGeneration": {},
}
# What is there to be named in a path: the field of an answer that holds its name.
_MAKES: dict[str, tuple[str, object, str]] = {
    "chat_id": ("/chats", {"title": "Names"}, "id"),
    "item_id": ("/items", {"name": "Sample Item", "price": 1}, "id"),
    "key_id": ("/api/v1/api-keys", {"name": "another"}, "id"),
    "generation_id": ("/chat", {"message": "Hi", "model": "echo"}, "generation_id"),
    "task_id": ("/chat/background", {"message": "Hi", "model": "echo"}, "task_id"),
    "provider": (
        "/v1/provider-credentials",
        {"provider": "openai", "api_key": "sk-of-this-account-4321"},
        "provider",
    ),
}


@dataclass(frozen=True)
class Asked:
    """A call that succeeds. `names` are those in the path; `body` is None where there is none."""

    names: dict[str, str]
    body: Any
    token: str


def body_of(operation: Operation) -> Any:
    """A body that is good, or None where there is none."""
    if "requestBody" not in operation.told:
        return None
    if operation.name == "Register":
        return {"email": f"{uuid.uuid4().hex}@example.com", "password": "password123"}
    (content,) = operation.told["requestBody"]["content"].values()
    return content["example"] if "example" in content else _BODIES[operation.name]


async def asked(up: Up, account: Account, admin: str, operation: Operation) -> Asked:
    """A call of `operation` by `account`, or by an admin where it is theirs; what it names is made."""
    body = body_of(operation)
    token = admin if operation.path.startswith("/v1/users/") else account.token
    login = {"email": account.email, "password": "password123"}
    names: dict[str, str] = {}
    for name in re.findall(r"\{(\w+)\}", operation.path):
        if name in _MAKES:
            place, wanted, field = _MAKES[name]
            names[name] = str((await up.call("POST", place, wanted, token)).body[field])
        elif name == "session_id":
            await up.call("POST", "/auth/login", login)
            sessions = (await up.call("GET", "/auth/sessions", token=token)).body["sessions"]
            names[name] = next(each["id"] for each in sessions if not each["is_current"])
        else:
            names[name] = {"user_id": account.id, "model_id": "echo"}[name]
    if operation.name == "RefreshToken":
        body = {
            "refresh_token": (await up.call("POST", "/auth/login", login)).body["refresh_token"]
        }
    elif operation.name in ("Login", "IssueToken"):
        body = {"username": account.email, "password": "password123"}
    return Asked(names, body, token)
