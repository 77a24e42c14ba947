"""A failed partition in a file: its functions and its rows, to be computed once more by somebody else, somewhere else.

Runs on drivers. The file begins with one line of JSON, which is all that is read until somebody asks for more: the rest is a pickle,
and whoever unpickles it runs what its author put into it.
"""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import platform
import secrets
import sys
import warnings
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from flowkit.errors import InvalidArgument, NotReplayable
from flowkit.execution.broadcast import Broadcast
from flowkit.execution.replaying import run_here
from flowkit.lineage import pickling
from flowkit.lineage.kernels import StageProgram
from flowkit.logs import is_ctrl_c
from flowkit.model.shown import in_words
from flowkit.observe.metrics import format_bytes
from flowkit.observe.tables import Table
from flowkit.rdd.replayed import Replayed, debugged
from flowkit.storage import private_files
from flowkit.visible import visible

FORMAT: Final = 1
_CODEC: Final = "zstd"


class CapsuleRunsCode(UserWarning):
    """Said before a capsule is opened: it runs code of whoever wrote it."""


class Capsule:
    """A saved replay. Made by ``flowkit.open_capsule``.

    Attributes
    ----------
    place, error
        Which partition of what failed, and how, when it was saved.
    packages
        Versions of Python, flowkit, and what the functions use, where it was saved.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], start: int) -> None:
        self.path = path
        self.place: str = header["place"]
        self.error: str = header["error"]
        self.packages: dict[str, str] = dict(header["packages"])
        self._header = header
        self._start = start

    def mismatches(self) -> list[str]:
        """Packages that are others here, or missing, in words."""
        found = []
        for name, there in self.packages.items():
            here = _version(name)
            if here != there:
                found.append(f"{name} {there} there, {here or 'none'} here")
        return found

    def __call__(self, *, debug: bool = True) -> Replayed:
        """Compute the partition here, as ``error.replay`` does; opens a debugger where it fails, unless ``debug`` is false.

        Raises
        ------
        errors.NotReplayable
            Its functions need what is not there.

        Warns
        -----
        CapsuleRunsCode
            Always: it runs code of whoever wrote the file. Packages that differ are named.
        """
        differ = self.mismatches()
        told = f"; packages differ: {'; '.join(differ)}" if differ else ""
        warnings.warn(visible(f"{self.path} runs code of whoever wrote it{told}"), CapsuleRunsCode, stacklevel=2)
        with self.path.open("rb") as file:
            file.seek(self._start)
            packed = file.read()
        import pyarrow as pa

        try:
            # What the header says of its length is not believed: no more is made room for than there is.
            data = pa.CompressedInputStream(pa.BufferReader(packed), _CODEC).read()
        except OSError as error:
            raise NotReplayable(f"{self.path} is damaged: {error}") from error
        if len(data) != self._header["bytes"]:
            raise NotReplayable(f"{self.path} is damaged: it holds {len(data):,} of {self._header['bytes']:,} bytes")
        try:
            program, partition, rows = pickle.loads(data)
        except BaseException as error:
            if is_ctrl_c(error):
                raise
            raise NotReplayable(
                f"{self.path} cannot be opened here: {in_words(error)}{told}; its functions need the modules they were "
                "written with"
            ) from error
        return debugged(Replayed(run_here(program, partition, rows), self.place), debug=debug)

    def _rows(self) -> Iterator[tuple[str, str]]:
        yield "place", self.place
        yield "error", self.error
        yield "inputs and functions", format_bytes(self._header["bytes"])
        yield "packages", "; ".join(self.mismatches()) or "as here"
        yield "to run it", "call it: it runs code of whoever wrote the file"

    def __repr__(self) -> str:
        return repr(Table(f"capsule {self.path}", ("", ""), list(self._rows())))

    def _repr_html_(self) -> str:
        return Table(f"capsule {self.path}", ("", ""), list(self._rows()))._repr_html_()


def open_capsule(path: str | Path) -> Capsule:
    """A replay that was saved by ``error.replay.save``. Reads what the file says of itself and runs nothing; calling the capsule does.

    Raises
    ------
    errors.InvalidArgument
        The file is no capsule, or one of a later format.

    Examples
    --------
    >>> import tempfile, warnings, flowkit as fk
    >>> try:
    ...     fc.parallelize(["1", "two"], 1).map(int).sum()
    ... except ValueError as error:
    ...     saved = error.replay.save(tempfile.mkdtemp() + "/failed.capsule")
    >>> capsule = fk.open_capsule(saved)
    >>> capsule.error
    "ValueError: invalid literal for int() with base 10: 'two'"
    >>> with warnings.catch_warnings(action="ignore"):
    ...     capsule(debug=False)  # doctest: +ELLIPSIS
    <partition 0 of map at ... failed again...: ValueError: invalid literal for int() with base 10: 'two'>
    """
    chosen = Path(path).expanduser()
    try:
        with chosen.open("rb") as file:
            line = file.readline(1 << 20)
            header = json.loads(line)
            version = header["flowkit_capsule"]
            _check_header(header)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidArgument(
            f"{chosen} is no capsule: {error}", name="path", value=str(chosen), allowed="a file that error.replay.save wrote"
        ) from None
    if version > FORMAT:
        raise InvalidArgument(
            f"{chosen} has format {version}, this version of flowkit reads up to {FORMAT}",
            name="path",
            value=str(chosen),
            allowed=f"formats up to {FORMAT}",
        )
    return Capsule(chosen, header, len(line))


def _check_header(header: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` or ``KeyError`` for one that ``save_capsule`` has not written."""
    kinds = {"flowkit_capsule": int, "place": str, "error": str, "bytes": int, "packages": dict}
    for name, kind in kinds.items():
        if type(header[name]) is not kind:
            raise ValueError(f"its header says {name} = {header[name]!r:.100}")
    if not all(isinstance(version, str) for version in header["packages"].values()):
        raise ValueError("its header says other things than versions of packages")


