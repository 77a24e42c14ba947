"""Every setting once: name, type, unit, default, reason, check. A ``Config`` is immutable, validated when built, and knows where each value is from.

Runs everywhere; holds no component, only their names or objects handed in by the user. What is said later wins: defaults, a preset,
Dask's configuration, a TOML file, the environment, arguments.
"""

from __future__ import annotations

import difflib
import json
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from html import escape
from pathlib import Path
from typing import Any

from flowkit.errors import ConfigError

ENVIRONMENT_PREFIX = "FLOWKIT_"
MOST_ADDRESSES = 10_000
"""Of one named resource of an executor: each is a text that travels and is looked through."""

POOL_FIELDS = ("weight", "min_share", "parent", "guarantee", "maximum")
"""What a pool may be described by; see ``scheduling.policies.pools``."""


def _positive(value: float) -> str | None:
    return None if value > 0 else "must be above 0"


def _not_negative(value: float) -> str | None:
    return None if value >= 0 else "must be 0 or more"


def _at_least_one(value: float) -> str | None:
    return None if 1 <= value < math.inf else "must be 1 or more"


def _fraction(value: float) -> str | None:
    return None if 0 < value <= 1 else "must be above 0 and at most 1"


def _pool(told: Any) -> str | None:
    """What is wrong under whatever policy; what one makes of it is checked when it is made."""
    if isinstance(told, Mapping):
        unknown = [str(name) for name in told if name not in POOL_FIELDS]
        return f"has no {', '.join(unknown)}; known: {', '.join(POOL_FIELDS)}" if unknown else None
    if isinstance(told, int | float) and not isinstance(told, bool):
        return None if math.isfinite(told) else "must be a finite number"
    if all(hasattr(told, name) for name in POOL_FIELDS):
        return None
    return f"must be a number, or a mapping of {', '.join(POOL_FIELDS)}"


def _resource(told: Any) -> str | None:
    """What can be seen to be wrong here; what a function or a script finds is known where executors run."""
    if callable(told):
        return None
    if isinstance(told, str):
        return None if told.strip() and not told.strip().isdigit() else "a text must be the path of a script"
    if isinstance(told, int) and not isinstance(told, bool):
        return None if 0 <= told <= MOST_ADDRESSES else f"must be a whole number from 0 to {MOST_ADDRESSES:,}"
    if not isinstance(told, Sequence) or isinstance(told, bytes | bytearray):
        return "must be a whole number, a list of addresses, a function that returns it, or the path of a script"
    if len(told) > MOST_ADDRESSES:
        return f"has {len(told):,} addresses: must be {MOST_ADDRESSES:,} at most"
    if not all(isinstance(each, str | int) and not isinstance(each, bool) and str(each).strip() for each in told):
        return "addresses must be texts or numbers"
    return None if len(set(map(str, told))) == len(told) else "addresses must differ"


def _one_of(*allowed: str) -> Callable[[str], str | None]:
    return lambda value: None if value in allowed else f"must be one of {', '.join(allowed)}"


def _setting(
    default: Any,
    doc: str,
    check: Callable[[Any], str | None] | None = None,
    *,
    unit: str = "",
    method: str = "",
    switch: str = "",
    mapping: bool = False,
    plain: bool = False,
) -> Any:
    """A field. With ``method`` its value is a name, or an object that has the method, and with ``switch`` True stands for that name, False
    for ``off``; with ``mapping`` it is such, or stores, by name; with ``plain`` as well, numbers and mappings by name.
    """
    metadata = {
        "doc": doc,
        "check": check,
        "unit": unit,
        "since": "0.1",
        "method": method,
        "switch": switch,
        "mapping": mapping,
        "plain": plain,
    }
    return field(default_factory=dict, hash=False, metadata=metadata) if mapping else field(default=default, metadata=metadata)


def _default_of(setting: Field[Any]) -> Any:
    return {} if setting.metadata["mapping"] else setting.default


