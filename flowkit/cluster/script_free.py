"""Worker processes that do not run the driver's script at their start. Runs in the driver; any thread.

A process that ``multiprocessing`` spawns imports the script of its parent, so that what is pickled by name is found there. Functions and
classes of the script reach executors by value, as they must on any cluster of other machines; so its import would only take time, and a
script without ``if __name__ == "__main__"`` would start its cluster again in every worker.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from multiprocessing import spawn
from typing import Any, Final

#: what Dask calls the processes that its nannies start
WORKER_PROCESS: Final = "Dask Worker process (from Nanny)"
_OF_SCRIPT: Final = ("init_main_from_name", "init_main_from_path")

_lock = threading.Lock()
_starting = 0
_preparation_data = spawn.get_preparation_data


def _without_script(name: str) -> dict[str, Any]:
    data: dict[str, Any] = _preparation_data(name)
    if name == WORKER_PROCESS:
        for each in _OF_SCRIPT:
            data.pop(each, None)
    return data


@contextlib.contextmanager
def workers_without_script() -> Iterator[None]:
    """Have worker processes that start meanwhile not import the script; all other processes do as ever."""
    global _starting
    with _lock:
        _starting += 1
        spawn.get_preparation_data = _without_script
    try:
        yield
    finally:
        with _lock:
            _starting -= 1
            if not _starting:
                spawn.get_preparation_data = _preparation_data
