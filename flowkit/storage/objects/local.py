"""Files of this machine: what a path names, and how files are cut into partitions.

Runs on the driver; reads directories and sizes, no contents.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flowkit.lineage.kernels import FileSplit

#: Unless asked to, a split is not made smaller than this: counting its words takes some 10 ms, a task of its own a tenth of that.
SMALLEST_SPLIT_BYTES = 128 << 10
#: Nor larger, so that a task's time stays short however few partitions were asked for.
LARGEST_SPLIT_BYTES = 64 << 20

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


def list_files(path: str) -> list[LocalFile]:
    """Every file that a path names: a file, a directory's files, a glob, or several of these with commas between.

    Names that begin with ``_`` or ``.`` are left out where a directory or a glob names them, as users of Hadoop expect.

    Raises
    ------
    FileNotFoundError
        Something is not there, or a glob matches nothing.
    """
    parts = [part for part in path.split(",") if part]
    if not parts:
        raise FileNotFoundError("an empty path names no file")
    return [LocalFile.at(file) for part in parts for file in _files_named(part)]


def _files_named(path: str) -> list[Path]:
    named = Path(path)
    if named.is_file():
        return [named]
    if named.is_dir():
        return _visible_files(named)
    # The pattern is absolute, which Path.glob does not take.
    matches = [Path(match) for match in sorted(glob.glob(path, recursive=True))]  # noqa: PTH207
    files: list[Path] = []
    for match in matches:
        if not _is_hidden(match):
            files += _visible_files(match) if match.is_dir() else [match]
    # A recursive pattern names a directory and the files in it.
    if files:
        return list(dict.fromkeys(files))
    raise FileNotFoundError(f"no file matches {path!r}")


def _visible_files(directory: Path) -> list[Path]:
    return [each for each in sorted(directory.iterdir()) if each.is_file() and not _is_hidden(each)]


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(("_", "."))


def plan_splits(
    files: Sequence[LocalFile], partitions: int, *, smallest_bytes: int = SMALLEST_SPLIT_BYTES
) -> tuple[tuple[FileSplit, ...], ...]:
    """Cut large files, pack small ones: ``partitions`` partitions of about equal size, more if they became too large otherwise.

    >>> [[split.start for split in each] for each in plan_splits([LocalFile("a", 4 << 20)], 2)]
    [[0], [2097152]]
    """
    total = sum(file.size_bytes for file in files)
    target = min(LARGEST_SPLIT_BYTES, max(smallest_bytes, -(-total // max(1, partitions))))
    packed: list[tuple[FileSplit, ...]] = []
    open_pack: list[FileSplit] = []
    open_bytes = 0
    for file in files:
        for split, size in _splits_of(file, target):
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
