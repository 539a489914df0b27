"""Tables of chat. They lie in the schema of the service's own role."""

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
)

metadata = MetaData()

chats = Table(
    "chats",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner_id", Uuid, nullable=False),
    Column("title", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Index("chats_of_owner", "owner_id", "updated_at", "id"),
)

messages = Table(
    "messages",
    metadata,
    # The order in which they were stored, for pages and for history.
    Column("place", BigInteger, Identity(always=True), primary_key=True),
    Column("id", Uuid, nullable=False, unique=True),
    Column(
        "chat_id",
        Uuid,
        ForeignKey("chats.id", name="messages_of_a_chat", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("role", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("finish_reason", Text),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Index("messages_in_chat", "chat_id", "place"),
)

# What usage has not been told yet: written with the ending of a generation,
# deleted when usage has it.
usage_outbox = Table(
    "usage_outbox",
    metadata,
    Column("generation_id", Uuid, primary_key=True),
    Column("request_id", Text, nullable=False),
    Column("user_id", Uuid, nullable=False),
    Column("key_id", Uuid),
    Column("model", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("prompt_price", BigInteger, nullable=False),
    Column("completion_price", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("basis", Text, nullable=False),
    Column("latency_ms", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
)
