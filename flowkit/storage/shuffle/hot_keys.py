"""Which key has most of what a map task writes, guessed from a sample: so that skew has a name. Runs on the task's slot thread."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

#: a chunk with fewer rows is not looked at: what is that small is no trouble, and should not pay
_LEAST_ROWS: Final = 8_192
#: one of so many rows is looked at, at random: data often repeats at regular distances
_ONE_OF: Final = 64
#: different keys remembered; beyond, those seen once are forgotten
_MOST_KEYS: Final = 4_096
#: part of the sample that makes a key worth naming
_LEAST_PART: Final = 0.2


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
        self._counts: dict[Any, int] = {}
        self._seen = 0
        self._random: np.random.Generator | None = None

    def look(self, keys: list[Any]) -> None:
        """Take a sample of a chunk."""
        if len(keys) < _LEAST_ROWS:
            return
        if self._random is None:
            self._random = np.random.default_rng(0)
        counts = self._counts
        for place in self._random.integers(0, len(keys), len(keys) // _ONE_OF).tolist():
            key = keys[place]
            try:
                counts[key] = counts.get(key, 0) + 1
            except TypeError:  # sorted by keys that cannot be counted
                return
            self._seen += 1
        if len(counts) > _MOST_KEYS:
            self._counts = {key: count for key, count in counts.items() if count > 1}

    def found(self) -> tuple[Any, float] | None:
        """The most frequent key and its part of the rows; None when no key stands out."""
        if not self._counts:
            return None
        key = max(self._counts, key=self._counts.__getitem__)
        part = self._counts[key] / self._seen
        return (key, part) if part >= _LEAST_PART else None
