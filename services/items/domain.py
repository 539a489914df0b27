"""What an item is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Draft:
    """What a caller says of an item."""

    name: str
    description: str | None
    price: float
    is_available: bool


@dataclass(frozen=True, slots=True)
class Item:
    """An item as stored. Ids grow from 1 and are never used twice."""

    id: int
    name: str
    description: str | None
    price: float
    is_available: bool
