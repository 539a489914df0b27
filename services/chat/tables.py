"""Tables of chat. They lie in the schema of the service's own role."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    text,
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

# One request to a model and all that came of it. What usage has not been told of
# is `owed`; `tail` says after which place the journal does not count, and holds the parts after it.
generations = Table(
    "generations",
    metadata,
    Column("id", Uuid, primary_key=True),
    # The key that asked, or the account: within it, a `dedup_key` is used once.
    Column("caller_id", Uuid, nullable=False),
    Column("user_id", Uuid, nullable=False),
    Column("key_id", Uuid),
    Column("request_id", Text, nullable=False),
    Column("chat_id", Uuid),
    Column("model", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("prompt_price", BigInteger, nullable=False),
    Column("completion_price", BigInteger, nullable=False),
    Column("kind_prices", Text),
    # In tokens, about. `prompt_size` was in characters, and is of the release before.
    Column("prompt_estimate", Integer, nullable=False, server_default=text("0")),
    Column("prompt_size", Integer, nullable=False, server_default=text("0")),
    Column("status", Text, nullable=False),
    # The process that runs it. One that is not alive is relieved of it.
    Column("runner_id", Uuid),
    Column("created_at", DateTime(timezone=True), nullable=False),
    # JSON, until it ends: what a chat will keep, and what a worker is to ask.
    Column("question", Text),
    Column("prompt", Text),
    Column("dedup_key", Text),
    Column("dedup_body", LargeBinary),
    Column("cancel_asked", Boolean, nullable=False, server_default=text("false")),
    # Parts up to this place were given up when another process began anew; the
    # tokens they took are paid for.
    Column("base", Integer, nullable=False, server_default=text("0")),
    # Of a task: how often it was begun, and its worker died or its provider failed.
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("given_up_prompt", Integer, nullable=False, server_default=text("0")),
    Column("given_up_completion", Integer, nullable=False, server_default=text("0")),
    # Of a task: lower ones are run first.
    Column("turn", Integer),
    Column("reason", Text),
    Column("answered_by", Text),
    Column("finish_reason", Text),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    # JSON: how many of them were cached, thought, or sound.
    Column("token_kinds", Text),
    Column("basis", Text),
    Column("error", Text),
    # What its caller was told beside it.
    Column("warning", Text),
    Column("tail", LargeBinary),
    Column("latency_ms", Integer),
    Column("ended_at", DateTime(timezone=True)),
    Column("owed", Boolean, nullable=False, server_default=text("false")),
    Index("generations_newest_of_user", "user_id", "created_at", "id"),
    Index(
        "generations_of_a_request",
        "caller_id",
        "dedup_key",
        unique=True,
        postgresql_where=text("dedup_key IS NOT NULL"),
    ),
    Index(
        "generations_running",
        "runner_id",
        postgresql_where=text("status IN ('pending', 'running')"),
    ),
    Index(
        "generations_turns_of_user",
        *("user_id", "turn"),
        postgresql_where=text("turn IS NOT NULL AND status IN ('pending', 'running')"),
    ),
    Index(
        "generations_turns",
        *("status", "turn"),
        postgresql_where=text("turn IS NOT NULL AND status IN ('pending', 'running')"),
    ),
    Index("generations_owed", "created_at", "id", postgresql_where=text("owed")),
    Index("generations_ended", "ended_at"),
    # For `khesht audit`; there are few.
    Index(
        "generations_not_stored",
        "ended_at",
        postgresql_where=text("warning = 'text-not-stored'"),
    ),
)

# What running generations have written, in portions of 50 to 100 ms.
journal = Table(
    "journal",
    metadata,
    Column("generation_id", Uuid, primary_key=True),
    # The place of the last part; `pieces` is how many tokens they are, about.
    Column("seq", Integer, primary_key=True),
    # In the key, so that who was relieved of a task takes no place of who has it.
    Column("base", Integer, primary_key=True),
    Column("pieces", Integer, nullable=False),
    Column("parts", LargeBinary, nullable=False),
)

# The processes that run generations, and when each was last alive.
runners = Table(
    "runners",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("seen_at", DateTime(timezone=True), nullable=False),
)
