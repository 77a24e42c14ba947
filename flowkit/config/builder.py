"""Makes a ``Config`` step by step. Pure, but for the files it is told to read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flowkit.config.config import Config, check_known
from flowkit.tracebacks import trims_own_frames


@trims_own_frames
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
            check_known(name, value)
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
