"""The event log: every event of one application as a line of JSON, compressed, in files of bounded size; and reading it back.

The writer is a listener in the driver and belongs to its queue's thread. What was heard is written whenever the queue runs empty,
as a zstd frame of its own, so that a crash costs the events of the last moment and nothing before them. Frames one after another
are one valid zstd file: ``zstdcat`` reads it.

::

    <directory>/<application>/events-000001.jsonl.zst, events-000002.jsonl.zst, ...

The first line of each file is a header: ``{"flowkit_event_log": 1, "app": ..., "flowkit": ..., "part": ...}``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from flowkit.abc import Listener
from flowkit.errors import InvalidArgument
from flowkit.logs import logger_of
from flowkit.model.events import ApplicationEnd, ApplicationStart, Event, JobStart, TaskEnd
from flowkit.model.ids import AppId
from flowkit.model.task import ExceptionFailure
from flowkit.visible import visible

logger = logger_of(__name__)

FORMAT_VERSION: Final = 1
#: bytes of a file, compressed, after which the next one begins
ROLL_BYTES: Final = 128 << 20
#: bytes of JSON held back at most while events keep coming: enough to compress well, little to lose
_BUFFER_BYTES: Final = 256 << 10
_READ_BYTES: Final = 1 << 16
_SECRET: Final = re.compile(r"secret|passw|token|credential|api_?key|private_?key", re.IGNORECASE)
_REDACTED: Final = "(redacted)"
#: in texts of all kinds (messages of errors, names of jobs): ``user:password@`` of a URL, and ``token=...`` as in queries and DSNs
_IN_URL: Final = re.compile(rb"://[^/\s\"@:]*:[^/\s\"@]+@")
_IN_TEXT: Final = re.compile(
    rb"\b([\w-]*(?:secret|passw|token|credential|api_?key|private_?key)[\w-]*=)[^\s&\"\\;,]+", re.IGNORECASE
)


class EventLog:
    """Writes events. Add it to a bus on a queue of its own, and close it after the bus.

    Parameters
    ----------
    directory
        Made if need be; the application's files lie in a directory below it, readable by their owner only.
    app
        Whose events these are.
    version
        flowkit's, for the header.
    roll_bytes
        Size of a file after which the next one begins.

    Notes
    -----
    Values of job properties whose names speak of secrets (``token``, ``password``, ...) are replaced, and so are ``name=value`` pairs of
    that kind and passwords in URLs wherever they stand, as in the message of an error. A disk that refuses ends the
    log with one warning; jobs are not concerned.
    """

    def __init__(self, directory: str | Path, app: AppId, *, version: str, roll_bytes: int = ROLL_BYTES) -> None:
        self.directory = Path(directory).expanduser() / str(app)
        self._app = app
        self._version = version
        self._roll_bytes = roll_bytes
        self._encoder = msgspec.json.Encoder()
        self._lines = bytearray()
        self._part = 0
        self._file: IO[bytes] | None = None
        self._failed = False
        #: the application's beginning is in it, but not its end
        self._is_open = False

    def on_event(self, event: Event) -> None:
        """Take one event; it is on disk at the latest when the queue is empty."""
        if self._failed:
            return
        if isinstance(event, ApplicationStart | ApplicationEnd):
            self._is_open = isinstance(event, ApplicationStart)
        self._lines += _without_secrets_in(self._encoded(redacted(event)))
        self._lines += b"\n"
        if len(self._lines) >= _BUFFER_BYTES:
            self.flush()

    def on_idle(self) -> None:
        """The queue is empty: write what was heard."""
        self.flush()

    def flush(self) -> None:
        """Write what was heard so far."""
        if not self._lines or self._failed:
            return
        try:
            self._write()
        except OSError:
            self._failed = True
            logger.warning("the event log in %s ends here; jobs go on without it", self.directory, exc_info=True)
        self._lines.clear()

    def close(self) -> None:
        """Write the rest, and that the application is over, for the scheduler says so when nobody hears it; close the file. Idempotent."""
        if self._is_open:
            self.on_event(ApplicationEnd(time=time.time(), app=self._app, reason="closed by its driver"))
        self.flush()
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def __repr__(self) -> str:
        state = "failed" if self._failed else f"part {self._part}"
        return f"<EventLog {self.directory}, {state}>"

    def _encoded(self, event: Event) -> bytes:
        try:
            return self._encoder.encode(event)
        except UnicodeEncodeError:  # a lone surrogate in a text of the user's: JSON has none
            return self._encoder.encode(_all_visible(msgspec.to_builtins(event)))

    def _write(self) -> None:
        import pyarrow as pa

        codec = pa.Codec("zstd")
        if self._file is None or self._file.tell() >= self._roll_bytes:
            self._open_next(codec)
        assert self._file is not None
        self._file.write(codec.compress(bytes(self._lines), asbytes=True))
        self._file.flush()

    def _open_next(self, codec: Any) -> None:
        if self._file is not None:
            self._file.close()
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._part += 1
        self._file = (self.directory / f"events-{self._part:06}.jsonl.zst").open("xb")
        header = {"flowkit_event_log": FORMAT_VERSION, "app": self._app, "flowkit": self._version, "part": self._part}
        self._file.write(codec.compress(self._encoder.encode(header) + b"\n", asbytes=True))


def redacted(event: Event) -> Event:
    """The event without the values of properties that look secret, and without pickled exceptions.

    >>> start = JobStart("app-1", 0, "collect", (), (), {"s3_token": "abc", "team": "blue"}, time=1.0)
    >>> redacted(start).properties
    {'s3_token': '(redacted)', 'team': 'blue'}
    """
    if isinstance(event, JobStart) and any(map(_SECRET.search, event.properties)):
        return msgspec.structs.replace(event, properties=_without_secrets(event.properties))
    if isinstance(event, TaskEnd) and isinstance(event.failure, ExceptionFailure) and event.failure.pickled:
        # Its text says it all; what else it carries nobody can look through.
        return msgspec.structs.replace(event, failure=msgspec.structs.replace(event.failure, pickled=None))
    return event


def _all_visible(told: Any) -> Any:
    """Return what an event is made of, with all texts as ``visible`` has them."""
    match told:
        case str():
            return visible(told)
        case list() | tuple():
            return [_all_visible(each) for each in told]
        case dict():
            return {_all_visible(name): _all_visible(value) for name, value in told.items()}
        case _:
            return told


def _without_secrets_in(line: bytes) -> bytes:
    r"""A line of the log without passwords in URLs and ``name=value`` pairs whose names speak of secrets.

    >>> _without_secrets_in(b'"s3://ann:hunter2@host/x?token=abc&n=1"')
    b'"s3://(redacted)@host/x?token=(redacted)&n=1"'
    """
    if b"@" in line:
        line = _IN_URL.sub(b"://(redacted)@", line)
    return _IN_TEXT.sub(rb"\1(redacted)", line) if b"=" in line else line


def _without_secrets(properties: Mapping[str, str]) -> dict[str, str]:
    return {name: _REDACTED if _SECRET.search(name) else value for name, value in properties.items()}


# -- reading -------------------------------------------------------------------------------------------------------------


def read_event_log(path: str | Path) -> Iterator[Event]:
    """The events of a log, oldest first.

    Parameters
    ----------
    path
        An application's directory, or one file of it.

    Yields
    ------
    Event
        As they were heard. A file that ends in the middle, as after a crash, ends with its last whole line; events of kinds that
        this version does not know are left out.

    Raises
    ------
    errors.InvalidArgument
        There is no event log, or one of a newer format.
    """
    chosen = Path(path).expanduser()
    files = log_files(chosen)
    if not files or not files[0].exists():
        inside = [each.name for each in applications_in(chosen)]
        more = f", and {len(inside) - 5} more" if len(inside) > 5 else ""
        hint = f", but of these applications in it: {', '.join(inside[-5:])}{more}; name one" if inside else ""
        missing = "" if chosen.exists() else ", for there is nothing"
        raise InvalidArgument(
            f"no event log in {chosen}{missing}{hint}", name="path", value=str(path), allowed="an application's directory"
        )
    return _events(files)


def log_files(path: Path) -> list[Path]:
    """The files of an application's log, in their order; a file is one of its own."""
    return sorted(path.glob("events-*.jsonl.zst")) if path.is_dir() else [path]