def settings_of(config: type[Config] | Config) -> tuple[Field[Any], ...]:
    """The fields that are settings, in their order."""
    return tuple(each for each in fields(config) if "doc" in each.metadata)


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
    scheduling_policy: Any = _setting(  # noqa: RUF009 - as the others: a field
        "fifo",
        "Order in which jobs get slots; `fifo`: in that of their submission; `fair`: `pools` share the cluster by weight; `capacity`: pools have "
        "guaranteed parts of it; `priority`: by `fc.job(priority=)`; other names: entry points of the group "
        "`flowkit.scheduling_policies` where the scheduler runs; or an object with `order(candidates)`, which is pickled and runs there.",
        method="order",
    )

    pools: Any = _setting(  # noqa: RUF009 - as the others: a field
        {},
        "Pools of the policies `fair` and `capacity`, by name: a weight (or a guarantee), or a mapping of `weight`, `min_share`, `parent`, "
        "`guarantee` and `maximum`; see `fc.pool`.",
        _pool,
        mapping=True,
        plain=True,
    )

    placement: Any = _setting(  # noqa: RUF009 - as the others: a field
        "delay",
        "Where tasks run; `delay`: near what they read, if a slot comes free there within `locality_wait_s`; other names: entry points of the "
        "group `flowkit.placement_policies` where the scheduler runs; or an object with `prefer(stage, partition, near)`, which is pickled "
        "and runs there.",
        method="prefer",
    )
    topology: Any = _setting(  # noqa: RUF009 - as the others: a field
        "none",
        "Which hosts are near one another: `none`, an entry point of the group `flowkit.topologies` where the scheduler runs, or a function that "
        "takes the names of a host and returns that of its rack, which is pickled and runs there.",
        method="__call__",
    )
    resources: Any = _setting(  # noqa: RUF009 - as the others: a field
        {},
        "Named resources of each executor, beside those its Dask worker was started with: how many, a list of addresses, a function that "
        'returns it, or a script that prints `{"name": ..., "addresses": [...]}`; see `rdd.with_resources`.',
        _resource,
        mapping=True,
        plain=True,
    )
    allocation: Any = _setting(  # noqa: RUF009 - as the others: a field
        "off",
        "How many executors there are: `off`: as many as the cluster has; `backlog`: more while tasks wait, fewer when some are idle for "
        "`executor_idle_s`; `stable`: for streams, what the last ten minutes needed, changed once a minute at most; other names: entry points "
        "of the group `flowkit.allocation_policies` where the scheduler runs; or an object with `look(demand)`, which is pickled and runs there.",
        method="look",
    )
    min_executors: int = _setting(1, "Executors there are at least, with an `allocation`.", _positive)
    max_executors: int = _setting(
        0, "Executors there are at most, with an `allocation`; 0: no limit, on an embedded cluster one per core.", _not_negative
    )
    initial_executors: int = _setting(0, "Executors to begin with, with an `allocation`; 0: `min_executors`.", _not_negative)
    executor_idle_s: float = _setting(
        60.0, "How long an executor without tasks and cached partitions stays, with `allocation = backlog`.", _positive, unit="s"
    )

    speculation: Any = _setting(  # noqa: RUF009 - as the others: a field
        "off",
        "Which tasks are tried on another executor as well, the first to end well counts; `off`: none; `median` (or True): those that take "
        "several times as long as the median of their fellows; other names: entry points of the group `flowkit.speculation_policies` where the "
        "scheduler runs; or an object with `slow_after(progress)`, which is pickled and runs there.",
        method="slow_after",
        switch="median",
    )
    speculation_quantile: float = _setting(
        0.9, "Part of a stage's tasks that are over before others are taken for slow.", _fraction
    )
    speculation_multiplier: float = _setting(3.0, "How many times the median a slow task takes.", _at_least_one)
    speculation_min_s: float = _setting(0.1, "How long a slow task takes at least.", _positive, unit="s")

    exclude_failing: Any = _setting(  # noqa: RUF009 - as the others: a field
        "off",
        "Which executors are kept from tasks after failures there; `off`: none; `counts` (or True): those on which several tasks failed, from "
        "the stage, then from the application for a while; other names: entry points of the group `flowkit.health_policies` where the "
        "scheduler runs; or an object with `judge(failures)`, which is pickled and runs there.",
        method="judge",
        switch="counts",
    )
    exclude_after_failures: int = _setting(
        2,
        "Different tasks of one stage that fail on an executor and exclude it from the stage; twice as many exclude it from the application.",
        _positive,
    )
    exclude_timeout_s: float = _setting(3600.0, "How long an executor stays excluded from an application.", _positive, unit="s")
    exclude_wait_s: float = _setting(
        120.0, "How long a stage that has only excluded executors waits for others before its jobs fail.", _positive, unit="s"
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
    min_partition_bytes: int = _setting(
        128 << 10,
        "What is read from files is not cut smaller, and small files are packed, unless a number is asked for.",
        _positive,
        unit="bytes",
    )
    max_partition_bytes: int = _setting(
        64 << 20,
        "Partitions of what is read from files are not larger, except for a file that cannot be split.",
        _positive,
        unit="bytes",
    )
    max_disk_bytes: int = _setting(0, "An application's files on one host at most; 0 is no limit.", _not_negative, unit="bytes")

    # -- memory
    memory_fraction: float = _setting(
        0.6, "Part of an executor's free memory at start that tasks may use before they spill.", _fraction
    )

    operator_memory_bytes: int = _setting(
        0,
        "Memory that one operation of a task (a table, a sort, the buffers of a shuffle) may hold before it spills, so that it leaves "
        "others of the task theirs; 0: all the task is granted.",
        _not_negative,
        unit="bytes",
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

    memory_manager: Any = _setting(  # noqa: RUF009 - as the others: a field
        "unified",
        "Who may hold how much of an executor's memory: `unified` (tasks and cache borrow from one another), `on_demand` (first come, first "
        "served), an entry point of the group `flowkit.memory_managers` where executors run; or an object with `pool(total_bytes)`, as "
        "`QuotaMemory({...})`.",
        method="pool",
    )

    # -- shuffle and files
    shuffle_codec: str = _setting("none", "Compression of shuffle files.", _one_of("none", "lz4", "zstd"))
    coalesce_bytes: int = _setting(
        1 << 20,
        "Partitions behind a shuffle that follow one another and read at most so much together are computed by one task, as long as four "
        "tasks a slot are left; 0: each has a task of its own. Partitions and results are the same either way, and what `repartition` and "
        "`partition_by` made is left as it is.",
        _not_negative,
        unit="bytes",
    )
    split_bytes: int = _setting(
        16 << 20,
        "A partition of a join whose streamed side has more than twice as much, and more than four times what others have, is joined by several "
        "tasks, each of which reads about so much of it; 0: by one. Rows and their order are the same either way.",
        _not_negative,
        unit="bytes",
    )
    fetch_in_flight_bytes: int = _setting(48 << 20, "Remote shuffle bytes a task asks for at once.", _positive, unit="bytes")
    local_directory: str = _setting(
        "", "Where executors keep files; empty: a directory of flowkit's own in the system's temporary one."
    )
    object_stores: Any = _setting(  # noqa: RUF009 - as the others: a field
        {},
        "By scheme of an address, the store it names: a `pyarrow.fs.FileSystem`, an `fsspec` file system, or a function without arguments that "
        "makes one where it is needed. Built in: `file`, `s3`, `gs`, `abfs`, `http`, `memory`.",
        mapping=True,
    )
    serializers: Any = _setting(  # noqa: RUF009 - as the others: a field
        {},
        "By names of your choice, how rows of some types become bytes in shuffles, spills and cached partitions, the first that accepts "
        "them: objects with `accepts(kinds)`, `dumps(values)` and `loads(data)`; or `msgpack`, `arrow`, `pickle`, `cloudpickle`, or an entry "
        "point of the group `flowkit.serializers` where executors run. What none accepts has the form that is fastest for its types.",
        method="dumps",
        mapping=True,
    )
    default_parallelism: int = _setting(0, "Partitions where none are given; 0: the cluster's slots.", _not_negative)

    checkpoint_directory: str = _setting(
        "", "Where `rdd.checkpoint()` writes when it is not told: a directory that driver and executors share, or an address."
    )

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

    #: by setting, where its value is from; what is not there has its default
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for each in settings_of(self):
            value = getattr(self, each.name)
            if each.metadata["switch"] and (isinstance(value, bool) or str(value).lower() in {"true", "false"}):
                value = each.metadata["switch"] if str(value).lower() == "true" else "off"
                object.__setattr__(self, each.name, value)
            if each.metadata["method"] and not each.metadata["mapping"]:
                _check_component(each, value)
                continue
            if each.metadata["mapping"]:
                _check_by_name(each, value)
                if any(_named(each, name) != name for name in value):
                    object.__setattr__(self, each.name, {_named(each, name): told for name, told in value.items()})
                continue
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
            _check_known(name, value)
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
                found = found.updated({each.name: _parse(each, name, environment[name])}, name)
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
            changed = value != _default_of(each)
            rows.append(
                (not changed, each.name, _shown(each, value), self.origins.get(each.name, "given") if changed else "default")
            )
        rows.sort(key=lambda row: row[0])
        return Explained("\n".join(f"{name:<25} {value:<12} {origin}" for _, name, value, origin in rows))

    def __repr__(self) -> str:
        changed = (
            f"{each.name}={_shown(each, getattr(self, each.name))}"
            for each in settings_of(self)
            if getattr(self, each.name) != _default_of(each)
        )
        return f"Config({', '.join(changed)})"

    def _repr_html_(self) -> str:
        rows = []
        for each in settings_of(self):
            value = getattr(self, each.name)
            cells = (each.name, _shown(each, value), each.metadata["unit"], each.metadata["doc"])
            style = ' style="font-weight: bold"' if value != _default_of(each) else ""
            rows.append(f"<tr{style}>" + "".join(f'<td style="text-align: left">{escape(cell)}</td>' for cell in cells) + "</tr>")
        return f"<details><summary>{escape(repr(self))}</summary><table>{''.join(rows)}</table></details>"


class Explained(str):
    """Text that shows itself instead of its repr."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class ConfigBuilder:
    """Makes a ``Config``; each step returns the builder, and ``build`` checks what they say together.

    >>> Config.builder().with_settings(heartbeat_s=20.0).build()
    Traceback (most recent call last):
        ...
    flowkit.errors.ConfigError: executor_timeout_s = 15.0: must be above heartbeat_s = 20.0
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._changes: list[Callable[[Config], Config]] = []
        self._settings: dict[str, Any] = {}

    def with_settings(self, **settings: Any) -> ConfigBuilder:
        """Single settings. Unknown ones are refused at once."""
        for name, value in settings.items():
            _check_known(name, value)
        self._settings.update(settings)
        return self

    def with_preset(self, name: str) -> ConfigBuilder:
        """Begin with a preset; what the other steps say wins."""
        self._config = Config.preset(name)
        return self

    def with_memory_manager(self, manager: Any) -> ConfigBuilder:
        """Who may hold how much of an executor's memory: a name, or an object as ``abc.MemoryManager`` has it."""
        return self.with_settings(memory_manager=manager)

    def with_scheduling_policy(self, policy: Any) -> ConfigBuilder:
        """The order in which jobs get slots: a name, or an object as ``abc.SchedulingPolicy`` has it."""
        return self.with_settings(scheduling_policy=policy)

    def with_allocation(self, policy: Any) -> ConfigBuilder:
        """How many executors there are: a name, or an object as ``abc.AllocationPolicy`` has it."""
        return self.with_settings(allocation=policy)

    def with_placement(self, policy: Any) -> ConfigBuilder:
        """Where tasks run: a name, or an object as ``abc.PlacementPolicy`` has it."""
        return self.with_settings(placement=policy)

    def with_speculation(self, policy: Any = True) -> ConfigBuilder:
        """Which slow tasks are tried elsewhere as well: a name, or an object as ``abc.SpeculationPolicy`` has it."""
        return self.with_settings(speculation=policy)

    def with_health_policy(self, policy: Any = True) -> ConfigBuilder:
        """Which executors are kept from tasks after failures there: a name, or an object as ``abc.HealthPolicy`` has it."""
        return self.with_settings(exclude_failing=policy)

    def with_serializer(self, name: str, serializer: Any = None) -> ConfigBuilder:
        """One more way in which rows of some types become bytes: an object as ``abc.Serializer`` has it; None: the one of this name."""
        known = self._settings.get("serializers", {})
        return self.with_settings(serializers={**known, name: name if serializer is None else serializer})

    def with_object_store(self, scheme: str, store: Any) -> ConfigBuilder:
        """The store that addresses of a scheme name; see ``Config.object_stores``."""
        known = self._settings.get("object_stores", {})
        return self.with_settings(object_stores={**known, scheme: store})

    def with_toml(self, path: str | Path) -> ConfigBuilder:
        """What a TOML file says, where no other step says it."""
        self._changes.append(lambda config: config.with_toml(path))
        return self

    def with_environment(self, environment: Mapping[str, str]) -> ConfigBuilder:
        """What ``FLOWKIT_*`` variables say, where no other step but a file says it."""
        self._changes.append(lambda config: config.with_environment(environment))
        return self

    def build(self) -> Config:
        """The ``Config``; raises ``errors.ConfigError`` for what contradicts."""
        config = self._config
        for change in self._changes:
            config = change(config)
        return config.updated(self._settings, "given")


#: by preset and setting: the value, and why
PRESETS: Mapping[str, Mapping[str, tuple[Any, str]]] = {
    "local": {
        "memory_manager": ("on_demand", "few tasks at a time: shares would leave memory unused"),
        "locality_wait_s": (0.0, "everything is on this host"),
    },
    "production": {
        "shuffle_codec": ("lz4", "between hosts bytes cost more than compressing them"),
        "block_codec": ("lz4", "as above, for disks"),
        "executor_timeout_s": (60.0, "a busy network must not look like a death"),
        "no_executor_timeout_s": (600.0, "a cluster that scales takes minutes"),
        "lease_s": (300.0, "a driver may be away for a while"),
        "progress": ("off", "nobody looks"),
    },
    "low_memory": {
        "memory_fraction": (0.4, "leaves more to what nobody accounts for"),
        "memory_manager": ("on_demand", "a task that runs alone may have it all"),
        "fetch_in_flight_bytes": (8 << 20, "of 48 MB"),
        "shuffle_codec": ("lz4", "smaller files stay in the system's cache"),
        "block_codec": ("lz4", "as above"),
    },
    "streaming": {
        "locality_wait_s": (0.0, "a batch is over before waiting pays"),
        "launch_ahead_s": (0.005, "late tasks are rebalanced sooner"),
        "progress": ("off", "a batch a second is no news"),
    },
}


def _check_known(name: str, value: Any) -> None:
    known = [each.name for each in settings_of(Config)]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise ConfigError(f"no setting {name!r}; {hint}", setting=name, value=value)


def _shown(setting: Field[Any], value: Any) -> str:
    # What a store connects with is nobody's business.
    hidden = setting.metadata["mapping"] and not setting.metadata["plain"]
    return f"{{{', '.join(sorted(value))}}}" if hidden else repr(value)


def _named(setting: Field[Any], name: str) -> str:
    """Names of resources are those that Dask's workers and ``with_resources`` have: in lower case."""
    return name.lower() if setting.name == "resources" else name


def _check_by_name(setting: Field[Any], value: Any) -> None:
    if setting.metadata["plain"]:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) and name for name in value):
            raise ConfigError(
                f"{setting.name} = {value!r}: must be a mapping of names, as {{'adhoc': 2}}", setting=setting.name, value=value
            )
        if len({_named(setting, name) for name in value}) < len(value):
            raise ConfigError(f"{setting.name} = {value!r}: names differ by case alone", setting=setting.name, value=value)
        for name, each in value.items():
            if (complaint := setting.metadata["check"](each)) is not None:
                raise ConfigError(f"{setting.name}[{name!r}] = {each!r}: {complaint}", setting=setting.name, value=each)
        return
    if setting.metadata["method"]:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) and 0 < len(name) < 100 for name in value):
            raise ConfigError(
                f"{setting.name} = {value!r}: must be a mapping of names, as {{'msgpack': 'msgpack'}}",
                setting=setting.name,
                value=value,
            )
        for each in value.values():
            _check_component(setting, each)
        return
    if not isinstance(value, Mapping) or not all(isinstance(name, str) and name.isidentifier() for name in value):
        raise ConfigError(f"{setting.name}: must be a mapping of schemes, as {{'s3': store}}", setting=setting.name, value=None)
    for scheme, store in value.items():
        if scheme != scheme.lower() or scheme == "file" or store is None or isinstance(store, str):
            raise ConfigError(
                f"{setting.name}: {scheme!r} names a {type(store).__name__}: must be lower case, not file, and name a file system or a "
                "function that makes one",
                setting=setting.name,
                value=None,
            )


def _check_component(setting: Field[Any], value: Any) -> None:
    method = setting.metadata["method"]
    if isinstance(value, str):
        if value:
            return
    elif callable(getattr(value, method, None)) and not isinstance(value, type):
        return
    raise ConfigError(
        f"{setting.name} = {value!r}: must be a name, or an object with a method {method}(...)", setting=setting.name, value=value
    )


def _parse(setting: Field[Any], name: str, text: str) -> Any:
    if setting.metadata["plain"]:
        return _parse_json(name, text)
    if setting.metadata["mapping"]:
        raise ConfigError(
            f"{name}: {setting.name} holds objects, which cannot be given as text; say it in the program, as Context({setting.name}=...)",
            setting=setting.name,
            value=None,
        )
    kind: type = type(_default_of(setting))
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


def _parse_json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(
            f'{name} = {text!r}: must be a mapping as JSON, such as {{"a": 2}}: {error}', setting=name, value=text
        ) from None
