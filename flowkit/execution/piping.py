"""A partition through an external program: one process, a line an element in, a line an element out.

Runs on slot threads, and on them alone: rows are written and lines read as the pipes allow, so neither a full pipe nor a program that
reads all before it writes can stop both. The program goes with its task, however that ends.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

from flowkit.errors import PipedCommandFailed

#: A task that is killed while it waits hears of it when Python's own code runs again: so often at least.
_WAIT_S = 0.2
_READ_BYTES = 1 << 16
_ROWS_AT_ONCE = 512
_STDERR_TAIL_BYTES = 2_000


@dataclass(frozen=True, slots=True)
class PipeRows:
    """Lines that a command prints when it is given one line a row."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    encoding: str
    check: bool

    def __call__(self, rows: Iterator[Any]) -> Iterator[str]:
        environment = {**os.environ, **self.environment}
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(  # noqa: S603 - the user's own command
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment, bufsize=0
            )
            try:
                yield from self._lines(rows, process)
                code = process.wait()
            finally:
                process.kill()
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        pipe.close()
                process.wait()
            if code and self.check:
                raise PipedCommandFailed(
                    f"{' '.join(self.command)!r} ended with exit code {code}: {_tail(errors) or 'it printed no error'}",
                    exit_code=code,
                )

    def _lines(self, rows: Iterator[Any], process: subprocess.Popen[bytes]) -> Iterator[str]:
        rest = b""
        for piece in _exchanged(self._encoded(rows), process):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield line.decode(self.encoding)
        if rest:
            yield rest.decode(self.encoding)

    def _encoded(self, rows: Iterator[Any]) -> Iterator[bytes]:
        while block := "".join(f"{row}\n" for row in islice(rows, _ROWS_AT_ONCE)):
            yield block.encode(self.encoding)


def _exchanged(pieces: Iterator[bytes], process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """Feed a process, and hand on what it prints, until it closes its output."""
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None
    os.set_blocking(stdin.fileno(), False)
    waiting = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        selector.register(stdin, selectors.EVENT_WRITE)
        while True:
            for key, _ in selector.select(_WAIT_S):
                if key.fileobj is stdout:
                    piece = os.read(stdout.fileno(), _READ_BYTES)
                    if not piece:
                        return
                    yield piece
                    continue
                waiting = waiting or next(pieces, b"")
                try:
                    waiting = waiting[os.write(stdin.fileno(), waiting) :] if waiting else b""
                    done = not waiting and not (waiting := next(pieces, b""))
                except BrokenPipeError:
                    done = True  # it reads no more, and rightly so, as `head` does
                if done:
                    selector.unregister(stdin)
                    stdin.close()


def _tail(errors: IO[bytes]) -> str:
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - _STDERR_TAIL_BYTES))
    return errors.read().decode(errors="replace").strip()
