"""What arguments of policies may be. Pure."""

from __future__ import annotations

from math import inf

from flowkit.errors import ConfigError


def check_seconds(name: str, value: object, *, none: bool = False) -> None:
    """Raise ``ConfigError`` unless it is a number above 0; with ``none`` 0 will do, and what has no end will not."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and (0 <= value < inf if none else value > 0)
    if not fits:
        allowed = "a finite number of seconds, 0 or more" if none else "a number of seconds above 0"
        raise ConfigError(f"{name} = {value!r}: must be {allowed}", setting=name, value=value)
