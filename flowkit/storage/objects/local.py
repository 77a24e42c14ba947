"""Files of this machine: what a path names, and how files are cut into partitions.

Runs on the driver; reads directories and sizes, no contents.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from flowkit.errors import InvalidArgument
from flowkit.lineage.kernels import FileSplit, FileVersion
from flowkit.visible import visible

#: Unless asked to, a split is not made smaller than this: counting its words takes some 10 ms, a task of its own a tenth of that.
SMALLEST_SPLIT_BYTES = 128 << 10
#: Nor larger, so that a task's time stays short however few partitions were asked for.
LARGEST_SPLIT_BYTES = 64 << 20

#: A comma that is neither in ``{a,b}`` nor in ``[,;]``.
BETWEEN_PATHS = re.compile(r",(?![^{]*\})(?![^\[]*\])")
_BRACES = re.compile(r"\{([^{}]*)\}")
_WILDCARD = re.compile(r"[*?\[{]")
_CODECS = {".gz": "gz", ".bz2": "bz2", ".xz": "xz", ".zst": "zst"}
#: of the directories in the message about a directory without files
_NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file, its size, and when it was changed last."""

    path: str
    size_bytes: int
    changed_ns: int = 0
    #: the directory that was named; of a glob the one before its first wildcard; of a file that was named itself the one it is in
    base: str = ""
    #: what its store says of this version of it, as an etag
    tag: str = ""
    #: False: its store does not tell how large it is
    has_size: bool = True

    @classmethod
    def at(cls, path: Path, base: Path | None = None) -> LocalFile:
        """What is there now.

        Raises
        ------
        FileNotFoundError
            Nothing is, or a symbolic link that leads nowhere.
        errors.InvalidArgument
            Something is that is no regular file: a FIFO, a socket, a device. Reading one may never end.
        """
        found = _stat(path)
        if found is None:
            raise FileNotFoundError(_nothing_at(path))
        if not stat.S_ISREG(found.st_mode):
            raise not_regular(str(path), found.st_mode)
        return cls(str(path), found.st_size, found.st_mtime_ns, str(path.parent if base is None else base))

    @property
    def version(self) -> FileVersion:
        """By what it is known again when it is read."""
        return FileVersion(self.size_bytes if self.has_size else -1, self.changed_ns, self.tag)

    @property
    def codec(self) -> str | None:
        """Its compression, by suffix; a compressed file can't be split."""
        return codec_of(self.path)


def codec_of(path: str) -> str | None:
    """The compression of a file, by the suffix of its name.

    >>> codec_of("a.txt.gz"), codec_of("A.TXT.GZ"), codec_of("a.txt")
    ('gz', 'gz', None)
    """
    return _CODECS.get(Path(path).suffix.lower())


def local_place(path: str | os.PathLike[str]) -> Path:
    """The absolute path that a user's path means in this process: relative to its working directory, ``~`` as of the shell.

    A file or directory whose own name is ``~`` is meant where there is one.

    >>> local_place("/tmp/a"), local_place("a") == Path.cwd() / "a"
    (PosixPath('/tmp/a'), True)
    """
    place = Path(path)
    if place.parts[:1] and place.parts[0].startswith("~") and not os.path.lexists(place):
        try:
            place = place.expanduser()
        except RuntimeError:  # no such user
            return place.absolute()
    return place.absolute()


def list_files(path: str | os.PathLike[str], *, recursive: bool = False) -> list[LocalFile]:
    """Every file that a path names: a file, a directory's files, a glob, or, in a text, several of these with commas between.

    Names that begin with ``_`` or ``.`` are left out where a directory or a glob names them, as users of Hadoop expect (``_a=1`` is the
    directory of a column and is not). A glob may have alternatives, ``{a,b}``. What exists under the very name is meant, whatever
    characters are in it.

    Parameters
    ----------
    recursive
        Whether files in directories of a directory are among its files.

    Raises
    ------
    FileNotFoundError
        Something is not there, a glob matches nothing, a directory holds directories only, or a symbolic link leads nowhere.
    errors.InvalidArgument
        Something is no regular file.
    """
    if isinstance(path, str):
        parts = [path] if path and _exists(path) else [part for part in BETWEEN_PATHS.split(path) if part]
    else:
        parts = [os.fspath(path)]
    if not parts:
        raise FileNotFoundError("an empty path names no file")
    return [file for part in parts for file in _files_named(part, recursive=recursive)]


