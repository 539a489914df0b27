"""Tables of items. They lie in the schema of the service's own role."""

from sqlalchemy import (
    Boolean,
    Column,
    Double,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
)

metadata = MetaData()

items = Table(
    "items",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("owner_id", Uuid, nullable=False),
    # Made before the transaction, so that running it again makes no second row.
    Column("creation_id", Uuid, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("price", Double, nullable=False),
    Column("is_available", Boolean, nullable=False),
    Index("items_of_owner", "owner_id", "id"),
)
