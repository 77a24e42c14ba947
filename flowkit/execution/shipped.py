"""Files that travel with jobs: put into place before the job's functions are unpickled, since those may import them. Runs on slot threads.

A program for which files were added is pickled inside a ``WithFiles``: unpickling it installs the files first. They lie in the
application's directory and go with it; modules stay imported in a process for as long as that lives.
"""

from __future__ import annotations

import importlib
import os
import pickle
import secrets
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import msgspec

from flowkit.errors import InternalError
from flowkit.execution.task_context import TaskContext
from flowkit.model.ids import AppId, ContentId
from flowkit.model.job_spec import Content

FILE, MODULE, ARCHIVE = "file", "module", "archive"
#: suffixes of what Python imports from without unpacking it
IMPORTED_WHOLE = (".zip", ".whl", ".egg")

#: for tars: nothing outside of the directory, no devices, no owners (as Python 3.14 has it by default, and zips always)
_SAFELY: dict[str, Any] = {"filter": "data"}

_installed: dict[tuple[str, str], Path] = {}
_installing = threading.Lock()


class Shipped(msgspec.Struct, frozen=True):
    """One file of an application."""

    app: AppId
    name: str
    kind: str
    content: Content
    #: of an archive, as ``shutil.unpack_archive`` calls it
    format: str = ""


class Place(msgspec.Struct, frozen=True):
    """Where this executor puts an application's files, and how it reads content."""

    directory: Path
    read: Callable[[ContentId], Path]


_place: ContextVar[Place | None] = ContextVar("flowkit_files_place", default=None)


@contextmanager
def installing_into(place: Place) -> Iterator[None]:
    """What a block unpickles may install files."""
    token = _place.set(place)
    try:
        yield
    finally:
        _place.reset(token)


class WithFiles:
    """A pickled program and the files it needs."""

    def __init__(self, files: tuple[Shipped, ...], program: bytes) -> None:
        self._files = files
        self._program = program

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[tuple[Shipped, ...], bytes]]:
        return unpacked, (self._files, self._program)


def unpacked(files: tuple[Shipped, ...], program: bytes) -> Any:
    """The program, its files in place."""
    place = _place.get()
    if place is None:
        raise InternalError("a program with files is unpickled by executors only")
    with _installing:
        for each in files:
            if (each.app, each.name) not in _installed:
                _installed[each.app, each.name] = _install(each, place)
    return pickle.loads(program)


def _install(file: Shipped, place: Place) -> Path:
    # By digest: another file of this name, added by another application or later, lies elsewhere.
    directory = place.directory / "files" / file.content.id[:16]
    target = directory / file.name
    if not target.exists():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        data = file.content.inline if file.content.inline is not None else place.read(file.content.id).read_bytes()
        draft = directory / f".{secrets.token_hex(4)}-{file.name}"
        draft.write_bytes(data)
        if file.kind == ARCHIVE:
            packed, draft = draft, Path(tempfile.mkdtemp(dir=directory))
            shutil.unpack_archive(packed, draft, file.format, **({} if file.format == "zip" else _SAFELY))
            packed.unlink()
        try:
            draft.rename(target)
        except OSError:
            if not target.exists():  # a neighbour was faster
                raise
            shutil.rmtree(draft, ignore_errors=True)
    if file.kind == MODULE:
        put_on_path(target if target.suffix in IMPORTED_WHOLE else directory)
    return target


def put_on_path(entry: Path) -> None:
    """Let this process import from a directory or an archive of modules."""
    if str(entry) not in sys.path:
        sys.path.insert(0, str(entry))
        importlib.invalidate_caches()


def get(name: str) -> str:
    """The path of a file that was added under a name, in a task or on the driver.

    Raises
    ------
    FileNotFoundError
        Nothing of this name was added (before the job that asks).
    """
    context = TaskContext.get()
    app = "" if context is None else context.app_id
    found = _installed.get((app, name))
    if found is None:
        known = ", ".join(sorted(each for of, each in _installed if of == app)) or "none"
        raise FileNotFoundError(f"no file {name!r} was added to the Context; there are: {known}")
    return os.fspath(found)


def note_on_driver(name: str, path: Path) -> None:
    """Let ``get`` find it here too."""
    _installed["", name] = path