def _files_named(path: str, *, recursive: bool) -> list[LocalFile]:
    # Executors have working directories of their own, so every name is made absolute here.
    named = local_place(path)
    found = _stat(named)
    if found is not None and stat.S_ISDIR(found.st_mode):
        return _files_in(named, named, recursive=recursive)
    if found is not None or named.is_symlink():
        return [LocalFile.at(named)]
    files: list[LocalFile] = []
    for pattern in alternatives(path):
        files += _files_matching(pattern, recursive=recursive)
    if files:
        # A recursive pattern names a directory and the files in it.
        return list({file.path: file for file in files}.values())
    raise FileNotFoundError(
        f"no file matches {path!r}" if Path(path).is_absolute() else f"no file matches {path!r} in {visible(str(Path.cwd()))}"
    )


def _files_matching(pattern: str, *, recursive: bool) -> list[LocalFile]:
    here = Path.cwd()
    base = local_place(fixed_part(pattern))
    files: list[LocalFile] = []
    # Relative to a root, since that may have characters in its name that mean something in a pattern.
    expanded = str(Path(pattern).expanduser()) if pattern.startswith("~/") else pattern
    for match in sorted(glob.glob(expanded, root_dir=here, recursive=True)):  # noqa: PTH207 (takes absolute ones as well)
        found = here / match
        if is_hidden(found.name):
            continue
        if found.is_dir():
            with contextlib.suppress(_OnlyDirectories):
                files += _files_in(found, base, recursive=recursive)
        else:
            files.append(LocalFile.at(found, base))
    return files


def fixed_part(pattern: str) -> str:
    """The directory that a pattern begins with, as far as it has no wildcard.

    >>> fixed_part("/data/day=*/x.csv"), fixed_part("*.csv"), fixed_part("/data/a.csv")
    ('/data', '.', '/data')
    """
    wildcard = _WILDCARD.search(pattern)
    before = pattern if wildcard is None else pattern[: wildcard.start()]
    return os.path.dirname(before) or "."  # noqa: PTH120 - Path would lose a trailing slash


def alternatives(pattern: str) -> list[str]:
    """What a pattern with ``{a,b}`` stands for, which Python's globs don't know.

    >>> alternatives("{a,b}/*.{x,y}")
    ['a/*.x', 'a/*.y', 'b/*.x', 'b/*.y']
    """
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [each for choice in found[1].split(",") for each in alternatives(before + choice + after)]


class _OnlyDirectories(FileNotFoundError):
    """A directory that holds directories and no files."""


def only_directories(directory: str, names: Sequence[str]) -> FileNotFoundError:
    """The error for a directory that holds directories and no files, where its files were to be read.

    >>> only_directories("/data", ["2026"])
    _OnlyDirectories("/data holds directories (2026) and no files; '/data/*' names the files in them, '/data/**' those at any depth")
    """
    shown = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
    return _OnlyDirectories(
        visible(
            f"{directory} holds directories ({shown}) and no files; '{directory}/*' names the files in them, '{directory}/**' those at "
            "any depth"
        )
    )


def _files_in(directory: Path, base: Path, *, recursive: bool, above: tuple[tuple[int, int], ...] = ()) -> list[LocalFile]:
    """Visible files, by name; those of its directories too where asked for."""
    at = directory.stat()
    this = (at.st_dev, at.st_ino)
    if this in above:
        raise InvalidArgument(
            f"{directory} is a symbolic link to a directory above it: its files have no end",
            name="path",
            value=str(directory),
            allowed="directories that do not contain themselves",
        )
    files: list[LocalFile] = []
    directories: list[str] = []
    for each in sorted(directory.iterdir()):
        if is_hidden(each.name):
            continue
        if each.is_dir():
            directories.append(each.name)
            if recursive:
                files += _files_in(each, base, recursive=True, above=(*above, this))
        elif each.exists() or each.is_symlink():  # not one that was removed meanwhile
            files.append(LocalFile.at(each, base))
    if not files and directories and not recursive:
        raise only_directories(str(directory), directories)
    return files


def is_hidden(name: str) -> bool:
    """Whether directories and globs leave out a name.

    >>> is_hidden("_SUCCESS"), is_hidden(".crc"), is_hidden("_column=1"), is_hidden("part-00000")
    (True, True, False, False)
    """
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def check_regular(path: str) -> None:
    """Refuse what is no regular file before somebody opens it who would wait for a FIFO.

    Raises
    ------
    FileNotFoundError, errors.InvalidArgument
        As ``LocalFile.at``.
    """
    LocalFile.at(Path(path))


