"""How many different elements there are, by HyperLogLog sketches that merge. Runs on slot threads and on the driver.

The sketches are those of Apache DataSketches; elements enter by flowkit's own stable hash, so that what is equal counts once in
whatever process it was met.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from typing import Any

from flowkit.errors import InvalidArgument
from flowkit.lineage.hashing import stable_hashes

#: sizes that the library knows, as powers of two
_SMALLEST, _LARGEST = 4, 21
#: elements hashed together
_CHUNK = 8_192


def relative_sd_of(log2_registers: int) -> float:
    """Standard deviation of a merged sketch's relative error: 1.04 / sqrt(registers), by Flajolet et al. 2007."""
    return 1.04 / math.sqrt(1 << log2_registers)


def log2_registers_for(relative_sd: float) -> int:
    """The smallest sketch that is so exact.

    >>> log2_registers_for(0.05)
    9

    Raises
    ------
    errors.InvalidArgument
        No sketch is so exact.
    """
    if relative_sd < 1:
        for size in range(_SMALLEST, _LARGEST + 1):
            if relative_sd_of(size) <= relative_sd:
                return size
    allowed = f"{relative_sd_of(_LARGEST):.4f} or more, and below 1"
    raise InvalidArgument(
        f"relative_sd = {relative_sd!r}: must be {allowed}", name="relative_sd", value=relative_sd, allowed=allowed
    )


@dataclass(frozen=True, slots=True)
class SketchDistinct:
    """A partition's sketch, as bytes."""

    log2_registers: int

    def __call__(self, _partition: int, rows: Iterator[Any]) -> bytes:
        """See the class."""
        sketch = _library().hll_sketch(self.log2_registers)
        update = sketch.update
        while chunk := list(islice(rows, _CHUNK)):
            for value in stable_hashes(chunk).view("int64").tolist():
                update(value)
        data: bytes = sketch.serialize_compact()
        return data


def merged_estimate(sketches: Iterable[bytes], log2_registers: int) -> float:
    """How many different elements several sketches have seen together."""
    library = _library()

    def merge(union: Any, data: bytes) -> Any:
        union.update(library.hll_sketch.deserialize(data))
        return union

    return float(reduce(merge, sketches, library.hll_union(log2_registers)).get_estimate())


def _library() -> Any:
    return importlib.import_module("datasketches")  # an extra, and its names come from C++: no checker knows them
