"""What the system knows of a worker's process without asking it: a process whose interpreter's lock is held cannot answer.

Runs in nannies. One look takes about 0.1 ms: the process's own files in ``/proc`` on Linux, and what its slots noted of themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from flowkit.cluster import slot_record
from flowkit.model.ids import ExecutorId

_AT_REST = frozenset({psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD})


def look(pid: int | None, base: Path, executor: ExecutorId) -> dict[str, Any]:
    """Processor time by thread (used, and waited for), whether it is stopped or gone, and the attempts an executor of its has in hand; None of what nobody knows.

    >>> import os
    >>> from flowkit.model.ids import ExecutorId
    >>> seen = look(os.getpid(), Path("nowhere"), ExecutorId("tcp://host:1#1"))
    >>> seen["stopped"], seen["running"], max(seen["threads"].values()) > (0.0, 0.0)
    (False, None, True)
    """
    running: Sequence[int] | None = slot_record.read(base, executor)
    if pid is None:
        return {"threads": None, "stopped": True, "running": running}
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            threads = {each.id: _times(pid, each.id, each.user_time + each.system_time) for each in process.threads()}
            status = process.status()
    except psutil.NoSuchProcess:
        return {"threads": None, "stopped": True, "running": running}
    except psutil.Error:
        return {"threads": None, "stopped": None, "running": running}
    return {"threads": threads, "stopped": status in _AT_REST, "running": running}


def _times(pid: int, thread: int, used_s: float) -> tuple[float, float]:
    """As Linux keeps them, in nanoseconds, for its own scheduler (``sched-stats.rst``); elsewhere nobody knows how long a thread waited."""
    try:
        used, waited, *_ = Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()
    except (OSError, ValueError):
        return used_s, 0.0
    return int(used) / 1e9, int(waited) / 1e9