def open_regular(path: str, buffering: int = -1) -> IO[bytes]:
    """Open a file of this machine for reading.

    Raises
    ------
    errors.InvalidArgument
        What is there is no regular file; to open a FIFO that nobody writes to would wait for ever.
    """
    return cast("IO[bytes]", open(path, "rb", buffering=buffering, opener=_opened))


def _opened(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise not_regular(path, mode)
    return descriptor


def version_of(file: IO[bytes], path: str) -> FileVersion:
    """Of a file of this machine that is read: of the very one that is open, whatever has its name by now."""
    found = os.stat(path) if file.closed else os.fstat(file.fileno())  # noqa: PTH116 - a Path takes longer than the call
    return FileVersion(found.st_size, found.st_mtime_ns)


_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)


def not_regular(path: str, mode: int) -> InvalidArgument:
    """The error for what is there in place of a file."""
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "no file")
    return InvalidArgument(
        f"{path} is {kind}, not a regular file: copy what it gives into a file, and read that",
        name="path",
        value=path,
        allowed="regular files and directories of them",
    )


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a ValueError: a NUL in the name
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            return None
        raise


def _exists(path: str) -> bool:
    return os.path.lexists(local_place(path)) if "\0" not in path else False


def _nothing_at(path: Path) -> str:
    if path.is_symlink():
        return visible(f"{path} is a symbolic link to {path.readlink()}, where nothing is")
    return visible(f"nothing is at {path}")


def plan_splits(
    files: Sequence[LocalFile],
    partitions: int,
    *,
    smallest_bytes: int = SMALLEST_SPLIT_BYTES,
    largest_bytes: int = LARGEST_SPLIT_BYTES,
    whole: bool = False,
    as_they_are: bool = False,
) -> tuple[tuple[FileSplit, ...], ...]:
    """Cut large files, pack small ones: ``partitions`` partitions of about equal size, more if they became too large otherwise.

    With ``whole``, files are packed but not cut. With ``as_they_are``, they may change until they are read: the last split of a file has no
    end, and none says of which version it is.

    >>> [[split.start for split in each] for each in plan_splits([LocalFile("a", 4 << 20)], 2)]
    [[0], [2097152]]
    """
    total = sum(file.size_bytes for file in files)
    target = min(largest_bytes, max(smallest_bytes, -(-total // max(1, partitions))))
    packed: list[tuple[FileSplit, ...]] = []
    open_pack: list[FileSplit] = []
    open_bytes = 0
    for file in files:
        for split, size in _splits_of(file, file.size_bytes if whole else target, as_they_are=as_they_are):
            if open_pack and open_bytes + size > target:
                packed.append(tuple(open_pack))
                open_pack, open_bytes = [], 0
            open_pack.append(split)
            open_bytes += size
    if open_pack:
        packed.append(tuple(open_pack))
    return tuple(packed)


def _splits_of(file: LocalFile, target: int, *, as_they_are: bool) -> list[tuple[FileSplit, int]]:
    version = None if as_they_are else file.version
    if file.codec is not None or file.size_bytes <= target * 1.1:  # a tail of a tenth is not worth a task
        return [(FileSplit(file.path, 0, None, file.codec, version), file.size_bytes)]
    splits = []
    start = 0
    while start < file.size_bytes:
        left = file.size_bytes - start
        is_last = left <= target * 1.1
        length = left if is_last else target
        splits.append((FileSplit(file.path, start, None if is_last and as_they_are else length, None, version), length))
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


def pack_files(files: Sequence[LocalFile], partitions: int) -> tuple[tuple[LocalFile, ...], ...]:
    """Whole files in at most ``partitions`` partitions of about equal size, in order.

    >>> packed = pack_files([LocalFile("a", 1), LocalFile("b", 1), LocalFile("c", 2)], 2)
    >>> [[file.path for file in group] for group in packed]
    [['a', 'b'], ['c']]
    """
    total = sum(file.size_bytes for file in files) or 1
    groups: list[list[LocalFile]] = [[] for _ in range(max(1, min(partitions, len(files))))]
    before = 0
    for file in files:
        middle = before + file.size_bytes / 2
        groups[min(len(groups) - 1, int(middle * len(groups) / total))].append(file)
        before += file.size_bytes
    return tuple(tuple(group) for group in groups if group)
