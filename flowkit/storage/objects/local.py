"""Files of this machine: what a path names, and how files are cut into partitions.

Runs on the driver; reads directories and sizes, no contents.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flowkit.lineage.kernels import FileSplit

#: Unless asked to, a split is not made smaller than this: counting its words takes some 10 ms, a task of its own a tenth of that.
SMALLEST_SPLIT_BYTES = 128 << 10
#: Nor larger, so that a task's time stays short however few partitions were asked for.
LARGEST_SPLIT_BYTES = 64 << 20

#: A comma that is neither in ``{a,b}`` nor in ``[,;]``.
BETWEEN_PATHS = re.compile(r",(?![^{]*\})(?![^\[]*\])")
_BRACES = re.compile(r"\{([^{}]*)\}")
_CODECS = {".gz": "gz", ".bz2": "bz2", ".xz": "xz", ".zst": "zst"}


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file, its size, and when it was changed last."""

    path: str
    size_bytes: int
    changed_ns: int = 0

    @classmethod
    def at(cls, path: Path) -> LocalFile:
        """What is there now."""
        found = path.stat()
        return cls(str(path), found.st_size, found.st_mtime_ns)

    @property
    def codec(self) -> str | None:
        """Its compression, by suffix; a compressed file can't be split."""
        return _CODECS.get(Path(self.path).suffix)


def list_files(path: str | os.PathLike[str]) -> list[LocalFile]:
    """Every file that a path names: a file, a directory's files, a glob, or, in a text, several of these with commas between.

    Names that begin with ``_`` or ``.`` are left out where a directory or a glob names them, as users of Hadoop expect. A glob
    may have alternatives, ``{a,b}``. What exists under the very name is meant, whatever characters are in it.

    Raises
    ------
    FileNotFoundError
        Something is not there, or a glob matches nothing.
    """
    if isinstance(path, str):
        parts = [path] if path and Path(path).exists() else [part for part in BETWEEN_PATHS.split(path) if part]
    else:
        parts = [os.fspath(path)]
    if not parts:
        raise FileNotFoundError("an empty path names no file")
    return [LocalFile.at(file) for part in parts for file in _files_named(part)]


def _files_named(path: str) -> list[Path]:
    # Executors have working directories of their own, so every name is made absolute here.
    named = Path(path).absolute()
    if named.is_file():
        return [named]
    if named.is_dir():
        return _visible_files(named)
    here = Path.cwd()
    files: list[Path] = []
    for pattern in _alternatives(path):
        # Relative to a root, since that may have characters in its name that mean something in a pattern.
        for match in sorted(glob.glob(pattern, root_dir=here, recursive=True)):  # noqa: PTH207 (takes absolute ones as well)
            found = here / match
            if not _is_hidden(found):
                files += _visible_files(found) if found.is_dir() else [found]
    # A recursive pattern names a directory and the files in it.
    if files:
        return list(dict.fromkeys(files))
    raise FileNotFoundError(f"no file matches {path!r}" if Path(path).is_absolute() else f"no file matches {path!r} in {here}")


def _alternatives(pattern: str) -> list[str]:
    """What a pattern with ``{a,b}`` stands for, which Python's globs don't know.

    >>> _alternatives("{a,b}/*.{x,y}")
    ['a/*.x', 'a/*.y', 'b/*.x', 'b/*.y']
    """
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [each for choice in found[1].split(",") for each in _alternatives(before + choice + after)]


def _visible_files(directory: Path) -> list[Path]:
    return [each for each in sorted(directory.iterdir()) if each.is_file() and not _is_hidden(each)]


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(("_", "."))


def plan_splits(
    files: Sequence[LocalFile],
    partitions: int,
    *,
    smallest_bytes: int = SMALLEST_SPLIT_BYTES,
    largest_bytes: int = LARGEST_SPLIT_BYTES,
    whole: bool = False,
) -> tuple[tuple[FileSplit, ...], ...]:
    """Cut large files, pack small ones: ``partitions`` partitions of about equal size, more if they became too large otherwise.

    With ``whole``, files are packed but not cut.

    >>> [[split.start for split in each] for each in plan_splits([LocalFile("a", 4 << 20)], 2)]
    [[0], [2097152]]
    """
    total = sum(file.size_bytes for file in files)
    target = min(largest_bytes, max(smallest_bytes, -(-total // max(1, partitions))))
    packed: list[tuple[FileSplit, ...]] = []
    open_pack: list[FileSplit] = []
    open_bytes = 0
    for file in files:
        for split, size in _splits_of(file, file.size_bytes if whole else target):
            if open_pack and open_bytes + size > target:
                packed.append(tuple(open_pack))
                open_pack, open_bytes = [], 0
            open_pack.append(split)
            open_bytes += size
    if open_pack:
        packed.append(tuple(open_pack))
    return tuple(packed)


def _splits_of(file: LocalFile, target: int) -> list[tuple[FileSplit, int]]:
    if file.codec is not None or file.size_bytes <= target * 1.1:  # a tail of a tenth is not worth a task
        return [(FileSplit(file.path, 0, None, file.codec), file.size_bytes)]
    splits = []
    start = 0
    while start < file.size_bytes:
        left = file.size_bytes - start
        length = left if left <= target * 1.1 else target
        splits.append((FileSplit(file.path, start, length, None), length))
        start += length
    return splits


def partitions_for(total_bytes: int, wanted: int | None, parallelism: int, *, smallest_bytes: int, largest_bytes: int) -> int:
    """How many partitions so many bytes are read in: as many as wanted or more, or one a slot within the limits of their sizes.

    >>> partitions_for(100 << 20, None, 2, smallest_bytes=1 << 17, largest_bytes=1 << 20)
    100
    >>> partitions_for(1000, None, 8, smallest_bytes=1 << 17, largest_bytes=1 << 20)
    1
    >>> partitions_for(1000, 8, 2, smallest_bytes=1 << 17, largest_bytes=1 << 20)
    8
    """
    fewest = -(-total_bytes // largest_bytes)
    if wanted is not None:
        return max(1, wanted, fewest)
    return max(1, fewest, min(parallelism, total_bytes // smallest_bytes))


def pack_files(files: Sequence[LocalFile], partitions: int) -> tuple[tuple[str, ...], ...]:
    """Whole files in at most ``partitions`` partitions of about equal size, in order.

    >>> pack_files([LocalFile("a", 1), LocalFile("b", 1), LocalFile("c", 2)], 2)
    (('a', 'b'), ('c',))
    """
    total = sum(file.size_bytes for file in files) or 1
    groups: list[list[str]] = [[] for _ in range(max(1, min(partitions, len(files))))]
    before = 0
    for file in files:
        middle = before + file.size_bytes / 2
        groups[min(len(groups) - 1, int(middle * len(groups) / total))].append(file.path)
        before += file.size_bytes
    return tuple(tuple(group) for group in groups if group)
