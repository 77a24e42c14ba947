"""``on_error=``: elements that a function raises for are left out, counted, and looked at later. Runs on the driver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from flowkit.errors import InvalidArgument, TooManyErrors
from flowkit.execution.tolerance import Faults, Shape, Tolerant
from flowkit.lineage.call_site import find_call_site, short_call_site
from flowkit.lineage.kernels import FlatMap, FlatMapValues
from flowkit.model.events import SKIPPED
from flowkit.rdd.base import Base

OnError = Literal["raise", "skip", "quarantine"]
_WAYS = ("raise", "skip", "quarantine")


class Tolerance:
    """What one operation tolerates: its counts, its limit, and how to find what was left out."""

    def __init__(self, place: str, errors: Any, seen: Any, max_errors: float | None, faults: Faults | None) -> None:
        self.place = place
        self._errors = errors
        self._seen = seen
        self._max_errors = max_errors
        #: None: what is left out is not to be looked at
        self.faults = faults

    def counts(self) -> tuple[int, int]:
        """Errors and elements so far, over all jobs."""
        return self._errors.value, 0 if self._seen is None else self._seen.value

    def check(self, before: tuple[int, int]) -> None:
        """After a job: raise when there were more errors than are tolerated."""
        if self._max_errors is None:
            return
        errors, seen = (now - then for now, then in zip(self.counts(), before, strict=True))
        limit = self._max_errors if isinstance(self._max_errors, int) else self._max_errors * seen
        if errors > limit:
            of = f" of {seen:,} elements" if seen else ""
            raise TooManyErrors(
                f"{self.place}: {errors:,} errors{of} are more than max_errors = {self._max_errors!r}",
                setting="max_errors",
                limit=self._max_errors,
                actual=errors,
            )


def tolerant(
    rdd: Base[Any],
    fn: Callable[[Any], Any],
    operation: str,
    shape: Shape,
    on_error: str,
    max_errors: float | None,
    *,
    of_value: bool = False,
    keeps_partitioner: bool = False,
) -> Any:
    """The RDD of an element-wise operation that tolerates errors."""
    check_on_error(on_error, max_errors)
    place = f"{operation} at {short_call_site(find_call_site())}"
    errors = rdd._runner.accumulator(0, name=SKIPPED + place)
    seen = rdd._runner.accumulator(0) if isinstance(max_errors, float) else None
    wrapped = Tolerant(fn, shape, errors, seen, 0 if max_errors == 0 else None, place)
    kernel = FlatMapValues(wrapped) if of_value else FlatMap(wrapped)
    made = rdd._narrow(kernel, operation, keeps_partitioner=keeps_partitioner)
    faults = Faults(fn, shape, of_value=of_value) if on_error == "quarantine" else None
    made._node.tolerance = Tolerance(place, errors, seen, max_errors, faults)
    return made


def check_on_error(on_error: Any, max_errors: Any) -> None:
    """Refuse what ``on_error`` and ``max_errors`` can't be."""
    if on_error not in _WAYS:
        allowed = ", ".join(map(repr, _WAYS))
        raise InvalidArgument(
            f"on_error = {on_error!r}: must be one of {allowed}", name="on_error", value=on_error, allowed=allowed
        )
    if max_errors is None:
        return
    allowed = "a whole number of 0 or more, or a fraction between 0 and 1"
    whole = isinstance(max_errors, int) and not isinstance(max_errors, bool) and max_errors >= 0
    if on_error == "raise" or not (whole or (isinstance(max_errors, float) and 0 <= max_errors <= 1)):
        allowed = "left out where errors are raised" if on_error == "raise" else allowed
        raise InvalidArgument(
            f"max_errors = {max_errors!r}: must be {allowed}", name="max_errors", value=max_errors, allowed=allowed
        )
