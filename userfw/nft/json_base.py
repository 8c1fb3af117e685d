"""Reading JSON with types checked: the ground of the JSON parser.

Laws:
- Whatever the document holds, the only exception is ``NftError``: every access states the type that it needs.
- An unknown property is ignored, as nft does (listings of newer versions load); an unknown statement or expression is an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from userfw.nft.location import Location, NftError, Source

MAX_DEPTH: Final = 64
JSON_LOC: Final = Location(Source("internal:0:0-0", ""), 0, 0)
"""JSON has no places; this is what nft prints instead."""

Json = Any
Object = dict[str, Any]


def fail(message: str) -> NftError:
    return NftError(message, JSON_LOC)


def as_object(value: Json, what: str) -> Object:
    if not isinstance(value, dict):
        raise fail(f"{what}: expected an object")
    return value


def single(value: Json, what: str) -> tuple[str, Json]:
    """The one property of an object."""
    if not isinstance(value, dict) or len(value) != 1:
        raise fail(f"{what}: expected an object with one property")
    return next(iter(value.items()))


def text(obj: Object, name: str, what: str) -> str:
    """A string property that must be there."""
    value = obj.get(name)
    if not isinstance(value, str):
        raise fail(f"{what}: property '{name}' must be a string")
    return value


def optional_text(obj: Object, name: str, what: str) -> str | None:
    return None if obj.get(name) is None else text(obj, name, what)


def number(obj: Object, name: str, what: str, limit: int = 1 << 64) -> int:
    """A whole number that must be there, below the limit."""
    value = obj.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < limit:
        raise fail(f"{what}: property '{name}' must be a number from 0 to {limit - 1}")
    return value


def optional_number(obj: Object, name: str, what: str, limit: int = 1 << 64) -> int | None:
    return None if obj.get(name) is None else number(obj, name, what, limit)


def flag(obj: Object, name: str, what: str) -> bool:
    value = obj.get(name, False)
    if not isinstance(value, bool):
        raise fail(f"{what}: property '{name}' must be a boolean")
    return value


def words(obj: Object, name: str, what: str, allowed: Iterable[str] | None = None) -> tuple[str, ...]:
    """A string or a list of strings; empty when absent."""
    value = obj.get(name)
    items = [] if value is None else value if isinstance(value, list) else [value]
    for item in items:
        if not isinstance(item, str):
            raise fail(f"{what}: property '{name}' must be a string or a list of strings")
        if allowed is not None and item not in allowed:
            raise fail(f"{what}: unknown {name} '{item}'")
    return tuple(dict.fromkeys(items))


def one_of(value: str, allowed: Iterable[str], what: str) -> str:
    if value not in allowed:
        raise fail(f"{what}: unknown value '{value}'")
    return value
