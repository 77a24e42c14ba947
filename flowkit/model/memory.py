"""What a memory manager's pool and those who hold memory of it have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from flowkit.errors import InvalidArgument

#: properties of a task of whose job nothing was said
NOTHING_SAID: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(slots=True)
class StorageGrant:
    """What somebody holds of the storage side.

    Changed together with the pool, with no call in between: a killed task's exception can arrive at any call, and whoever
    cleans up after it must know what is held.
    """

    size_bytes: int = 0


def check_fraction(name: str, value: Any) -> float:
    """A part of a whole.

    >>> check_fraction("storage_fraction", 1.5)
    Traceback (most recent call last):
        ...
    flowkit.errors.InvalidArgument: storage_fraction = 1.5: must be a number from 0 to 1
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        allowed = "a number from 0 to 1"
        raise InvalidArgument(f"{name} = {value!r}: must be {allowed}", name=name, value=value, allowed=allowed)
    return float(value)
