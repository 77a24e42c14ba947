"""Whether a cluster in this machine's cores can come up as it was asked for: told at the call, naming what cannot, before a process starts.

Runs in the driver. Imports nothing of Dask's that takes long: what is wrong is told sooner than that.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import psutil

from flowkit.cluster.machine import DIRECTORY_VARIABLE, check_directory
from flowkit.config import Config
from flowkit.errors import ConfigError, InvalidArgument
from flowkit.model.checks import check_bool, check_int, refuse
from flowkit.storage.memory.task_memory import MARGIN_BYTES, SMALLEST_USABLE_BYTES, usable_bytes

MOST_THREADS = 1_024
"""Of one process: more of Python's threads than that do nothing but wait for one another."""
LEAST_AT_START_BYTES = 56 << 20
"""What a worker process takes before it has done anything, at the very least; measured: 60 to 75 MB."""


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def check_embedded(
    workers: int | None, threads_per_worker: int, processes: bool, memory_limit: int | str | None, config: Config
) -> None:
    """Refuse what cannot work.

    Raises
    ------
    errors.InvalidArgument
        An argument; names it, its value and what is allowed.
    errors.ConfigError
        A setting; names it, its value and the reason.
    """
    for name, value in (("workers", workers), ("threads_per_worker", threads_per_worker)):
        if value is not None:
            check_int(name, value, least=1)
    check_bool("processes", processes)
    _check_threads(workers, threads_per_worker, processes)
    limit = _limit_bytes(memory_limit)
    if limit is not None:
        _check_memory(limit, memory_limit, processes, config)
    elsewhere = os.environ.get(DIRECTORY_VARIABLE)
    check_directory((config.local_directory or elsewhere if processes else elsewhere or config.local_directory) or None)


def check_shares(workers: int, memory_limit: int | str | None, total_bytes: int, config: Config) -> None:
    """Refuse more worker processes than the machine's memory has room for. ``total_bytes``: what all of them may have together.

    Raises
    ------
    errors.InvalidArgument
        They are too many; says how many could be.
    """
    least = LEAST_AT_START_BYTES
    if memory_limit is None or memory_limit == "auto":  # each has an equal share
        least += MARGIN_BYTES + int(SMALLEST_USABLE_BYTES / config.memory_fraction)
    most = max(1, total_bytes // least)
    if workers > most:
        name = "workers"
        if config.allocation != "off" and workers == (config.initial_executors or config.min_executors):
            name = "initial_executors" if config.initial_executors else "min_executors"
        raise InvalidArgument(
            f"{name} = {workers:,}: the machine has {_mb(total_bytes)} of memory, and each worker takes {_mb(least)} at least: there is room "
            f"for {most:,}",
            name=name,
            value=workers,
            allowed=f"1 to {most}",
        )


def check_scratch(directory: str | None) -> None:
    """Refuse a directory in which Dask's workers cannot keep theirs; None: the system's temporary one.

    Raises
    ------
    errors.ConfigError
        It is none, or cannot be written to.
    """
    place = Path(directory or tempfile.gettempdir())
    there = next(each for each in (place.absolute(), *place.absolute().parents) if os.path.lexists(each))  # it is made if need be
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(
            f"temporary-directory = {str(place)!r} (Dask's configuration): Dask's workers cannot keep files there, since {there} "
            f"{'cannot be written to' if there.is_dir() else 'is no directory'}",
            setting="temporary-directory",
            value=str(place),
        )


def _check_threads(workers: int | None, threads_per_worker: int, processes: bool) -> None:
    threads = threads_per_worker if processes else threads_per_worker * (workers or 1)
    if threads <= MOST_THREADS:
        return
    name, value = "threads_per_worker", threads_per_worker
    if workers is not None and not processes and workers > threads_per_worker:
        name, value = "workers", workers
    both = "" if processes else f", and with processes=False all {threads:,} would be threads of this one"
    raise InvalidArgument(
        f"{name} = {value:,}: a process runs {MOST_THREADS:,} tasks at once at most{both}",
        name=name,
        value=value,
        allowed=f"1 to {MOST_THREADS}",
    )


def _limit_bytes(limit: int | str | None) -> int | None:
    allowed = 'bytes, a number above 0, or as "2GiB"'
    if limit is None or limit == "auto":
        return None
    if isinstance(limit, bool) or not isinstance(limit, int | str):
        refuse("memory_limit", limit, allowed)
    import dask.utils

    try:
        size = int(dask.utils.parse_bytes(limit or "none"))
    except (ValueError, OverflowError):
        size = 0
    if size <= 0:
        refuse("memory_limit", limit, allowed, wrong_type=False)
    return size


def _check_memory(size: int, limit: int | str | None, processes: bool, config: Config) -> None:
    at_start = LEAST_AT_START_BYTES if processes else max(LEAST_AT_START_BYTES, psutil.Process().memory_info().rss)
    try:
        usable_bytes(size, at_start, config.memory_fraction)
    except ConfigError as error:
        least = at_start + MARGIN_BYTES + int(SMALLEST_USABLE_BYTES / config.memory_fraction)
        whose = "a worker takes by itself" if processes else "this process takes already (processes=False)"
        raise InvalidArgument(
            f"memory_limit = {limit!r}: too little for a worker: {_mb(at_start)} {whose}, {_mb(MARGIN_BYTES)} are kept free, and of the rest "
            f"tasks have memory_fraction = {config.memory_fraction:g}, which must be {_mb(SMALLEST_USABLE_BYTES)} or more; give it "
            f"{_mb(least)} at the very least",
            name="memory_limit",
            value=limit,
            allowed=f"{least} bytes or more",
        ) from error


def _mb(size_bytes: int) -> str:
    return f"{-(-size_bytes // (1 << 20)):,} MiB"
