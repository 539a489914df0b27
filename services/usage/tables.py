"""Tables of usage. They lie in the schema of the service's own role."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    func,
    text,
)

from services.usage.domain.records import KINDS

metadata = MetaData()

_SUMMED_UP = ["prompt_tokens", "completion_tokens", "cost", *(f"{kind}_tokens" for kind in KINDS)]

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
    # Of the prompt: cached_read, cached_write, audio_prompt; of the completion the others.
    *(
        Column(f"{kind}_tokens", Integer, nullable=False, server_default=text("0"))
        for kind in KINDS
    ),
    # In the order of the kinds; NULL, or NULL for one: as plain text costs.
    Column("kind_prices", ARRAY(BigInteger)),
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
    # For `khesht audit`; there are few.
    Index("usage_capped", "created_at", postgresql_where=text("basis = 'capped'")),
)

# What was added to the costs in records, for the records themselves never change.
usage_adjustments = Table(
    "usage_adjustments",
    metadata,
    Column(
        "generation_id",
        Uuid,
        ForeignKey("usage_records.generation_id", name="adjustments_of_a_record"),
        primary_key=True,
    ),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("cost_delta", BigInteger, nullable=False),
    Column("note", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

# Sums of the costs and adjustments, and of the holds, of a key or an account: those
# of each month ("2026-11", in UTC), and "total". `khesht audit` computes them anew
# and compares.
balances = Table(
    "balances",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("scope_id", Uuid, primary_key=True),
    Column("period", Text, primary_key=True),
    Column("spent", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
    CheckConstraint("scope IN ('key', 'user')", name="balances_scope"),
    CheckConstraint("reserved >= 0", name="balances_reserved"),
)

# Money that generations may still need. A hold that ends is deleted; one that nobody
# renews is over at `expires_at`, by the clock of the database.
holds = Table(
    "holds",
    metadata,
    Column("generation_id", Uuid, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("key_id", Uuid),
    Column("month", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("amount >= 0", name="holds_amount"),
)

# What accounts may spend; no limit where there is none. Those of keys are with keys.
budgets = Table(
    "budgets",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("monthly", BigInteger),
    Column("total", BigInteger),
    Column("soft", BigInteger),
)
