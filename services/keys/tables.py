"""Tables of keys. They lie in the schema of the service's own role."""

from sqlalchemy import (
    ARRAY,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

metadata = MetaData()

_TIME = DateTime(timezone=True)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner_id", Uuid, nullable=False),
    Column("name", Text, nullable=False),
    Column("key_prefix", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("rate_limit_per_minute", Integer, nullable=False),
    Column("allowed_models", ARRAY(Text, as_tuple=True), nullable=False),
    Column("expires_at", _TIME),
    Column("created_at", _TIME, nullable=False),
    Column("last_used_at", _TIME),
    Column("revoked_at", _TIME),
    UniqueConstraint("digest", name="api_keys_digest_is_unique"),
    Index("api_keys_newest_of_owner", "owner_id", "created_at", "id"),
)
