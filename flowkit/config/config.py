"""Every setting once: name, type, unit, default, reason, check. A ``Config`` is immutable, validated when built, and knows where each value is from.

Runs everywhere; holds no component, only their names or objects handed in by the user. What is said later wins: defaults, a preset,
Dask's configuration, a TOML file, the environment, arguments.
"""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowkit.config.guesses import meant_by
from flowkit.config.presets import PRESETS
from flowkit.config.setting import (
    ENVIRONMENT_PREFIX,
    at_least,
    at_least_one,
    beyond,
    check_by_name,
    check_component,
    declared,
    default_of,
    fraction,
    named,
    not_negative,
    one_of,
    parsed,
    pool_complaint,
    positive,
    resource_complaint,
    settings_of,
    shown,
)
from flowkit.errors import ConfigError
from flowkit.model.advice import Advising, public
from flowkit.tracebacks import door
from flowkit.visible import as_html

if TYPE_CHECKING:
    from flowkit.config.builder import ConfigBuilder


@public("Config")
@dataclass(frozen=True, kw_only=True, repr=False)
class Config(metaclass=Advising):
    """All settings of one application. Its repr tells those that are not the default.

    >>> Config(max_task_failures=2).max_task_failures
    2
    >>> Config(max_task_failures=0)
    Traceback (most recent call last):
        ...
    flowkit.errors.ConfigError: max_task_failures = 0: must be above 0
    """

    # -- scheduling
    max_task_failures: int = declared(4, "Failures of one task that end its job.", positive)
    max_stage_attempts: int = declared(4, "Consecutive resubmissions of a stage for lost map output that end its job.", positive)
    locality_wait_s: float = declared(
        0.1,
        "How long a task waits for a slot near its data before it takes one farther away, per level.",
        not_negative,
        unit="s",
    )
    launch_ahead_s: float = declared(0.02, "Work kept queued at each slot beyond what it runs.", not_negative, unit="s")
    max_launch_depth: int = declared(128, "Tasks at most queued at one executor.", positive)
    heartbeat_s: float = declared(1.0, "How often executors and drivers say that they live.", at_least(0.01), unit="s")
    executor_timeout_s: float = declared(15.0, "Silence after which an executor is taken for dead.", positive, unit="s")
    no_executor_timeout_s: float = declared(
        60.0, "How long a job waits when the cluster has no usable executor, before it fails.", positive, unit="s"
    )
    lease_s: float = declared(
        60.0,
        "Silence after which a driver is taken for dead and its jobs and files go.",
        positive,
        unit="s",
        scope="driver",
    )
    kill_grace_s: float = declared(
        5.0, "How long a killed task may go on before its executor's process is replaced.", positive, unit="s"
    )
    scheduling_policy: Any = declared(  # noqa: RUF009 - as the others: a field
        "fifo",
        "Order in which jobs get slots; `fifo`: in that of their submission; `fair`: `pools` share the cluster by weight; `capacity`: pools have "
        "guaranteed parts of it; `priority`: by `fc.job(priority=)`; other names: entry points of the group "
        "`flowkit.scheduling_policies` where the scheduler runs; or an object with `order(candidates)`, which is pickled and runs there.",
        method="order",
    )

    pools: Any = declared(  # noqa: RUF009 - as the others: a field
        {},
        "Pools of the policies `fair` and `capacity`, by name: a weight (or a guarantee), or a mapping of `weight`, `min_share`, `parent`, "
        "`guarantee` and `maximum`; see `fc.pool`.",
        pool_complaint,
        mapping=True,
        plain=True,
    )

    placement: Any = declared(  # noqa: RUF009 - as the others: a field
        "delay",
        "Where tasks run; `delay`: near what they read, if a slot comes free there within `locality_wait_s`; other names: entry points of the "
        "group `flowkit.placement_policies` where the scheduler runs; or an object with `prefer(stage, partition, near)`, which is pickled "
        "and runs there.",
        method="prefer",
    )
    topology: Any = declared(  # noqa: RUF009 - as the others: a field
        "none",
        "Which hosts are near one another: `none`, an entry point of the group `flowkit.topologies` where the scheduler runs, or a function that "
        "takes the names of a host and returns that of its rack, which is pickled and runs there.",
        method="__call__",
    )
    resources: Any = declared(  # noqa: RUF009 - as the others: a field
        {},
        "Named resources of each executor, beside those its Dask worker was started with: how many, a list of addresses, a function that "
        'returns it, or a script that prints `{"name": ..., "addresses": [...]}`; see `rdd.with_resources`.',
        resource_complaint,
        mapping=True,
        plain=True,
    )
    allocation: Any = declared(  # noqa: RUF009 - as the others: a field
        "off",
        "How many executors there are: `off`: as many as the cluster has; `backlog`: more while tasks wait, fewer when some are idle for "
        "`executor_idle_s`; `stable`: for streams, what the last ten minutes needed, changed once a minute at most; other names: entry points "
        "of the group `flowkit.allocation_policies` where the scheduler runs; or an object with `look(demand)`, which is pickled and runs there.",
        method="look",
    )
    min_executors: int = declared(1, "Executors there are at least, with an `allocation`.", positive)
    max_executors: int = declared(
        0, "Executors there are at most, with an `allocation`; 0: no limit, on an embedded cluster one per core.", not_negative
    )
    initial_executors: int = declared(0, "Executors to begin with, with an `allocation`; 0: `min_executors`.", not_negative)
    executor_idle_s: float = declared(
        60.0, "How long an executor without tasks and cached partitions stays, with `allocation = backlog`.", positive, unit="s"
    )

    speculation: Any = declared(  # noqa: RUF009 - as the others: a field
        "off",
        "Which tasks are tried on another executor as well, the first to end well counts; `off`: none; `median` (or True): those that take "
        "several times as long as the median of their fellows; other names: entry points of the group `flowkit.speculation_policies` where the "
        "scheduler runs; or an object with `slow_after(progress)`, which is pickled and runs there.",
        method="slow_after",
        switch="median",
    )
    speculation_quantile: float = declared(
        0.9, "Part of a stage's tasks that are over before others are taken for slow.", fraction
    )
    speculation_multiplier: float = declared(3.0, "How many times the median a slow task takes.", at_least_one)
    speculation_min_s: float = declared(0.1, "How long a slow task takes at least.", positive, unit="s")

    exclude_failing: Any = declared(  # noqa: RUF009 - as the others: a field
        "off",
        "Which executors are kept from tasks after failures there; `off`: none; `counts` (or True): those on which several tasks failed, from "
        "the stage, then from the application for a while; other names: entry points of the group `flowkit.health_policies` where the "
        "scheduler runs; or an object with `judge(failures)`, which is pickled and runs there.",
        method="judge",
        switch="counts",
    )
    exclude_after_failures: int = declared(
        2,
        "Different tasks of one stage that fail on an executor and exclude it from the stage; twice as many exclude it from the application.",
        positive,
    )
    exclude_timeout_s: float = declared(3600.0, "How long an executor stays excluded from an application.", positive, unit="s")
    exclude_wait_s: float = declared(
        120.0, "How long a stage that has only excluded executors waits for others before its jobs fail.", positive, unit="s"
    )

    # -- limits
    max_closure_bytes: int = declared(256 << 20, "Largest pickled program of one stage.", positive, unit="bytes", scope="driver")
    max_partitions: int = declared(1_000_000, "Partitions at most in one stage.", positive, scope="driver")
    max_active_jobs: int = declared(
        1_000, "Jobs that one application may have under way at a time; the scheduler refuses more.", positive
    )
    max_active_tasks: int = declared(
        2_000_000, "Tasks of all jobs that one application may have under way; the scheduler refuses jobs beyond.", positive
    )
    max_result_bytes: int = declared(
        1 << 30, "Results of one job at most; 0 is no limit.", not_negative, unit="bytes", scope="driver"
    )
    min_partition_bytes: int = declared(
        128 << 10,
        "What is read from files is not cut smaller, and small files are packed, unless a number is asked for.",
        positive,
        unit="bytes",
        scope="driver",
    )
    max_partition_bytes: int = declared(
        64 << 20,
        "Partitions of what is read from files are not larger, except for a file that cannot be split.",
        positive,
        unit="bytes",
        scope="driver",
    )
    max_disk_bytes: int = declared(0, "An application's files on one host at most; 0 is no limit.", not_negative, unit="bytes")

    # -- memory
    memory_fraction: float = declared(
        0.6, "Part of an executor's free memory at start that tasks may use before they spill.", fraction
    )

    operator_memory_bytes: int = declared(
        0,
        "Memory that one operation of a task (a table, a sort, the buffers of a shuffle) may hold before it spills, so that it leaves "
        "others of the task theirs; 0: all the task is granted.",
        not_negative,
        unit="bytes",
    )
    max_off_heap_bytes: int = declared(
        1 << 30,
        "Cached partitions of one application in shared memory, on one host; what is more goes to disk.",
        positive,
        unit="bytes",
    )
    block_codec: str = declared("none", "Compression of cached partitions on disk.", one_of("none", "lz4", "zstd"))
    block_directories: str = declared(
        "",
        "Directories, best first, separated as in PATH, where executors put cached partitions that go to disk; one that is full or broken is "
        "passed over, and `local_directory` comes last.",
    )

    memory_manager: Any = declared(  # noqa: RUF009 - as the others: a field
        "unified",
        "Who may hold how much of an executor's memory: `unified` (tasks and cache borrow from one another), `on_demand` (first come, first "
        "served), an entry point of the group `flowkit.memory_managers` where executors run; or an object with `pool(total_bytes)`, as "
        "`QuotaMemory({...})`.",
        method="pool",
    )

    # -- shuffle and files
    shuffle_codec: str = declared("none", "Compression of shuffle files.", one_of("none", "lz4", "zstd"))
    coalesce_bytes: int = declared(
        1 << 20,
        "Partitions behind a shuffle that follow one another and read at most so much together are computed by one task, as long as four "
        "tasks a slot are left; 0: each has a task of its own. Partitions and results are the same either way, and what `repartition` and "
        "`partition_by` made is left as it is.",
        not_negative,
        unit="bytes",
    )
    split_bytes: int = declared(
        16 << 20,
        "A partition of a join whose streamed side has more than twice as much, and more than four times what others have, is joined by several "
        "tasks, each of which reads about so much of it; 0: by one. Rows and their order are the same either way.",
        not_negative,
        unit="bytes",
    )
    fetch_in_flight_bytes: int = declared(48 << 20, "Remote shuffle bytes a task asks for at once.", positive, unit="bytes")
    local_directory: str = declared(
        "",
        "The directory in which executors make one of their own, `flowkit-<uid>`, for all their files; nothing else in it is touched. Empty: the "
        "system's temporary one.",
    )
    object_stores: Any = declared(  # noqa: RUF009 - as the others: a field
        {},
        "By scheme of an address, the store it names: a `pyarrow.fs.FileSystem`, an `fsspec` file system, or a function without arguments that "
        "makes one where it is needed. Built in: `file`, `s3`, `gs`, `abfs`, `http`, `memory`.",
        mapping=True,
        scope="driver",
    )
    changed_inputs: str = declared(
        "error",
        "What a task does with an input file that is not the one its partitions were planned for, by size and time of change, or by etag: "
        "`error` fails the job with `InputChanged`; `read` reads it as it is then, whole where its format allows (a Parquet file must have "
        "its size still). For files that others write to, and for hosts that have copies of their own.",
        one_of("error", "read"),
        scope="driver",
    )
    serializers: Any = declared(  # noqa: RUF009 - as the others: a field
        {},
        "By names of your choice, how rows of some types become bytes in shuffles, spills and cached partitions, the first that accepts "
        "them: objects with `accepts(kinds)`, `dumps(values)` and `loads(data)`; or `msgpack`, `arrow`, `pickle`, `cloudpickle`, or an entry "
        "point of the group `flowkit.serializers` where executors run. What none accepts has the form that is fastest for its types.",
        method="dumps",
        mapping=True,
    )
    default_parallelism: int = declared(
        0, "Partitions where none are given; 0: the cluster's slots.", not_negative, scope="driver"
    )

    checkpoint_directory: str = declared(
        "",
        "Where `rdd.checkpoint()` writes when it is not told: a directory that driver and executors share, or an address.",
        scope="driver",
    )

    # -- looking on
    progress: str = declared(
        "auto",
        "Live progress of jobs: where there is somebody to see it (`auto`), nowhere, in a terminal, or below notebook cells as a "
        "widget, as plain ipywidgets, or as HTML.",
        one_of("auto", "off", "terminal", "widget", "ipywidgets", "html"),
        scope="driver",
    )
    event_log: str = declared(
        "", "Directory for a log of every event, which can be replayed later; empty: none is written.", scope="driver"
    )
    listener_queue_capacity: int = declared(
        10_000, "Events a slow listener may lag behind before it loses some.", positive, scope="driver"
    )
    full_tracebacks: bool = declared(
        False,
        "Show flowkit's own frames in tracebacks too, and those of its tasks: for whoever looks for a bug in it.",
        scope="driver",
    )
    validate: bool = declared(False, "Check every invariant of the scheduler core after each step (slow; for tests).")

    #: by setting, where its value is from; what is not there has its default
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for each in settings_of(self):
            value: Any = getattr(self, each.name)
            if each.metadata["switch"] and (isinstance(value, bool) or str(value).lower() in {"true", "false"}):
                value = each.metadata["switch"] if str(value).lower() == "true" else "off"
                object.__setattr__(self, each.name, value)
            if each.metadata["method"] and not each.metadata["mapping"]:
                check_component(each, value)
                continue
            if each.metadata["mapping"]:
                check_by_name(each, value)
                if any(named(each, name) != name for name in value):
                    object.__setattr__(self, each.name, {named(each, name): told for name, told in value.items()})
                continue
            expected = type(each.default)
            if expected is float and type(value) is int:
                value = float(value) if beyond(value) is None else math.inf
                object.__setattr__(self, each.name, value)
            elif type(value) is not expected:
                raise ConfigError(
                    f"{each.name} = {value!r}: must be {expected.__name__}, not {type(value).__name__}",
                    setting=each.name,
                    value=value,
                )
            if (complaint := beyond(value)) is not None:
                raise ConfigError(f"{each.name} = {value!r:.100}: {complaint}", setting=each.name, value=value)
            check = each.metadata["check"]
            if check is not None and (complaint := check(value)) is not None:
                raise ConfigError(f"{each.name} = {value!r}: {complaint}", setting=each.name, value=value)
        for longer, shorter in (("executor_timeout_s", "heartbeat_s"), ("lease_s", "heartbeat_s")):
            if getattr(self, longer) <= getattr(self, shorter):
                raise ConfigError(
                    f"{longer} = {getattr(self, longer)}: must be above {shorter} = {getattr(self, shorter)}",
                    setting=longer,
                    value=getattr(self, longer),
                )

        if self.pools and hasattr(self.scheduling_policy, "pool_names"):
            raise ConfigError(
                f"pools = {self.pools!r}: would not be looked at, since scheduling_policy = {self.scheduling_policy!r} has pools of its own; "
                "give them to it",
                setting="pools",
                value=self.pools,
            )

        most = self.max_executors or math.inf
        first = self.initial_executors or self.min_executors
        if not self.min_executors <= first <= most:
            raise ConfigError(
                f"min_executors = {self.min_executors}, initial_executors = {self.initial_executors}, max_executors = {self.max_executors}: "
                "must rise in this order",
                setting="initial_executors",
                value=self.initial_executors,
            )

    # -- making one

    @classmethod
    def builder(cls) -> ConfigBuilder:
        """Make one step by step.

        >>> Config.builder().with_settings(max_task_failures=2).with_scheduling_policy("fifo").build()
        Config(max_task_failures=2)
        """
        from flowkit.config.builder import ConfigBuilder

        return ConfigBuilder(cls())

    def with_settings(self, **settings: Any) -> Config:
        """A copy with some settings changed; unknown names are refused with the nearest known one.

        >>> Config().with_settings(max_task_failure=2)
        Traceback (most recent call last):
            ...
        flowkit.errors.ConfigError: no setting 'max_task_failure'; did you mean 'max_task_failures'?
        """
        return self.updated(settings, "given")

    def updated(self, settings: Mapping[str, Any], origin: str) -> Config:
        """A copy with settings from somewhere: ``origin`` is what ``explain`` tells."""
        for name, value in settings.items():
            check_known(name, value)
        if not settings:
            return self
        return replace(self, **settings, origins={**self.origins, **dict.fromkeys(settings, origin)})

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """All settings."""
        return tuple(each.name for each in settings_of(cls))

    @classmethod
    def from_surroundings(cls, environment: Mapping[str, str], dask: Mapping[str, Any] | None = None) -> Config:
        """What holds where nobody says anything: Dask's section ``flowkit``, the TOML file that ``FLOWKIT_CONFIG`` names, variables.

        >>> Config.from_surroundings({"FLOWKIT_PROGRESS": "off"}, {"progress": "html", "max-task-failures": 2})
        Config(max_task_failures=2, progress='off')
        """
        config = cls().with_mapping(dask or {}, "Dask's configuration")
        if path := environment.get(f"{ENVIRONMENT_PREFIX}CONFIG"):
            config = config.with_toml(path)
        return config.with_environment(environment)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Config:
        """Defaults overridden by ``FLOWKIT_<SETTING>`` variables.

        >>> Config.from_environment({"FLOWKIT_MAX_TASK_FAILURES": "2"}).max_task_failures
        2
        """
        return cls().with_environment(environment)

    def with_environment(self, environment: Mapping[str, str]) -> Config:
        """A copy with what ``FLOWKIT_<SETTING>`` variables say; settings that are mappings of numbers and texts say it as JSON.

        >>> Config().with_environment({"FLOWKIT_POOLS": '{"adhoc": 2}'})
        Config(pools={'adhoc': 2})
        """
        found = self
        for each in settings_of(self):
            name = ENVIRONMENT_PREFIX + each.name.upper()
            if name in environment:
                found = found.updated({each.name: parsed(each, name, environment[name])}, name)
        return found

    @classmethod
    def from_toml(cls, path: str | Path) -> Config:
        """Defaults overridden by a TOML file: by its table ``[flowkit]``, or its top level where it has none.

        Raises
        ------
        errors.ConfigError
            The file can't be read, is no TOML, or says what no setting is.
        """
        return cls().with_toml(path)

    def with_toml(self, path: str | Path) -> Config:
        """A copy with what a TOML file says; see ``from_toml``."""
        try:
            with Path(path).expanduser().open("rb") as file:
                told = tomllib.load(file)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: {error}", setting=str(path), value=None) from error
        table = told.get("flowkit", told)
        if not isinstance(table, Mapping):
            raise ConfigError(f"{path}: flowkit = {table!r}: must be a table", setting="flowkit", value=table)
        if "flowkit" in told:
            for name, value in told.items():
                if isinstance(value, Mapping) and name.replace("-", "_") in self.names():
                    raise ConfigError(
                        f"{path}: [{name}] lies beside [flowkit], where nobody reads it; write [flowkit.{name}]",
                        setting=name,
                        value=value,
                    )
        return self.with_mapping(table, str(path))

    def with_mapping(self, settings: Mapping[str, Any], origin: str) -> Config:
        """A copy with what a mapping says, as of a file: hyphens may stand for underscores.

        >>> Config().with_mapping({"max-task-failures": 2}, "a file").explain().splitlines()[0]
        'max_task_failures         2            a file'
        """
        return self.updated({name.replace("-", "_"): value for name, value in settings.items()}, origin)

    # -- presets

    @classmethod
    def preset(cls, name: str) -> Config:
        """``local``, ``production``, ``low_memory`` or ``streaming``; see the methods of these names."""
        if name not in PRESETS:
            raise ConfigError(f"no preset {name!r}; known: {', '.join(PRESETS)}", setting="preset", value=name)
        changes = {setting: value for setting, (value, _) in PRESETS[name].items()}
        return cls().updated(changes, f"Config.{name}()")

    @classmethod
    def local(cls, **settings: Any) -> Config:
        """One user on one machine: memory goes to whoever asks first.

        >>> Config.local().memory_manager
        'on_demand'
        """
        return cls.preset("local").with_settings(**settings)

    @classmethod
    def production(cls, **settings: Any) -> Config:
        """Unattended jobs on a cluster of several hosts: compressed shuffles, patience, no progress bars.

        >>> Config.production(max_task_failures=8).shuffle_codec
        'lz4'
        """
        return cls.preset("production").with_settings(**settings)

    @classmethod
    def low_memory(cls, **settings: Any) -> Config:
        """Little memory for much data: smaller budgets and buffers, compressed files.

        >>> Config.low_memory().memory_fraction
        0.4
        """
        return cls.preset("low_memory").with_settings(**settings)

    @classmethod
    def streaming(cls, **settings: Any) -> Config:
        """Many small jobs that must be quick: nothing waits for a better place.

        >>> Config.streaming().locality_wait_s
        0.0
        """
        return cls.preset("streaming").with_settings(**settings)

    # -- looking

    def explain(self) -> Explained:
        """Every value and where it is from; what is not the default first."""
        rows = []
        for each in settings_of(self):
            value = getattr(self, each.name)
            changed = value != default_of(each)
            rows.append(
                (not changed, each.name, shown(each, value), self.origins.get(each.name, "given") if changed else "default")
            )
        rows.sort(key=lambda row: row[0])
        return Explained("\n".join(f"{name:<25} {value:<12} {origin}" for _, name, value, origin in rows))

    def changes(self) -> dict[str, str]:
        """Settings that are not the default, with their values as text.

        >>> Config(progress="off", max_task_failures=2).changes()
        {'max_task_failures': '2', 'progress': "'off'"}
        """
        values = ((each, getattr(self, each.name)) for each in settings_of(self))
        return {each.name: shown(each, value) for each, value in values if value != default_of(each)}

    def __repr__(self) -> str:
        return f"Config({', '.join(f'{name}={value}' for name, value in self.changes().items())})"

    def _repr_html_(self) -> str:
        rows = []
        for each in settings_of(self):
            value = getattr(self, each.name)
            cells = (each.name, shown(each, value), each.metadata["unit"], each.metadata["doc"])
            style = ' style="font-weight: bold"' if value != default_of(each) else ""
            rows.append(
                f"<tr{style}>" + "".join(f'<td style="text-align: left">{as_html(cell)}</td>' for cell in cells) + "</tr>"
            )
        return f"<details><summary>{as_html(repr(self))}</summary><table>{''.join(rows)}</table></details>"


class Explained(str):
    """Text that shows itself instead of its repr."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def check_known(name: str, value: Any) -> None:
    """Raise ``ConfigError`` for what is no setting, with what was probably meant."""
    known = [each.name for each in settings_of(Config)]
    if name not in known:
        meant = meant_by(str(name), known)
        hint = f"did you mean {meant if '(' in meant else repr(meant)}?" if meant else "Config().explain() lists those there are"
        raise ConfigError(f"no setting {name!r}; {hint}", setting=name, value=value)


def _refusing_unknown(make: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(make)
    def __init__(self: Config, **settings: Any) -> None:  # noqa: N807
        for name in settings.keys() - _FIELDS:
            check_known(name, settings[name])
        make(self, **settings)

    return __init__


_FIELDS = frozenset(each.name for each in fields(Config))
Config.__init__ = door(_refusing_unknown(Config.__init__))  # type: ignore[method-assign]
