"""Files by address: which store a scheme names, and how its files are listed, read and written. A store is a ``pyarrow.fs.FileSystem``.

Runs on drivers and executors. ``Stores`` is what travels: the stores that a program uses, by scheme, inside the pickled program. Local
paths go by no store at all: the system's own calls are faster.
"""

from __future__ import annotations

import contextlib
import fnmatch
import io
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from flowkit.errors import InvalidArgument, MissingPackage
from flowkit.lineage.kernels import FileVersion
from flowkit.storage.objects.local import (
    BETWEEN_PATHS,
    LocalFile,
    alternatives,
    fixed_part,
    is_hidden,
    list_files,
    only_directories,
    open_regular,
    version_of,
)
from flowkit.visible import visible

_ADDRESS: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_GLOB: Final = re.compile(r"[*?\[{]")
#: a path that is an address, or says that it is none
_PREFIX: Final = re.compile(r"://|(?:^|,)file:/", re.IGNORECASE)
#: schemes whose file systems want the whole address
_WHOLE: Final = frozenset({"http", "https"})
#: tries to remove a directory into which others still write
_DELETIONS: Final = 4
#: types of stores that have objects and no directories
_OBJECTS: Final = re.compile(r"s3|gcs|gs|abfs|oss|http")
#: retries of one request, with growing pauses: a store that restarts is away for some seconds
_S3_ATTEMPTS: Final = 6
_COPY_BYTES, _BUFFER_BYTES = 4 << 20, 1 << 20
#: by what file systems of fsspec tell versions of a file apart, the surest first
_VERSION_KEYS: Final = (
    "ETag",
    "etag",
    "generation",
    "version_id",
    "md5Hash",
    "checksum",
    "LastModified",
    "last_modified",
    "updated",
    "mtime",
    "modified",
    "created",
)


#: what readers take
Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


class Address(NamedTuple):
    """``s3://bucket/key`` taken apart."""

    scheme: str
    rest: str


def address_of(path: object) -> Address | None:
    """The parts of an address; None for a path of this machine.

    >>> address_of("s3://bucket/a/b"), address_of("/tmp/a"), address_of("file:///tmp/a")
    (Address(scheme='s3', rest='bucket/a/b'), None, None)
    """
    found = _ADDRESS.fullmatch(path) if isinstance(path, str) else None
    if found is None or found[1].lower() == "file":
        return None
    return Address(found[1].lower(), found[2])


def local_path(path: Any) -> Any:
    """A path of this machine without ``file://`` (Hadoop writes ``file:/``).

    >>> local_path("file:///tmp/a"), local_path("file:/tmp/a")
    ('/tmp/a', '/tmp/a')
    """
    if not isinstance(path, str) or path[:6].lower() != "file:/":
        return path
    return path[7:] if path[5:7] == "//" else path[5:]


