"""Tables of keys. They lie in the schema of the service's own role."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
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
    # Sums are in nano-USD.
    Column("token_limit_per_minute", Integer),
    Column("monthly_budget", BigInteger),
    Column("total_budget", BigInteger),
    Column("soft_budget", BigInteger),
    Column("previous_digest", LargeBinary),
    Column("previous_expires_at", _TIME),
    UniqueConstraint("digest", name="api_keys_digest_is_unique"),
    UniqueConstraint("previous_digest", name="api_keys_previous_digest_is_unique"),
    Index("api_keys_newest_of_owner", "owner_id", "created_at", "id"),
)

provider_credentials = Table(
    "provider_credentials",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner_id", Uuid, nullable=False),
    Column("provider", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("last_four", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", _TIME, nullable=False),
    UniqueConstraint("owner_id", "provider", name="provider_credentials_one_of_owner"),
)
