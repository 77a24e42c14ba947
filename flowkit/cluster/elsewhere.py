"""Objects that come to be in the process that unpickles them, so that this one need not import what they are made of.

Runs in drivers; what is pickled names a class by its path and its arguments.
"""

from __future__ import annotations

import pickle
import pkgutil
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin

from flowkit.lineage import pickling


class _Named:
    """A callable of another process, by its path ``package.module:Name``."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self, *arguments: Any) -> Any:
        return pkgutil.resolve_name(self._path)(*arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return pkgutil.resolve_name, (self._path,)


class Elsewhere:
    """Unpickles as ``path(*arguments)``.

    >>> pickle.loads(pickle.dumps(Elsewhere("fractions:Fraction", 1, 2)))
    Fraction(1, 2)
    """

    def __init__(self, path: str, *arguments: Any) -> None:
        self._path = path
        self._arguments = arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return _Named(self._path), self._arguments


class SchedulerPluginElsewhere(SchedulerPlugin, Elsewhere):
    """The same, of a kind ``Client.register_plugin`` takes."""

    idempotent = True

    def __init__(self, name: str, path: str, *arguments: Any) -> None:
        Elsewhere.__init__(self, path, *arguments)
        self.name = name


def pickled_elsewhere(path: str, *arguments: Any) -> bytes:
    """``Elsewhere`` as bytes; classes of the driver's script, or of a notebook, travel by value."""
    return bytes(pickling.dumps(Elsewhere(path, *arguments), protocol=pickle.HIGHEST_PROTOCOL))
