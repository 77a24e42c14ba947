"""What the first driver of a cluster settled for all that come after it, and where another one asked for something else.

Runs in drivers; pure. Scheduler and executors are configured once, by whoever installs flowkit there; what they have travels as texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowkit.config import Config, settings_of


def settled(config: Config) -> dict[str, str]:
    """The settings that hold for all drivers of a cluster, as texts.

    >>> settled(Config(scheduling_policy="fair", progress="off"))["scheduling_policy"]
    "'fair'"
    """
    return {each.name: _text(getattr(config, each.name)) for each in settings_of(config) if each.metadata["scope"] == "cluster"}


def differences(config: Config, there: Mapping[str, str]) -> str:
    """What a driver asked for and does not get, in one line; empty when there is nothing to say. What it left as it is it did not ask for.

    >>> differences(Config(scheduling_policy="fair", max_task_failures=2), settled(Config()))
    "max_task_failures = 2 (it has 4), scheduling_policy = 'fair' (it has 'fifo')"
    """
    defaults = settled(Config())
    return ", ".join(
        f"{name} = {text} (it has {there[name]})"
        for name, text in settled(config).items()
        if text != defaults[name] and name in there and text != there[name]
    )


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name!r}: {_text(each)}' for name, each in sorted(value.items()))}}}"
    kind: Any = type(value)
    if kind.__repr__ is object.__repr__:
        return str(kind.__name__)
    # That of a function tells where in memory it is.
    return str(value.__qualname__) if hasattr(value, "__qualname__") else repr(value)
