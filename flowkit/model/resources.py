"""What a task needs of an executor beside a slot: more slots, memory, and named resources such as GPUs."""

from __future__ import annotations

from math import floor
from typing import Final

import msgspec

from flowkit.errors import InvalidArgument
from flowkit.model.ranges import Amount, Count, Slots

#: parts of one address; a task that needs half of it takes half of these
WHOLE: Final = 1_000_000
#: the smallest part of an address that a task may take: a thousand share one
LEAST: Final = 0.001


class ResourceProfile(msgspec.Struct, frozen=True):
    """Slots, an amount of each named resource (whole addresses, or a part of one, 0.5 or less), and memory.

    >>> ResourceProfile(cpus=2, amounts={"gpu": 0.5}).parts("gpu")
    500000
    >>> str(ResourceProfile(cpus=2, amounts={"gpu": 1}, memory_bytes=3 << 30))
    'cpus=2, gpu=1, memory_bytes=3,221,225,472'
    """

    cpus: Slots = 1
    amounts: dict[str, Amount] = {}
    #: what a task takes at its peak; 0: nobody says
    memory_bytes: Count = 0

    @property
    def is_default(self) -> bool:
        """Whether a slot is all that is needed."""
        return self.cpus == 1 and not self.amounts and not self.memory_bytes

    def parts(self, name: str) -> int:
        """What a task takes of one address of a resource: all of it, or an equal part as large as what it needs, or larger."""
        amount = self.amounts[name]
        return WHOLE if amount >= 1 else WHOLE // floor(1 / amount)

    def count(self, name: str) -> int:
        """Addresses that a task takes of a resource."""
        return max(1, int(self.amounts[name]))

    def __str__(self) -> str:
        amounts = [f"{name}={amount:g}" for name, amount in self.amounts.items()]
        memory = [f"memory_bytes={self.memory_bytes:,}"] if self.memory_bytes else []
        return ", ".join([f"cpus={self.cpus}", *amounts, *memory])


def resource_profile(cpus: object, amounts: dict[str, object], memory_bytes: object = 0) -> ResourceProfile:
    """A profile of arguments somebody gave; names are in lower case, as those that executors tell.

    Raises
    ------
    errors.InvalidArgument
        No whole number of slots or of bytes, or an amount that is neither a whole number nor a part of up to a half.

    Examples
    --------
    >>> resource_profile(1, {"gpu": 0.7})
    Traceback (most recent call last):
        ...
    flowkit.errors.InvalidArgument: gpu = 0.7: must be a whole number of 1 or more, or a part from 0.001 to 0.5
    """
    if isinstance(cpus, bool) or not isinstance(cpus, int) or cpus < 1:
        raise InvalidArgument(
            f"cpus = {cpus!r}: must be a whole number of 1 or more", name="cpus", value=cpus, allowed="1, 2, ..."
        )
    if isinstance(memory_bytes, bool) or not isinstance(memory_bytes, int) or memory_bytes < 0:
        raise InvalidArgument(
            f"memory_bytes = {memory_bytes!r}: must be a whole number, 0 or more",
            name="memory_bytes",
            value=memory_bytes,
            allowed="0, 1, ...",
        )
    checked: dict[str, float] = {}
    for name, amount in amounts.items():
        fits = isinstance(amount, int | float) and not isinstance(amount, bool) and LEAST <= amount < float("inf")
        if not fits or (amount > 0.5 and amount != int(amount)):  # type: ignore[operator,call-overload]
            raise InvalidArgument(
                f"{name} = {amount!r}: must be a whole number of 1 or more, or a part from {LEAST} to 0.5",
                name=name,
                value=amount,
                allowed="1, 2, ... or 0.001 to 0.5",
            )
        if name.lower() in checked:
            raise InvalidArgument(
                f"{name} = {amount!r}: is named twice, as {name.lower()} too", name=name, value=amount, allowed="one name"
            )
        checked[name.lower()] = float(amount)  # type: ignore[arg-type]
    return ResourceProfile(cpus, checked, memory_bytes)


DEFAULT_PROFILE: Final = ResourceProfile()