def applications_in(directory: Path) -> list[Path]:
    """The directories in it that are logs of applications."""
    return sorted({each.parent for each in directory.glob("*/events-*.jsonl.zst")}) if directory.is_dir() else []


def replay(path: str | Path, *listeners: Listener) -> None:
    """Hand all events of a log to listeners, such as a ``StatusStore``, which then know what those of the time knew."""
    for event in read_event_log(path):
        for listener in listeners:
            listener.on_event(event)


def _events(files: Iterable[Path]) -> Iterator[Event]:
    decoder = msgspec.json.Decoder(Event)
    for file in files:
        for line in event_lines([file]):
            try:
                event = decoder.decode(line)
            except (msgspec.DecodeError, RecursionError) as error:
                if _is_of_later_version(line):
                    continue
                raise InvalidArgument(
                    f"{file} is damaged: {error} in {line[:100]!r}",
                    name="path",
                    value=str(file),
                    allowed="files written by EventLog",
                ) from None
            yield event


def event_lines(files: Iterable[Path]) -> Iterator[bytes]:
    """Whole lines of files of one log, without their headers: an event each, its kind first."""
    for file in files:
        lines = _lines(file)
        _check_header(file, next(lines, b""))
        yield from lines


def _check_header(file: Path, line: bytes) -> None:
    try:
        header = msgspec.json.decode(line)
        version = int(header["flowkit_event_log"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InvalidArgument(
            f"{file} is not an event log", name="path", value=str(file), allowed="files written by EventLog"
        ) from None
    if version > FORMAT_VERSION:
        raise InvalidArgument(
            f"{file} was written by flowkit {header.get('flowkit')} in format {version}; this one reads up to {FORMAT_VERSION}",
            name="path",
            value=str(file),
            allowed=f"formats up to {FORMAT_VERSION}",
        )


_KNOWN: Final = frozenset(kind.__name__ for kind in Event.__args__)


def _is_of_later_version(line: bytes) -> bool:
    """Whether it is an event of a kind that is not known here."""
    try:
        told = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return False
    return isinstance(told, dict) and isinstance(told.get("event"), str) and told["event"] not in _KNOWN


def _lines(file: Path) -> Iterator[bytes]:
    """Whole lines; the rest of a torn file is left out."""
    rest = b""
    for piece in _pieces(file):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines


def _pieces(file: Path) -> Iterator[bytes]:
    import pyarrow as pa

    done = 0
    try:
        with pa.CompressedInputStream(pa.OSFile(str(file)), "zstd") as stream:
            while piece := stream.read(_READ_BYTES):
                done += len(piece)
                yield piece
            return
    except OSError:
        # Torn. What could be read before the tear is asked for again, byte by byte: a longer read fails as a whole.
        pass
    with pa.CompressedInputStream(pa.OSFile(str(file)), "zstd") as stream:
        stream.read(done)
        try:
            while piece := stream.read(1):
                yield piece
        except OSError:
            return
