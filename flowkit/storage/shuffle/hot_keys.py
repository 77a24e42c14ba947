"""Which key has most of what a map task writes, guessed from a sample: so that skew has a name. Runs on the task's slot thread."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

#: one of so many rows is looked at, at random: data often repeats at regular distances
_ONE_OF: Final = 64
#: a chunk with fewer rows has so many looked at, always at the same places: it is over before a generator of numbers is made
_SMALL_ROWS: Final = 8_192
_OF_SMALL: Final = 64
_PLACES: Final = np.random.default_rng(0).random(_OF_SMALL)
#: different keys remembered; beyond, those seen once are forgotten
_MOST_KEYS: Final = 4_096
#: part of the sample that makes a key worth naming, and rows: what was combined before has one of each
_LEAST_PART: Final = 0.2
_LEAST_ROWS: Final = 8


class HotKey:
    """Counts keys of a sample.

    >>> keys = HotKey()
    >>> keys.look([7] * 6_000 + list(range(4_000)))
    >>> key, part = keys.found()
    >>> key, round(part, 1)
    (7, 0.6)
    """

    __slots__ = ("_counts", "_random", "_seen")

    def __init__(self) -> None:
        #: rows by key, as far as the sample tells
        self._counts: dict[Any, float] = {}
        self._seen = 0
        self._random: np.random.Generator | None = None

    def look(self, keys: list[Any]) -> None:
        """Take a sample of a chunk."""
        sample = self._sample(keys)
        weight = len(keys) / len(sample) if sample else 0.0
        counts = self._counts
        try:
            for key in sample:
                counts[key] = counts.get(key, 0.0) + weight
        except TypeError:  # sorted by keys that cannot be counted
            return
        self._seen += len(keys)
        if len(counts) > _MOST_KEYS:
            self._counts = {key: count for key, count in counts.items() if count > weight}

    def _sample(self, keys: list[Any]) -> list[Any]:
        if len(keys) <= _OF_SMALL:
            return keys
        if len(keys) < _SMALL_ROWS:
            places = (_PLACES * len(keys)).astype(np.int64)
        else:
            if self._random is None:
                self._random = np.random.default_rng(0)
            places = self._random.integers(0, len(keys), len(keys) // _ONE_OF)
        return [keys[place] for place in places.tolist()]

    def found(self) -> tuple[Any, float] | None:
        """The most frequent key and its part of the rows; None when no key stands out."""
        if not self._counts:
            return None
        key = max(self._counts, key=self._counts.__getitem__)
        part = self._counts[key] / max(1, self._seen)
        return (key, part) if part >= _LEAST_PART and self._counts[key] >= _LEAST_ROWS else None
