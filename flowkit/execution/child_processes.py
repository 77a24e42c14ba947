"""What makes ``multiprocessing`` work inside of tasks: their functions came by value, and go on to child processes by value.

Runs in executors, also in one that is in its driver's process. A child process gets its functions by their names, and under the name of a
function of the driver's script there is another one here, or none. What is found by its name goes by its name, as ever.
"""

from __future__ import annotations

import pickle
import sys
from multiprocessing.reduction import ForkingPickler
from types import FunctionType
from typing import Any

from flowkit.lineage import pickling


def ship_functions_on() -> None:
    """From now on let this process send functions and classes that came by value to its children. Any number of calls are as one."""
    setattr(ForkingPickler, "reducer_override", _by_value_if_need_be)  # noqa: B010 - to type checkers a method is not to be set


def _by_value_if_need_be(_: ForkingPickler, value: Any) -> Any:
    if isinstance(value, FunctionType | type) and not _is_found_by_name(value):
        return _arrived, (pickling.dumps(value),)
    return NotImplemented


def _arrived(data: bytes) -> Any:
    # The results of a child that was spawned may be of such classes.
    ship_functions_on()
    return pickle.loads(data)


def _is_found_by_name(value: Any) -> bool:
    found: Any = sys.modules.get(value.__module__)
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value
