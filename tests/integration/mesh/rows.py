"""Requests that add a row, and where to look for it."""

import uuid
from uuid import UUID

import psycopg
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from khesht.auth.v1 import auth_service_pb2 as auth_pb
from khesht.chat.v1 import chat_service_pb2 as chat_pb
from khesht.chat.v1 import tasks_service_pb2 as tasks_pb
from khesht.items.v1 import items_service_pb2 as items_pb
from khesht.keys.v1 import keys_service_pb2 as keys_pb
from khesht.usage.v1 import usage_internal_service_pb2 as usage_pb


def writing(mark: str) -> dict[str, tuple[Message, str]]:
    """For each RPC that adds a row: a request marked `mark`, and where its rows would lie."""
    now = Timestamp()
    now.GetCurrentTime()
    used = usage_pb.Consumption(
        **{"generation_id": str(uuid.uuid4()), "request_id": mark, "user_id": str(UUID(int=1))},
        **{"model": "echo", "provider": "echo", "status": "completed", "basis": "provider"},
        created_at=now,
    )
    reply = chat_pb.CreateReplyRequest(message=mark, model="echo")
    return {
        "Register": (
            auth_pb.RegisterRequest(email=f"{mark}@example.com", password="password123"),
            f"auth.users WHERE email = '{mark}@example.com'",
        ),
        "CreateItem": (
            items_pb.CreateItemRequest(name=mark, price=1),
            f"items.items WHERE name = '{mark}'",
        ),
        "CreateApiKey": (
            keys_pb.CreateApiKeyRequest(name=mark),
            f"keys.api_keys WHERE name = '{mark}'",
        ),
        "CreateChat": (
            chat_pb.CreateChatRequest(title=mark),
            f"chat.chats WHERE title = '{mark}'",
        ),
        "CreateReply": (reply, f"chat.messages WHERE role = 'user' AND content = '{mark}'"),
        "CreateTask": (
            tasks_pb.CreateTaskRequest(message=mark, model="echo"),
            f"chat.generations WHERE prompt LIKE '%{mark}%'",
        ),
        "RecordUsage": (
            usage_pb.RecordUsageRequest(consumptions=[used]),
            f"usage.usage_records WHERE request_id = '{mark}'",
        ),
    }


def rows(dsn: str, where: str) -> int:
    with psycopg.connect(dsn, autocommit=True) as connection:
        (count,) = connection.execute(f"SELECT count(*) FROM {where}").fetchone() or (0,)
    return int(count)
