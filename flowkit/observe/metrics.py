"""What tasks measured, added up, and how numbers are told to people.

Pure; runs wherever somebody looks on.
"""

from __future__ import annotations

from itertools import compress
from operator import attrgetter
from typing import Final

from flowkit.model.metrics import TaskMetrics

_SUMMED: Final = tuple(
    name for name in TaskMetrics.__struct_fields__ if name not in {"peak_memory_bytes", "hot_key", "hot_key_rows"}
)

#: metrics that count for every attempt, also for one whose output does not
_COSTS: Final = tuple(name for name in _SUMMED if name.endswith(("_s", "spilled_bytes")))

_summed_of: Final = attrgetter(*_SUMMED)
_costs_of: Final = attrgetter(*_COSTS)


def add_metrics(total: TaskMetrics, one: TaskMetrics) -> None:
    """Add what one task measured to ``total``; of the peaks the highest is kept, and of the keys the one with most rows.

    For an attempt whose output counts: one that ended well.

    >>> total = TaskMetrics(run_s=1.0, peak_memory_bytes=10)
    >>> add_metrics(total, TaskMetrics(run_s=0.5, peak_memory_bytes=7))
    >>> total.run_s, total.peak_memory_bytes
    (1.5, 10)
    """
    for name in compress(_SUMMED, _summed_of(one)):  # of some twenty numbers a task has a few
        setattr(total, name, getattr(total, name) + getattr(one, name))
    if one.hot_key and one.hot_key == total.hot_key:
        total.hot_key_rows += one.hot_key_rows
    elif one.hot_key_rows > total.hot_key_rows:
        total.hot_key, total.hot_key_rows = one.hot_key, one.hot_key_rows
    total.peak_memory_bytes = max(total.peak_memory_bytes, one.peak_memory_bytes)


def add_costs(total: TaskMetrics, one: TaskMetrics) -> None:
    """Add the costs of an attempt whose output does not count: it failed, was killed, or recomputed a partition that was counted before.

    Costs are seconds and spilled bytes; its rows and bytes are left out.

    >>> total = TaskMetrics(run_s=1.0, input_rows=10)
    >>> add_costs(total, TaskMetrics(run_s=0.5, input_rows=7, peak_memory_bytes=5))
    >>> total.run_s, total.input_rows, total.peak_memory_bytes
    (1.5, 10, 5)
    """
    for name in compress(_COSTS, _costs_of(one)):
        setattr(total, name, getattr(total, name) + getattr(one, name))
    total.peak_memory_bytes = max(total.peak_memory_bytes, one.peak_memory_bytes)


def rows_read(metrics: TaskMetrics) -> int:
    """Rows that came in, from wherever.

    >>> rows_read(TaskMetrics(input_rows=2, shuffle_read_rows=3))
    5
    """
    return metrics.input_rows + metrics.shuffle_read_rows


def shuffle_read_bytes(metrics: TaskMetrics) -> int:
    """Bytes of map outputs read, from this host and from others.

    >>> shuffle_read_bytes(TaskMetrics(shuffle_local_bytes=2, shuffle_remote_bytes=3))
    5
    """
    return metrics.shuffle_local_bytes + metrics.shuffle_remote_bytes


def format_bytes(size_bytes: float) -> str:
    """A size for people.

    >>> format_bytes(0), format_bytes(1536), format_bytes(200 << 20)
    ('0 B', '1.5 kB', '200 MB')
    """
    return _scaled(size_bytes, 1024, ("B", "kB", "MB", "GB", "TB", "PB"))


def format_count(count: float) -> str:
    """A number of things for people.

    >>> format_count(999), format_count(12_345), format_count(4_000_000)
    ('999', '12.3 k', '4.0 M')
    """
    return _scaled(count, 1000, ("", "k", "M", "G", "T")).rstrip()


def counted(count: int, one: str, many: str = "") -> str:
    """A whole number of things, each by its name.

    >>> counted(1, "job"), counted(1_200, "job"), counted(2, "process", "processes")
    ('1 job', '1,200 jobs', '2 processes')
    """
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def format_seconds(seconds: float) -> str:
    """A duration for people.

    >>> format_seconds(0.0042), format_seconds(3.14), format_seconds(125), format_seconds(7322)
    ('4 ms', '3.1 s', '2 min 5 s', '2 h 2 min')
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _scaled(value: float, base: int, units: tuple[str, ...]) -> str:
    scaled = float(value)
    for unit in units:
        if scaled < base or unit == units[-1]:
            whole = unit == units[0] or scaled >= 100
            return f"{scaled:.0f} {unit}" if whole else f"{scaled:.1f} {unit}"
        scaled /= base
    raise AssertionError("the last unit takes everything")
