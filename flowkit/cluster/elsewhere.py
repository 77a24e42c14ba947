"""Objects that come to be in the process that unpickles them, so that this one need not import what they are made of.

Runs in drivers; what is pickled names a class by its path and its arguments.
"""

from __future__ import annotations

import pickle
import pkgutil
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin

from flowkit.errors import ConfigError
from flowkit.lineage import pickling
from flowkit.model.shown import in_words


def made(path: str, arguments: bytes) -> Any:
    """``path(*arguments)``, where Dask unpickles it: on an event loop.

    Raises
    ------
    errors.ConfigError
        An argument of the user's raised something that is no ``Exception`` when it was unpickled, which would have ended the event loop.
    """
    make = pkgutil.resolve_name(path)
    try:
        return make(*pickle.loads(arguments))
    except Exception:
        raise
    except BaseException as error:
        said = in_words(error)
    raise ConfigError(f"an object of the configuration cannot be unpickled for {path}: {said}")


class Elsewhere:
    """Unpickles as ``path(*arguments)``.

    >>> pickle.loads(pickle.dumps(Elsewhere("fractions:Fraction", 1, 2)))
    Fraction(1, 2)
    """

    def __init__(self, path: str, *arguments: Any) -> None:
        self._path = path
        self._arguments = arguments

    def __reduce__(self) -> tuple[Any, ...]:
        # The arguments apart: what they raise is met where ``made`` is, not in Dask.
        return made, (self._path, bytes(pickling.dumps(self._arguments, protocol=pickle.HIGHEST_PROTOCOL)))


class SchedulerPluginElsewhere(SchedulerPlugin, Elsewhere):
    """The same, of a kind ``Client.register_plugin`` takes."""

    idempotent = True

    def __init__(self, name: str, path: str, *arguments: Any) -> None:
        Elsewhere.__init__(self, path, *arguments)
        self.name = name


def pickled_elsewhere(path: str, *arguments: Any) -> bytes:
    """``Elsewhere`` as bytes; classes of the driver's script, or of a notebook, travel by value."""
    return bytes(pickling.dumps(Elsewhere(path, *arguments), protocol=pickle.HIGHEST_PROTOCOL))
