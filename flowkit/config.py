"""Every setting once: name, type, unit, default, reason, check. A ``Config`` is immutable and validated when built.

Runs everywhere; holds no component, only their names or objects handed in by the user.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from html import escape
from typing import Any

from flowkit.errors import ConfigError

ENVIRONMENT_PREFIX = "FLOWKIT_"


def _positive(value: float) -> str | None:
    return None if value > 0 else "must be above 0"


def _not_negative(value: float) -> str | None:
    return None if value >= 0 else "must be 0 or more"


def _fraction(value: float) -> str | None:
    return None if 0 < value <= 1 else "must be above 0 and at most 1"


def _one_of(*allowed: str) -> Callable[[str], str | None]:
    return lambda value: None if value in allowed else f"must be one of {', '.join(allowed)}"


def _setting(default: Any, doc: str, check: Callable[[Any], str | None] | None = None, *, unit: str = "") -> Any:
    return field(default=default, metadata={"doc": doc, "check": check, "unit": unit, "since": "0.1"})


@dataclass(frozen=True, kw_only=True, repr=False)
class Config:
    """All settings of one application. Its repr tells those that are not the default.

    >>> Config(max_task_failures=2).max_task_failures
    2
    >>> Config(max_task_failures=0)
    Traceback (most recent call last):
        ...
    flowkit.errors.ConfigError: max_task_failures = 0: must be above 0
    """

    # -- scheduling
    max_task_failures: int = _setting(4, "Failures of one task that end its job.", _positive)
    max_stage_attempts: int = _setting(4, "Consecutive resubmissions of a stage for lost map output that end its job.", _positive)
    locality_wait_s: float = _setting(
        0.1,
        "How long a task waits for a slot near its data before it takes one farther away, per level.",
        _not_negative,
        unit="s",
    )
    launch_ahead_s: float = _setting(0.02, "Work kept queued at each slot beyond what it runs.", _not_negative, unit="s")
    max_launch_depth: int = _setting(128, "Tasks at most queued at one executor.", _positive)
    heartbeat_s: float = _setting(1.0, "How often executors and drivers say that they live.", _positive, unit="s")
    executor_timeout_s: float = _setting(15.0, "Silence after which an executor is taken for dead.", _positive, unit="s")
    no_executor_timeout_s: float = _setting(
        60.0, "How long a job waits when the cluster has no usable executor, before it fails.", _positive, unit="s"
    )
    lease_s: float = _setting(
        60.0, "Silence after which a driver is taken for dead and its jobs and files go.", _positive, unit="s"
    )
    kill_grace_s: float = _setting(
        5.0, "How long a killed task may go on before its executor's process is replaced.", _positive, unit="s"
    )
    scheduling_policy: str = _setting(
        "fifo",
        "Order in which jobs get slots; `fifo`: in that of their submission; other names: entry points of the group "
        "`flowkit.scheduling_policies` where the scheduler runs.",
    )

    # -- limits
    max_closure_bytes: int = _setting(256 << 20, "Largest pickled program of one stage.", _positive, unit="bytes")
    max_partitions: int = _setting(1_000_000, "Partitions at most in one stage.", _positive)
    max_active_jobs: int = _setting(
        1_000, "Jobs that one application may have under way at a time; the scheduler refuses more.", _positive
    )
    max_active_tasks: int = _setting(
        2_000_000, "Tasks of all jobs that one application may have under way; the scheduler refuses jobs beyond.", _positive
    )
    max_result_bytes: int = _setting(1 << 30, "Results of one job at most; 0 is no limit.", _not_negative, unit="bytes")
    max_disk_bytes: int = _setting(0, "An application's files on one host at most; 0 is no limit.", _not_negative, unit="bytes")

    # -- memory
    memory_fraction: float = _setting(
        0.6, "Part of an executor's free memory at start that tasks may use before they spill.", _fraction
    )

    max_off_heap_bytes: int = _setting(
        1 << 30,
        "Cached partitions of one application in shared memory, on one host; what is more goes to disk.",
        _positive,
        unit="bytes",
    )
    block_codec: str = _setting("none", "Compression of cached partitions on disk.", _one_of("none", "lz4", "zstd"))
    block_directories: str = _setting(
        "",
        "Directories, best first, separated as in PATH, where executors put cached partitions that go to disk; one that is full or broken is "
        "passed over, and `local_directory` comes last.",
    )

    # -- shuffle and files
    shuffle_codec: str = _setting("none", "Compression of shuffle files.", _one_of("none", "lz4", "zstd"))
    fetch_in_flight_bytes: int = _setting(48 << 20, "Remote shuffle bytes a task asks for at once.", _positive, unit="bytes")
    local_directory: str = _setting(
        "", "Where executors keep files; empty: a directory of flowkit's own in the system's temporary one."
    )
    default_parallelism: int = _setting(0, "Partitions where none are given; 0: the cluster's slots.", _not_negative)

    # -- looking on
    progress: str = _setting(
        "auto",
        "Live progress of jobs: where there is somebody to see it (`auto`), nowhere, in a terminal, or below notebook cells as a "
        "widget, as plain ipywidgets, or as HTML.",
        _one_of("auto", "off", "terminal", "widget", "ipywidgets", "html"),
    )
    event_log: str = _setting("", "Directory for a log of every event, which can be replayed later; empty: none is written.")
    listener_queue_capacity: int = _setting(10_000, "Events a slow listener may lag behind before it loses some.", _positive)
    validate: bool = _setting(False, "Check every invariant of the scheduler core after each step (slow; for tests).")

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            expected = type(each.default)
            if expected is float and type(value) is int:
                object.__setattr__(self, each.name, float(value))
            elif type(value) is not expected:
                raise ConfigError(
                    f"{each.name} = {value!r}: must be {expected.__name__}, not {type(value).__name__}",
                    setting=each.name,
                    value=value,
                )
            check = each.metadata["check"]
            if check is not None and (complaint := check(value)) is not None:
                raise ConfigError(f"{each.name} = {value!r}: {complaint}", setting=each.name, value=value)
        if self.executor_timeout_s <= self.heartbeat_s:
            raise ConfigError(
                f"executor_timeout_s = {self.executor_timeout_s}: must be above heartbeat_s = {self.heartbeat_s}",
                setting="executor_timeout_s",
                value=self.executor_timeout_s,
            )

    def __repr__(self) -> str:
        changed = (
            f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if getattr(self, each.name) != each.default
        )
        return f"Config({', '.join(changed)})"

    def _repr_html_(self) -> str:
        rows = []
        for each in fields(self):
            value = getattr(self, each.name)
            cells = (each.name, f"{value!r}", each.metadata["unit"], each.metadata["doc"])
            style = ' style="font-weight: bold"' if value != each.default else ""
            rows.append(f"<tr{style}>" + "".join(f'<td style="text-align: left">{escape(cell)}</td>' for cell in cells) + "</tr>")
        return f"<details><summary>{escape(repr(self))}</summary><table>{''.join(rows)}</table></details>"

    def with_settings(self, **settings: Any) -> Config:
        """A copy with some settings changed; unknown names are refused with the nearest known one.

        >>> Config().with_settings(max_task_failure=2)
        Traceback (most recent call last):
            ...
        flowkit.errors.ConfigError: no setting 'max_task_failure'; did you mean 'max_task_failures'?
        """
        known = [each.name for each in fields(self)]
        for name, value in settings.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                raise ConfigError(f"no setting {name!r}; {hint}", setting=name, value=value)
        return replace(self, **settings)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Config:
        """Defaults overridden by ``FLOWKIT_<SETTING>`` variables.

        >>> Config.from_environment({"FLOWKIT_MAX_TASK_FAILURES": "2"}).max_task_failures
        2
        """
        settings: dict[str, Any] = {}
        for each in fields(cls):
            name = ENVIRONMENT_PREFIX + each.name.upper()
            if name in environment:
                settings[each.name] = _parse(name, environment[name], type(each.default))
        return cls(**settings)


def _parse(name: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() in {"1", "true", "yes", "on"}:
            return True
        if text.lower() in {"0", "false", "no", "off"}:
            return False
        raise ConfigError(f"{name} = {text!r}: must be true or false", setting=name, value=text)
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"{name} = {text!r}: must be {kind.__name__}", setting=name, value=text) from None
