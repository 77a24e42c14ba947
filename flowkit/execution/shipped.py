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
from typing import Any, NamedTuple, Protocol

import msgspec

from flowkit.errors import InternalError, InvalidArgument
from flowkit.execution.content_reading import read_content
from flowkit.execution.task_context import REPLAY, TaskContext
from flowkit.model.ids import AppId, ContentId
from flowkit.model.job_spec import Content
from flowkit.storage import private_files

FILE, MODULE, ARCHIVE = "file", "module", "archive"
#: suffixes of what Python imports from without unpacking it
IMPORTED_WHOLE = (".zip", ".whl", ".egg")

#: for tars: nothing outside of the directory, no devices, no owners (as Python 3.14 has it by default, and zips always)
_SAFELY: dict[str, Any] = {"filter": "data"}


class _Installed(NamedTuple):
    path: Path
    content: ContentId


#: what this process has, an executor or a driver, by application and name
_installed: dict[tuple[AppId, str], _Installed] = {}
#: entries of ``sys.path`` that are there for applications alone, and for which
_path_users: dict[str, set[AppId]] = {}
#: guards both
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
    for each in files:
        install(each, place)
    return pickle.loads(program)


def install(file: Shipped, place: Place) -> Path:
    """Put a file into place, once a process; modules can be imported then."""
    with _installing:
        known = _installed.get((file.app, file.name))
        if known is None:
            known = _installed[file.app, file.name] = _Installed(_put(file, place), file.content.id)
            if file.kind == MODULE:
                _put_on_path(known.path if known.path.suffix in IMPORTED_WHOLE else known.path.parent, file.app)
        return known.path


def _put(file: Shipped, place: Place) -> Path:
    # By digest: another file of this name, added by another application, lies elsewhere.
    directory = place.directory / "files" / file.content.id[:16]
    target = directory / file.name
    if not target.exists():
        private_files.make_directory(directory)
        data = file.content.inline if file.content.inline is not None else read_content(place.read, file.content.id)
        draft = directory / f".{secrets.token_hex(4)}-{file.name}"
        private_files.write_file(draft, data)
        if file.kind == ARCHIVE:
            packed, draft = draft, Path(tempfile.mkdtemp(dir=directory))
            try:
                shutil.unpack_archive(packed, draft, file.format, **({} if file.format == "zip" else _SAFELY))
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
            finally:
                packed.unlink()
        try:
            draft.rename(target)
        except OSError:
            if not target.exists():  # a neighbour was faster
                raise
            shutil.rmtree(draft, ignore_errors=True)
    return target


def import_from(entry: Path, app: AppId) -> None:
    """Let this process import from a directory or an archive of modules, as long as the application is there."""
    with _installing:
        _put_on_path(entry, app)


def _put_on_path(entry: Path, app: AppId) -> None:
    text = str(entry)
    if text in _path_users:
        _path_users[text].add(app)
    elif text not in sys.path:
        sys.path.insert(0, text)
        _path_users[text] = {app}
        importlib.invalidate_caches()


def forget(app: AppId) -> None:
    """The application is over: its files are found no more. Modules that were imported stay. Idempotent."""
    with _installing:
        for key in [key for key in _installed if key[0] == app]:
            del _installed[key]
        for text, users in list(_path_users.items()):
            users.discard(app)
            if not users:
                del _path_users[text]
                while text in sys.path:
                    sys.path.remove(text)


class Owner(Protocol):
    """Who has files: a Context."""

    @property
    def app(self) -> AppId: ...  # noqa: D102


def get(name: str, context: Owner | None = None) -> str:
    """The path of a file that was added under a name: the same content in tasks and on the driver, as it was when it was added.

    Parameters
    ----------
    name
        As ``add_file``, ``add_py_file`` or ``add_archive`` returned it. Of an archive it is the directory into which it was unpacked.
    context
        On the driver, whose file: needed where several Contexts have different ones of this name. In a task it is the task's.

    Raises
    ------
    FileNotFoundError
        Nothing of this name was added (before the job that asks), or its Context is closed.
    errors.InvalidArgument
        Several Contexts of this process have one, and it is not said whose is meant.
    """
    task = TaskContext.get()
    app = context.app if context is not None else None if task is None or task.app_id == REPLAY else task.app_id
    with _installing:
        mine = {key[1]: each for key, each in _installed.items() if app in (None, key[0])}
        found = [each for key, each in _installed.items() if key[1] == name and app in (None, key[0])]
    if not found:
        known = ", ".join(sorted(mine)) or "none"
        raise FileNotFoundError(f"no file {name!r} was added to the Context; there are: {known}")
    if len({each.content for each in found}) > 1:
        raise InvalidArgument(
            f"{len(found)} Contexts of this process have a file {name!r}, and they differ; say whose: flowkit.files.get({name!r}, fc)",
            name="context",
            value=context,
            allowed="one of them",
        )
    return os.fspath(found[-1].path)