class Stores:
    """File systems by scheme. Immutable; pickles with what they need to connect, and shows none of it.

    Parameters
    ----------
    given
        The user's: a ``pyarrow.fs.FileSystem``, an ``fsspec`` one, or a function without arguments that makes one where it is needed.
    """

    def __init__(self, given: Mapping[str, Any] | None = None) -> None:
        self._given = dict(given or {})
        self._made: dict[str, Any] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Stores, (self._given,)

    def __repr__(self) -> str:
        return f"<Stores {', '.join(sorted(self._given)) or 'built in'}>"

    def only(self, paths: Iterable[str]) -> Stores:
        """Those that some paths need: what a program does not use does not travel with it."""
        schemes = {found.scheme for found in map(address_of, paths) if found is not None}
        return Stores({scheme: store for scheme, store in self._given.items() if scheme in schemes})

    def file_system(self, scheme: str) -> Any:
        """The store of a scheme.

        Raises
        ------
        errors.InvalidArgument
            Nobody knows the scheme; the message lists those that are known.
        errors.MissingPackage
            What it needs is not installed.
        """
        known = self._made.get(scheme)
        if known is None:
            given = self._given.get(scheme)
            known = self._made[scheme] = wrapped(given, scheme) if given is not None else self._built_in(scheme)
        return known

    def _built_in(self, scheme: str) -> Any:
        maker = _BUILT_IN.get(scheme)
        if maker is None:
            known = ", ".join(sorted({"file", *_BUILT_IN, *self._given}))
            raise InvalidArgument(
                f"path = {scheme}://...: no such store is known ({known}); Config.builder().with_object_store({scheme!r}, store) adds one: a "
                "pyarrow.fs.FileSystem, an fsspec file system, or a function that makes one",
                name="path",
                value=scheme,
                allowed=known,
            )
        return maker(scheme)

    def at(self, path: str) -> tuple[Any, str]:
        """The store of an address, and what the store calls it."""
        found = address_of(path)
        assert found is not None
        return self.file_system(found.scheme), path if found.scheme in _WHOLE else found.rest.rstrip("/")

    # -- reading

    def open(self, path: str) -> IO[bytes]:
        """Open a file for reading, at any place of it."""
        if address_of(path) is None:
            return open_regular(path, buffering=0)
        store, inner = self.at(path)
        # Every read of a store is a message: a few large ones.
        return io.BufferedReader(store.open_input_file(inner), _BUFFER_BYTES)

    def version(self, path: str, file: IO[bytes]) -> FileVersion:
        """What a file that ``open`` has opened is now. Cost: of a store, one message.

        Raises
        ------
        FileNotFoundError
            Of a store: it is there no more.
        """
        if address_of(path) is None:
            return version_of(file, path)
        store, inner = self.at(path)
        return version_in(store, inner)

    def list_files(self, path: str, *, recursive: bool = False) -> list[LocalFile]:
        """Files that an address names, by the rules of ``local.list_files``: one, those of a directory, or those that match a glob.

        Raises
        ------
        FileNotFoundError
            Nothing is there, or a directory of directories only.
        """
        from pyarrow.fs import FileType

        store, inner = self.at(path)
        _forget_listings(store)
        (info,) = store.get_file_info([inner])
        if info.type == FileType.File:
            return [self._file(path, info, inner.rpartition("/")[0])]
        if _GLOB.search(inner) and info.type != FileType.Directory:
            found = {
                file.path: file for pattern in alternatives(inner) for file in self._matching(path, pattern, recursive=recursive)
            }
            listed = list(found.values())
        else:
            listed = self._in_directory(path, inner, recursive=recursive)
        if not listed and (_GLOB.search(inner) or not self.exists(path)):
            raise FileNotFoundError(f"nothing is at {visible(path)}")
        return listed

    def _in_directory(self, path: str, inner: str, *, recursive: bool) -> list[LocalFile]:
        from pyarrow.fs import FileSelector, FileType

        store, _ = self.at(path)
        infos = [
            each
            for each in store.get_file_info(FileSelector(inner, recursive=recursive, allow_not_found=True))
            if not any(map(is_hidden, _below(each.path, inner).split("/")))
        ]
        files = [self._file(path, each, inner) for each in infos if each.type == FileType.File]
        if not files and infos and not recursive:
            raise only_directories(path.rstrip("/"), sorted(_below(each.path, inner) for each in infos))
        return sorted(files, key=lambda file: file.path)

    def _matching(self, path: str, pattern: str, *, recursive: bool) -> list[LocalFile]:
        from pyarrow.fs import FileSelector, FileType

        store, _ = self.at(path)
        base = fixed_part(pattern)
        matches = _matcher(pattern)
        files = [
            self._file(path, each, base)
            for each in store.get_file_info(FileSelector(base, recursive=True, allow_not_found=True))
            if each.type == FileType.File and _is_named(each.path, base, matches, recursive=recursive)
        ]
        return sorted(files, key=lambda file: file.path)

    def _file(self, path: str, info: Any, base: str) -> LocalFile:
        found = address_of(path)
        assert found is not None
        prefix = "" if found.scheme in _WHOLE else f"{found.scheme}://"
        store, _ = self.at(path)
        return LocalFile(
            prefix + info.path.lstrip("/") if prefix else info.path,
            info.size or 0,
            info.mtime_ns or 0,
            prefix + base.lstrip("/") if prefix else base,
            tag=_tag_in(store, info.path),
            has_size=info.size is not None,
        )

    def exists(self, path: str) -> bool:
        """Whether a file or a directory with something in it is there."""
        from pyarrow.fs import FileSelector, FileType

        store, inner = self.at(path)
        (info,) = store.get_file_info([inner])
        if info.type == FileType.File:
            return True
        return info.type == FileType.Directory and bool(store.get_file_info(FileSelector(inner, allow_not_found=True)))

    def has_output(self, path: str) -> bool:
        """Whether a file is there, or a directory with something in it that is not a job's unfinished work."""
        from pyarrow.fs import FileSelector, FileType

        store, inner = self.at(path)
        (info,) = store.get_file_info([inner])
        if info.type != FileType.Directory:
            return bool(info.type == FileType.File)
        entries = store.get_file_info(FileSelector(inner, allow_not_found=True))
        return any(not each.base_name.startswith("_temporary-") for each in entries)

    # -- writing

    def upload(self, source: Path, path: str) -> None:
        """Put a local file there: it is there as a whole, or not at all."""
        store, inner = self.at(path)
        self._make_directory(store, inner.rpartition("/")[0])
        with source.open("rb") as file, store.open_output_stream(inner, compression=None) as sink:
            while piece := file.read(_COPY_BYTES):
                sink.write(piece)

    def write(self, path: str, data: bytes) -> None:
        """Put some bytes there."""
        store, inner = self.at(path)
        self._make_directory(store, inner.rpartition("/")[0])
        with store.open_output_stream(inner, compression=None) as sink:
            sink.write(data)

    def move(self, path: str, to: str) -> None:
        """Rename a file, or copy and delete where the store has no renames."""
        store, inner = self.at(path)
        _, target = self.at(to)
        self._make_directory(store, target.rpartition("/")[0])
        if _OBJECTS.search(store.type_name):
            store.copy_file(inner, target)
            self.delete(path)
        else:
            store.move(inner, target)

    def size(self, path: str) -> int:
        """Bytes of a file."""
        store, inner = self.at(path)
        (info,) = store.get_file_info([inner])
        return int(info.size or 0)

    def walk(self, path: str) -> list[str]:
        """Every file below a directory, hidden ones too, by what comes after the directory's name."""
        from pyarrow.fs import FileSelector, FileType

        store, inner = self.at(path)
        infos = store.get_file_info(FileSelector(inner, recursive=True, allow_not_found=True))
        return sorted(
            each.path.lstrip("/").removeprefix(inner.lstrip("/")).lstrip("/") for each in infos if each.type == FileType.File
        )

    def delete(self, path: str) -> None:
        """Remove a file or a directory with all that is in it. Idempotent."""
        from pyarrow.fs import FileType

        store, inner = self.at(path)
        for tries_left in reversed(range(_DELETIONS)):
            (info,) = store.get_file_info([inner])
            try:
                if info.type == FileType.Directory:
                    store.delete_dir(inner)
                elif info.type == FileType.File:
                    store.delete_file(inner)
                return
            except FileNotFoundError:
                return
            except OSError:
                # Arrow puts a marker where the directory was, which some servers refuse when all is gone as it should be. Or something
                # came while it was emptied: the last of an attempt that is being stopped.
                (left,) = store.get_file_info([inner])
                if left.type != FileType.File and not self.walk(path):
                    return
                if not tries_left:
                    raise

    @staticmethod
    def _make_directory(store: Any, inner: str) -> None:
        # Where directories are only names, making one puts an object there, in the way of what is to come.
        if not _OBJECTS.search(store.type_name):
            with contextlib.suppress(OSError):
                store.create_dir(inner, recursive=True)


