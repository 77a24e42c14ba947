"""The text of the word count: many distinct words, few of them frequent, the same bytes on every machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np

_DISTINCT = 300_000
_WORDS_A_LINE = 12
_CHUNK_WORDS = 600_000


def text_file(directory: Path, size_bytes: int) -> Path:
    """A file of at least ``size_bytes``, made once. Word frequencies fall with rank as in natural language (Zipf)."""
    path = directory / f"words-{size_bytes}.txt"
    if path.exists():
        return path
    directory.mkdir(parents=True, exist_ok=True)
    generator = np.random.Generator(np.random.PCG64(20_261_120))
    letters = generator.integers(ord("a"), ord("z") + 1, size=(_DISTINCT, 11), dtype=np.uint8)
    lengths = generator.integers(2, 12, size=_DISTINCT)
    vocabulary = np.array([bytes(row[:length]).decode() for row, length in zip(letters, lengths, strict=True)], dtype=object)
    weights = 1.0 / (np.arange(_DISTINCT) + 2.7) ** 1.05
    cumulative = np.cumsum(weights / weights.sum())
    unfinished = path.with_suffix(".unfinished")
    left = size_bytes
    with unfinished.open("wb") as file:
        while left > 0:
            ranks = np.searchsorted(cumulative, generator.random(_CHUNK_WORDS)).clip(max=_DISTINCT - 1)
            lines = vocabulary[ranks].reshape(-1, _WORDS_A_LINE)
            chunk = ("\n".join(map(" ".join, lines)) + "\n").encode()
            if len(chunk) > left:  # the last one ends where a line ends
                chunk = chunk[: chunk.index(b"\n", left - 1) + 1]
            left -= file.write(chunk)
    unfinished.rename(path)
    return path
