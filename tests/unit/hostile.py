"""What users' code may raise, and objects that raise when they are looked at; for tests of every thread where such code is entered."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, NoReturn


def unless_armed(name: str) -> Callable[..., Any]:
    """A method that raises, as long as a test runs: pytest, which tells of one that fails, looks at everything."""

    def method(self: Any, *args: object) -> Any:
        if Hostile.is_armed:
            raise SystemExit(4)
        found = vars(BaseException).get(name) or vars(object)[name]
        return found.__get__(self)(*args) if callable(found) else found.__get__(self)

    return method


class Hostile(Exception):
    """An exception of which nothing can be looked at."""

    is_armed = False

    __repr__, __str__, __reduce__, __eq__, __hash__ = map(
        unless_armed, ("__repr__", "__str__", "__reduce__", "__eq__", "__hash__")
    )
    __cause__, __context__, __traceback__, __dict__, __class__ = (
        property(unless_armed(name)) for name in ("__cause__", "__context__", "__traceback__", "__dict__", "__class__")
    )

    @property
    def __notes__(self) -> list[str]:
        if Hostile.is_armed:
            raise SystemExit(4)
        return []


@contextmanager
def arm():
    """Let hostile exceptions be hostile in a block."""
    Hostile.is_armed = True
    try:
        yield
    finally:
        Hostile.is_armed = False


#: what users' code raises
RAISED: dict[str, Callable[[], BaseException]] = {
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "MemoryError": MemoryError,
    "RecursionError": RecursionError,
    "an exception whose repr raises": Hostile,
}


def raise_(kind: str) -> NoReturn:
    """Raise it."""
    if multiprocessing.parent_process() is not None:  # an executor's, where nobody shows objects but flowkit
        Hostile.is_armed = True
    raise RAISED[kind]()  # noqa: RSE102 - a function that makes it


class Leave:
    """What users' code does: it raises."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, *_: object, **__: object) -> Any:
        raise_(self.kind)


class Looked:
    """An object of the user's that raises when it is looked at, or pickled."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def _raise(self, *_: object) -> Any:
        raise_(self.kind)

    __repr__ = __str__ = __reduce__ = _raise


class Travels:
    """Can be pickled, and raises when it is unpickled."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __reduce__(self) -> Any:
        return raise_, (self.kind,)