def version_in(store: Any, inner: str) -> FileVersion:
    """What a file of a store is now. Cost: one message. Raises ``FileNotFoundError``, and as ``LocalFile.at`` for what is no file."""
    from pyarrow.fs import FileType, LocalFileSystem

    if isinstance(store, LocalFileSystem):
        return LocalFile.at(Path(inner)).version
    _forget_listings(store)
    (info,) = store.get_file_info([inner])
    if info.type == FileType.NotFound:
        raise FileNotFoundError(f"nothing is at {visible(inner)} any more")
    return FileVersion(-1 if info.size is None else info.size, info.mtime_ns or 0, _tag_in(store, inner))


def _of_fsspec(store: Any) -> Any:
    """The file system of fsspec that a store wraps; None: it is one of Arrow's."""
    return getattr(getattr(store, "handler", None), "fs", None)


def _forget_listings(store: Any) -> None:
    """Have a store of fsspec look anew: it may remember what was there."""
    inner = _of_fsspec(store)
    if inner is not None and hasattr(inner, "invalidate_cache"):
        inner.invalidate_cache()


def _tag_in(store: Any, inner: str) -> str:
    """What a store of fsspec tells versions of a file apart by, which Arrow does not hand on; empty for Arrow's, which tell a time."""
    wrapped_one = _of_fsspec(store)
    if wrapped_one is None:
        return ""
    told = wrapped_one.info(inner)
    return next((f"{key} {told[key]}" for key in _VERSION_KEYS if told.get(key)), "")


