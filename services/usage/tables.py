"""Tables of usage. They lie in the schema of the service's own role."""

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
)

metadata = MetaData()

_SUMMED_UP = ["prompt_tokens", "completion_tokens", "cost"]

# Prices and costs are in nano-USD. A summary reads the indexes alone.
usage_records = Table(
    "usage_records",
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
    Column("cost", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("basis", Text, nullable=False),
    Column("latency_ms", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Index(
        "usage_newest_of_user",
        *("user_id", "created_at", "generation_id"),
        postgresql_include=_SUMMED_UP,
    ),
    Index(
        "usage_newest_of_key",
        *("user_id", "key_id", "created_at", "generation_id"),
        postgresql_include=_SUMMED_UP,
    ),
)
