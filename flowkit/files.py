"""Files that travel with jobs. ``get(name)`` finds one, in tasks and on the driver; ``Context.add_file`` and its kin add them."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowkit.errors import InvalidArgument
from flowkit.execution.shipped import ARCHIVE, FILE, IMPORTED_WHOLE, MODULE, Shipped, WithFiles, get, note_on_driver, put_on_path
from flowkit.lineage.closures import dumps, note_carried

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


class FileShipping:
    """What a ``Context`` lets a driver add to its jobs. Files added are there for all jobs after, on executors of now and of later."""

    _app: AppId
    _link: ClusterLink
    _shipped: tuple[Shipped, ...] = ()

    def add_file(self, path: str | Path) -> str:
        """Send a file to executors with every job from now on.

        Returns
        -------
        str
            The name under which ``flowkit.files.get`` finds it.

        Notes
        -----
        Cost: reads the file now; it goes to each host once. A file of the same name that was added before stays what it was.

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
        return self._ship(source, source.name, FILE, source.read_bytes())

    def add_py_file(self, path: str | Path) -> str:
        """Let jobs from now on import a module or package, here and on executors.

        Parameters
        ----------
        path
            A ``.py`` file, a package's directory, a zip of modules, or a wheel (pure Python).

        Notes
        -----
        Cost: reads it now; it goes to each host once. A module that a process imported already stays what it was there.

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
            put_on_path(source.absolute().parent)
            return self._ship(source, f"{source.name}.zip", MODULE, _zipped(source))
        if source.suffix not in (".py", *IMPORTED_WHOLE):
            raise InvalidArgument(
                f"{source} is neither a module, a package's directory, a zip nor a wheel",
                name="path",
                value=str(path),
                allowed=".py, a directory, .zip, .whl",
            )
        put_on_path(source.absolute() if source.suffix in IMPORTED_WHOLE else source.absolute().parent)
        return self._ship(source, source.name, MODULE, source.read_bytes())

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
        if source.is_dir():
            return self._ship(source, name or source.name, ARCHIVE, _zipped(source, inside=True), "zip")
        kind = next((kind for suffix, kind in _ARCHIVES.items() if source.name.endswith(suffix)), None)
        if kind is None:
            raise InvalidArgument(
                f"{source} is no archive", name="path", value=str(path), allowed=", ".join((*_ARCHIVES, "a directory"))
            )
        return self._ship(source, name or source.name, ARCHIVE, source.read_bytes(), kind)

    def list_files(self) -> tuple[str, ...]:
        """Names of all that was added, in that order.

        Examples
        --------
        >>> fc.list_files()  # doctest: +ELLIPSIS
        (...)
        """
        return tuple(each.name for each in self._shipped)

    def _ship(self, source: Path, name: str, kind: str, data: bytes, packed: str = "") -> str:
        if name not in self.list_files():
            self._shipped = (*self._shipped, Shipped(self._app, name, kind, self._link.put_content(data), packed))
            note_on_driver(name, source.absolute())
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
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(f"nothing is at {source}")
    return source


def _zipped(directory: Path, *, inside: bool = False) -> bytes:
    """A directory as a zip: with its name as the first part of every name, or ``inside`` without."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(each for each in directory.rglob("*") if each.is_file() and "__pycache__" not in each.parts):
            archive.write(file, file.relative_to(directory if inside else directory.parent))
    return packed.getvalue()


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        from flowkit.model.advice import missing_from_module

        missing_from_module("files", __name__, name)
