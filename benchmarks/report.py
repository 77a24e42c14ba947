"""Medians, spreads and ratios as a page one can read."""

from __future__ import annotations

import datetime as dt
import os
import platform
import statistics
from dataclasses import dataclass
from pathlib import Path

ORDER = ("flowkit", "before", "inlined", "by_hand", "dask", "ray", "pyspark")
TITLES = {"by_hand": "by hand", "inlined": "by hand, inlined"}


@dataclass(frozen=True)
class Row:
    """One workload: seconds and error of each engine, and whether the answers agreed."""

    name: str
    title: str
    engines: dict[str, tuple[list[float], str]]
    complaint: str

    def median(self, engine: str) -> float | None:
        seconds = self.engines.get(engine, ([], ""))[0]
        return statistics.median(seconds) if seconds else None


@dataclass(frozen=True)
class Head:
    """Under which circumstances."""

    command: str
    cores: int
    scale: float
    repeat: int
    versions: dict[str, str]
    missing: dict[str, str]


def duration(seconds: float) -> str:
    """Three digits, in the unit that suits."""
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def lines(row: Row) -> str:
    """A row for the terminal."""
    ours = row.median("flowkit")
    text = []
    for engine in (each for each in ORDER if each in row.engines):
        seconds, error = row.engines[engine]
        if error:
            text.append(f"    {engine:8} {error}")
        else:
            median = statistics.median(seconds)
            ratio = f"  {median / ours:6.2f}x" if ours else ""
            text.append(f"    {engine:8} {duration(median):>9}{ratio}   ({duration(min(seconds))} .. {duration(max(seconds))})")
    if row.complaint:
        text.append(f"    ANSWERS DIFFER: {row.complaint}")
    return "\n".join(text)


def page(head: Head, rows: list[Row], core: list[dict[str, float]]) -> str:
    """The whole of RESULTS.md."""
    engines = [each for each in ORDER if any(each in row.engines for row in rows)]
    parts = [
        "# Results\n",
        "<!-- Written by benchmarks/run.py; run it again rather than editing; what was missed is in NOTES.md. -->\n",
        "Medians; in brackets fastest and slowest; below, how many times flowkit's time. Only ratios carry over to other machines.\n",
        f"- machine: {machine()}, {head.cores} task slots for every engine\n"
        f"- system: {platform.platform()}\n"
        f"- date: {dt.datetime.now(dt.UTC):%Y-%m-%d}\n"
        f"- versions: Python {platform.python_version()}, {', '.join(f'{name} {version}' for name, version in sorted(head.versions.items()))}\n"
        f"- command: `{head.command}` ({head.repeat} repetitions after one to warm up, engines taking turns, scale {head.scale})\n"
        + "".join(f"- without {name}: {reason}\n" for name, reason in head.missing.items()),
        "| work | "
        + " | ".join(TITLES.get(each, each) for each in engines)
        + " |\n|---|"
        + "---|" * len(engines)
        + "\n"
        + "".join(f"| {row.title} | " + " | ".join(_cell(row, each) for each in engines) + " |\n" for row in rows),
    ]
    differing = [f"- {row.title}: {row.complaint}\n" for row in rows if row.complaint]
    parts.append("All engines gave the same answers.\n" if not differing else "**Answers differ**:\n\n" + "".join(differing))
    errors = [
        f"- {row.title}, {engine}: {error}\n"
        for row in rows
        for engine, (_, error) in row.engines.items()
        if error and engine not in head.missing
    ]
    if errors:
        parts.append("Failed:\n\n" + "".join(errors))
    parts.append(
        "## The scheduler core alone\n\n"
        "By simulation: 100 executors of 4 slots, a map stage and a result stage (`python benchmarks/core_time.py`).\n\n"
        "| tasks | time a task | memory a task |\n|---|---|---|\n"
        + "".join(f"| {row['tasks']:,.0f} | {row['microseconds']:.1f} us | {row['bytes']:.0f} bytes |\n" for row in core)
    )
    return "\n".join(parts)


def _cell(row: Row, engine: str) -> str:
    if engine not in row.engines:
        return ""
    seconds, error = row.engines[engine]
    if error:
        return "failed"
    ours, median = row.median("flowkit"), statistics.median(seconds)
    spread = f"{duration(median)} ({duration(min(seconds))} .. {duration(max(seconds))})"
    return f"**{spread}**" if engine == "flowkit" else f"{spread}<br>{median / ours:.2f}x" if ours else spread


def machine() -> str:
    """Processor, cores and memory, as far as the system tells."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        model = next(
            (line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")), model
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB"
