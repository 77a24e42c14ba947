"""Functions by value, with the names of the files they stand in: tracebacks, profiles and debuggers point at lines of them.

Runs wherever something is pickled. Since 3.1.3 cloudpickle puts ``<dynamic-code>`` in their place, so that equal functions of different
notebooks have equal pickles.
"""

from __future__ import annotations

import io
import pickle
from collections import ChainMap
from types import CodeType
from typing import Any, ClassVar, Final

import cloudpickle

_DYNAMIC: Final = "<dynamic-code>"


#: how cloudpickle takes each type apart
_KNOWN: Any = cloudpickle.Pickler.dispatch_table


def _reduced(code: CodeType) -> tuple[Any, ...]:
    make, arguments = _KNOWN[CodeType](code)
    # A text of its own each time: one that is shared would be pickled once, or twice, as chance has it.
    return make, tuple("".join(code.co_filename) if each == _DYNAMIC else each for each in arguments)


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """As cloudpickle's."""

    dispatch_table: ClassVar = ChainMap({CodeType: _reduced}, _KNOWN)


def dumps(value: Any, protocol: int = pickle.HIGHEST_PROTOCOL) -> bytes:
    """As ``cloudpickle.dumps``.

    >>> pickle.loads(dumps(lambda: 1)).__code__.co_filename == (lambda: 1).__code__.co_filename
    True
    """
    with io.BytesIO() as file:
        Pickler(file, protocol=protocol).dump(value)
        return file.getvalue()