def save_capsule(
    path: str | Path,
    program: StageProgram,
    partition: int,
    rows: Mapping[int, Mapping[int, list[Any]]],
    *,
    place: str,
    error: str,
) -> Path:
    """Write a capsule; the file can be read by its owner only, and takes the place of what was there, a link too."""
    import pyarrow as pa

    chosen = Path(path).expanduser()
    data = _dumps((program, partition, rows))
    header = {
        "flowkit_capsule": FORMAT,
        "place": place,
        "error": error,
        "bytes": len(data),
        "packages": {name: version for name in _packages_in(data) if (version := _version(name))},
    }
    # What is there may be somebody else's file, or lead to one.
    draft = chosen.with_name(f".{chosen.name[:100]}.{secrets.token_hex(4)}")
    try:
        with private_files.open_file(draft, "xb") as file:
            file.write(json.dumps(header).encode() + b"\n")
            file.write(pa.Codec(_CODEC).compress(data, asbytes=True))
        draft.replace(chosen)
    finally:
        draft.unlink(missing_ok=True)
    return chosen


class _Pickler(pickling.Pickler):
    """Functions of the driver's script by value, as they go to executors; broadcasts with what they hold, which is nowhere else."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Broadcast):
            return GivenValue, (obj.value,)
        return super().reducer_override(obj)


def _dumps(content: Any) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(content)
    return buffer.getvalue()


class GivenValue:
    """What a broadcast is in a capsule."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _packages_in(data: bytes) -> list[str]:
    """Packages that a pickle speaks of; Python and flowkit first."""
    words = {str(argument).partition(".")[0] for _, argument, _ in pickletools.genops(data) if isinstance(argument, str)}
    modules = {word for word in words if word in sys.modules and word not in sys.stdlib_module_names}
    known = metadata.packages_distributions()
    named = {distribution for module in modules for distribution in known.get(module, ())}
    return ["Python", "flowkit", *sorted(named - {"flowkit"})]


def _version(package: str) -> str | None:
    if package == "Python":
        return platform.python_version()
    if package == "flowkit":
        from flowkit import __version__

        return __version__
    try:
        return metadata.version(package)
    except (metadata.PackageNotFoundError, ValueError):  # none, or no name: a capsule from elsewhere
        return None
