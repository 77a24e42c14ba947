"""What numbers may be that come over a network or out of a file; msgspec refuses others where they are decoded.

Ranges are wide: they keep out what no clock, disk or memory can have said (not a number, infinity, a negative count), and what would be
taken for the size of a table. What fits together is another matter: ``scheduling.admission``.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
"""Of bytes, rows, tasks."""
Size = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
"""Of a table that somebody makes: partitions, reducers."""
Slots = Annotated[int, Meta(ge=1, le=1_000_000)]
"""Of one executor, or of one task."""
Moment = Annotated[float, Meta(ge=-1e15, le=1e15)]
"""A time or a duration in seconds; clocks that are put back make negative ones."""
Lease = Annotated[float, Meta(gt=0, le=1e9)]
"""Seconds: up to some thirty years."""
Amount = Annotated[float, Meta(ge=0.001, le=1e6)]
"""Of a named resource, as ``model.resources`` has it."""