def listed(path: Paths, stores: Stores, *, recursive: bool = False) -> tuple[list[LocalFile], Stores | None]:
    """Files that a path or an address names, several of these with commas between or in a list; and the stores needed for them, if any.

    What every reader asks, on the driver: paths are relative to the driver's working directory, and absolute from here on.

    Parameters
    ----------
    recursive
        Whether files in directories of a directory are among its files.

    Raises
    ------
    FileNotFoundError, errors.InvalidArgument
        As ``list_files`` of both kinds.
    """
    if not isinstance(path, str | os.PathLike):
        each = [listed(one, stores, recursive=recursive) for one in path]
        needed = stores.only(file.path for files, used in each if used is not None for file in files)
        return [file for files, _ in each for file in files], needed if any(used is not None for _, used in each) else None
    if not isinstance(path, str) or not _PREFIX.search(path):
        return list_files(path, recursive=recursive), None
    files: list[LocalFile] = []
    parts = [part for part in BETWEEN_PATHS.split(path) if part]
    for part in parts:
        if address_of(part) is None:
            files += list_files(local_path(part), recursive=recursive)
        else:
            files += stores.list_files(part, recursive=recursive)
    return files, None if all(address_of(part) is None for part in parts) else stores.only(parts)


def wrapped(store: Any, scheme: str) -> Any:
    """A user's store as a ``pyarrow.fs.FileSystem``.

    Raises ``errors.InvalidArgument`` for what is none.
    """
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    if isinstance(store, FileSystem):
        return store
    if hasattr(store, "ls") and hasattr(store, "open"):
        return PyFileSystem(FSSpecHandler(store))
    if callable(store):
        made = store()
        if made is not None and not callable(made):
            return wrapped(made, scheme)
    raise InvalidArgument(
        f"the store of {scheme}:// is a {type(store).__name__}: must be a pyarrow.fs.FileSystem, an fsspec file system, or a function "
        "that makes one",
        name="object_stores",
        value=scheme,
        allowed="a file system",
    )


def _s3(_scheme: str) -> Any:
    from pyarrow.fs import AwsDefaultS3RetryStrategy, S3FileSystem

    # Keys, region and endpoint come from AWS's own variables and files, on executors from theirs.
    return S3FileSystem(retry_strategy=AwsDefaultS3RetryStrategy(max_attempts=_S3_ATTEMPTS))


def _gcs(_scheme: str) -> Any:
    from pyarrow.fs import GcsFileSystem

    return GcsFileSystem()


def _fsspec(scheme: str) -> Any:
    try:
        import fsspec

        made = fsspec.filesystem(scheme)
    except ImportError as error:
        raise MissingPackage(f"{scheme}:// needs a package that is not installed: {error}", package=str(error)) from error
    return wrapped(made, scheme)


_BUILT_IN: Final[Mapping[str, Callable[[str], Any]]] = {
    "s3": _s3,
    "s3a": _s3,
    "gs": _gcs,
    "gcs": _gcs,
    "abfs": _fsspec,
    "abfss": _fsspec,
    "az": _fsspec,
    "http": _fsspec,
    "https": _fsspec,
    "memory": _fsspec,
}


def _below(path: str, base: str) -> str:
    return path.lstrip("/").removeprefix(base.strip("/")).lstrip("/")


def _is_named(path: str, base: str, matches: Callable[[str], bool], *, recursive: bool) -> bool:
    """Whether a pattern matches a file or, as globs of this machine do, the directory that it is in."""
    if matches(path):
        return not is_hidden(path.rpartition("/")[2])
    below = _below(path, base).split("/")
    tops = range(1, len(below)) if recursive else range(len(below) - 1, len(below))
    root = base.rstrip("/")
    for depth in tops:
        directory = "/".join((root, *below[:depth])) if root not in ("", ".") else "/".join(below[:depth])
        if matches(directory) and not any(map(is_hidden, below[depth - 1 :])):
            return True
    return False


def _matcher(pattern: str) -> Callable[[str], bool]:
    """As globs of the shell: ``*`` stays within a name, ``**`` does not."""
    pattern = pattern.lstrip("/")
    parts = (re.escape("/").join(_part(part) for part in pattern.split("/"))).replace(f"{_ANY_DEPTH}/", "(?:.*/)?")
    compiled = re.compile(parts.replace(_ANY_DEPTH, ".*"))
    return lambda path: compiled.fullmatch(path.lstrip("/")) is not None


_ANY_DEPTH: Final = "\0"


def _part(part: str) -> str:
    if part == "**":
        return _ANY_DEPTH
    translated = fnmatch.translate(part).removeprefix("(?s:").removesuffix(r")\Z")
    return translated.replace(".*", "[^/]*")
