"""Files that travel with jobs. ``get(name)`` finds one, in tasks and on the driver; ``Context.add_file`` and its kin add them."""

from __future__ import annotations

import gzip
import io
import lzma
import pickle
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowkit.errors import InvalidArgument
from flowkit.execution.shipped import (
    ARCHIVE,
    FILE,
    IMPORTED_WHOLE,
    MODULE,
    Place,
    Shipped,
    WithFiles,
    forget,
    get,
    import_from,
    install,
)
from flowkit.lineage.closures import dumps, note_carried
from flowkit.model.checks import check_path
from flowkit.model.job_spec import Content
from flowkit.storage.content import content_id
from flowkit.storage.host_directory import DriverDirectory

if TYPE_CHECKING:
    from flowkit.abc import ClusterLink
    from flowkit.lineage.kernels import StageProgram
    from flowkit.model.ids import AppId

__all__ = ["get"]

_ARCHIVES = {
    ".zip": "zip",
    ".tar": "tar",
    ".tar.gz": "gztar",
    ".tgz": "gztar",
    ".tar.bz2": "bztar",
    ".tar.xz": "xztar",
}


class DriverFiles:
    """What a driver has itself of its application's files, so that it reads what tasks read."""

    def __init__(self, app: AppId, local_directory: str) -> None:
        self._app = app
        self._directory = DriverDirectory(app, local_directory, of_its_own=True)

    def install(self, file: Shipped) -> None:
        """Put a file into place.

        Raises
        ------
        errors.InvalidArgument
            It is an archive that cannot be unpacked.
        """
        directory = self._directory.application().path
        try:
            install(file, Place(directory, lambda _: directory))
        except (shutil.ReadError, tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError) as error:
            raise InvalidArgument(
                f"{file.name} cannot be unpacked: {error}", name="path", value=file.name, allowed="an archive that is whole"
            ) from error

    def import_from(self, entry: Path) -> None:
        """Import from where a module lies, as long as the application is there."""
        import_from(entry, self._app)

    def close(self) -> None:
        """Let the files go. Idempotent."""
        forget(self._app)
        self._directory.close()


