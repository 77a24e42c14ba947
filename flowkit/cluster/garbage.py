"""Python's garbage collector in processes where flowkit's work is most of what is done. Runs in workers and in the scheduler, at their start."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Scheduler

_ALLOCATIONS = 100_000
"""Net allocations between two looks of the collector at young objects."""


def collect_less_often() -> None:
    """Tasks make millions of tuples that are no garbage, and Python looks at them every 700.

    Measured: a group takes half the time, a join six tenths. Only where the process is the executor's own.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, 10, 10)


def spare_what_stays(scheduler: Scheduler) -> bool:
    """What is there when flowkit is installed is modules, mostly: the collector need not look through it again and again; whether so.

    Measured: that takes 10 ms and more, every few seconds at thousands of tasks a second, and 0.3 ms without it. Only where the process is
    the scheduler's own, which then has the main thread, and while Dask has no tasks there, for what is spared is never collected.
    """
    if threading.current_thread() is not threading.main_thread() or scheduler.tasks:
        return False
    gc.collect()
    gc.freeze()
    return True