class FileShipping:
    """What a ``Context`` lets a driver add to its jobs. Files added are there for all jobs after, on executors of now and of later."""

    _app: AppId
    _link: ClusterLink
    _driver_files: DriverFiles
    _shipped: tuple[Shipped, ...] = ()

    if TYPE_CHECKING:

        def _check_open(self, what: str = "") -> None: ...

    def add_file(self, path: str | Path, name: str | None = None) -> str:
        """Send a file to executors with every job from now on.

        Parameters
        ----------
        path
            A file.
        name
            Under which ``flowkit.files.get`` finds it; None: the file's own.

        Returns
        -------
        str
            The name.

        Raises
        ------
        FileNotFoundError, errors.InvalidArgument
            Nothing is there; it is a directory; something else was added under this name.

        Notes
        -----
        Cost: reads the file now, and keeps a copy for this process until the Context is closed; it goes to each host once.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> from flowkit import files
        >>> with tempfile.TemporaryDirectory() as place:
        ...     _ = pathlib.Path(place, "factor.txt").write_text("3")
        ...     name = fc.add_file(f"{place}/factor.txt")
        >>> fc.range(3).map(lambda x: x * int(pathlib.Path(files.get("factor.txt")).read_text())).collect()
        [0, 3, 6]
        """
        source = _checked(path)
        if source.is_dir():
            raise InvalidArgument(f"{source} is a directory; add_archive sends those, packed", name="path", value=str(path))
        return self._ship(source.name if name is None else _checked_name(name), FILE, source.read_bytes())

    def add_py_file(self, path: str | Path) -> str:
        """Let jobs from now on import a module or package, here and on executors.

        Parameters
        ----------
        path
            A ``.py`` file, a package's directory, a zip of modules, or a wheel (pure Python).

        Notes
        -----
        Cost: reads it now; it goes to each host once. Here it is imported from where it lies. A module that a process imported already
        stays what it was there, so one that was added cannot be changed: that takes a new Context, and with ``processes=False`` a new
        process.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     _ = pathlib.Path(place, "tripling.py").write_text("def triple(x): return 3 * x")
        ...     name = fc.add_py_file(f"{place}/tripling.py")
        ...     import tripling
        >>> fc.range(3).map(tripling.triple).collect()
        [0, 3, 6]
        """
        source = _checked(path)
        if source.is_dir():
            name = self._ship(f"{source.name}.zip", MODULE, _zipped(source))
            self._driver_files.import_from(source.parent)
            return name
        if source.suffix not in (".py", *IMPORTED_WHOLE):
            raise InvalidArgument(
                f"{source} is neither a module, a package's directory, a zip nor a wheel",
                name="path",
                value=str(path),
                allowed=".py, a directory, .zip, .whl",
            )
        name = self._ship(source.name, MODULE, source.read_bytes())
        self._driver_files.import_from(source if source.suffix in IMPORTED_WHOLE else source.parent)
        return name

    def add_archive(self, path: str | Path, name: str | None = None) -> str:
        """Send an archive to executors with every job from now on, unpacked there.

        Parameters
        ----------
        path
            A zip or tar (also gz, bz2, xz), or a directory.
        name
            Under which ``flowkit.files.get`` finds the directory; None: the archive's own.

        Notes
        -----
        Cost: reads it now; it goes to each host once.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     _ = pathlib.Path(directory, "limit.txt").write_text("7")
        ...     name = fc.add_archive(directory, "settings")
        >>> def limit(_):
        ...     import flowkit.files
        ...
        ...     return int(pathlib.Path(flowkit.files.get("settings"), "limit.txt").read_text())
        >>> fc.range(1).map(limit).collect()
        [7]
        """
        source = _checked(path)
        wanted = source.name if name is None else _checked_name(name)
        if source.is_dir():
            return self._ship(wanted, ARCHIVE, _packed(source), "gztar")
        kind = next((kind for suffix, kind in _ARCHIVES.items() if source.name.endswith(suffix)), None)
        if kind is None:
            raise InvalidArgument(
                f"{source} is no archive", name="path", value=str(path), allowed=", ".join((*_ARCHIVES, "a directory"))
            )
        return self._ship(wanted, ARCHIVE, source.read_bytes(), kind)

    def list_files(self) -> tuple[str, ...]:
        """Names of all that was added, in that order.

        Examples
        --------
        >>> fc.list_files()  # doctest: +ELLIPSIS
        (...)
        """
        return tuple(each.name for each in self._shipped)

    def _ship(self, name: str, kind: str, data: bytes, packed: str = "") -> str:
        self._check_open("Context.add_file()")
        known = next((each for each in self._shipped if each.name == name), None)
        if known is None:
            self._driver_files.install(Shipped(self._app, name, kind, Content(content_id(data), len(data), data), packed))
            self._shipped = (*self._shipped, Shipped(self._app, name, kind, self._link.put_content(data), packed))
        elif (known.content.id, known.kind) != (content_id(data), kind):
            raise InvalidArgument(
                f"another file was added as {name!r}, and jobs may be reading it; "
                + (
                    "a process imports a module once, so a changed one needs a new Context"
                    if kind == MODULE
                    else "give this one another name=, or add it to a new Context"
                ),
                name="path",
                value=name,
                allowed="the same content, or another name",
            )
        return name

    def _dumps(self, program: StageProgram) -> bytes:
        """A pickled program with the files it may need."""
        data = dumps(program)
        files = self._shipped
        if not files:
            return data
        for each in files:
            note_carried(each.content)
        return pickle.dumps(WithFiles(files, data), pickle.HIGHEST_PROTOCOL)


def _checked(path: Any) -> Path:
    source = Path(check_path("path", path)).absolute()
    if not source.exists():
        raise FileNotFoundError(f"nothing is at {source}")
    return source


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not name or Path(name).name != name or name in {".", ".."} or "\0" in name:
        allowed = "the name of a file, without directories"
        raise InvalidArgument(f"name = {name!r}: must be {allowed}", name="name", value=name, allowed=allowed)
    return name


#: of files in archives that are made here, so that equal content makes equal bytes
_WHENEVER = (1980, 1, 1, 0, 0, 0)


def _zipped(package: Path) -> bytes:
    """A package's directory as a zip, with its name as the first part of every name."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(each for each in package.rglob("*") if each.is_file() and "__pycache__" not in each.parts):
            member = zipfile.ZipInfo(str(file.relative_to(package.parent)), _WHENEVER)
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, file.read_bytes())
    return packed.getvalue()


def _packed(directory: Path) -> bytes:
    """What is in a directory as a tar, empty directories and the right to run a file with it."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if "__pycache__" in Path(member.name).parts:
            return None
        member.mtime = member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", fileobj=packed, mtime=0) as file, tarfile.open(fileobj=file, mode="w") as archive:
        for each in sorted(directory.iterdir()):
            archive.add(each, each.name, filter=plain)
    return packed.getvalue()


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        from flowkit.model.advice import missing_from_module

        missing_from_module("files", __name__, name)
