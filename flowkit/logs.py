"""Loggers that raise nothing: what users' objects, handlers and filters do when a line is written costs that line, and not who wrote it.

Texts of users' in a line are made visible. Runs everywhere. flowkit's own threads and event loops end a caught exception with a line in the log. A listener whose ``repr`` raises
``SystemExit``, a handler or a filter of the user's, an exception whose notes cannot be read: with Python's loggers each of these would leave by
that line, and end the thread. Only Ctrl-C in the main thread leaves.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final

from flowkit.model.shown import class_name, cut, in_words, short, text_of
from flowkit.tracebacks import as_text, traceback_of
from flowkit.visible import visible

#: of one argument of a line, and of a traceback
_MOST_CHARACTERS: Final = 8 << 10
_MOST_OF_A_TRACEBACK: Final = 64 << 10

_Raised = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def is_ctrl_c(error: BaseException) -> bool:
    """Whether it may be the user's Ctrl-C, which only ever reaches the main thread: everywhere else somebody's code raised it."""
    return issubclass(type(error), KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


def logger_of(name: str) -> logging.Logger:
    """``logging.getLogger(name)``, as one that raises nothing.

    >>> class Hostile:
    ...     def __repr__(self):
    ...         raise SystemExit(3)
    >>> logger_of("flowkit.example").warning("%r came too late", Hostile())
    """
    found = logging.getLogger(name)
    if not isinstance(found, _Contained):
        # The very object that everybody else finds by this name, whatever class ``logging.setLoggerClass`` asked for.
        found.__class__ = type("Logger", (_Contained, type(found)), {})
        found.addFilter(_VISIBLE)
    return found


class _Contained(logging.Logger):
    def _log(
        self,
        level: int,
        msg: object,
        args: Any,
        exc_info: Any = None,
        extra: Mapping[str, object] | None = None,
        stack_info: bool = False,
        stacklevel: int = 1,
    ) -> None:
        try:
            shown = tuple(map(_shown, args))
            super()._log(level, msg, shown, _printable(exc_info), extra, stack_info, stacklevel + 1)
        except BaseException as error:
            if is_ctrl_c(error):
                raise
            _say_on_stderr(
                f"{self.name}: {msg} {args and tuple(map(short, args))}: this line could not be logged: {in_words(error)}"
            )


class _Visible(logging.Filter):
    """Rewrites records before any handler has them: users' texts in them neither steer a terminal nor forge a line."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = visible(record.getMessage()), None
        if record.exc_info and not record.exc_text:
            # A formatter takes what is there already.
            record.exc_text = visible(_FORMATTER.formatException(record.exc_info))
        return True


_FORMATTER: Final = logging.Formatter()
_VISIBLE: Final = _Visible()


class _Shown:
    """A user's object as an argument of a line."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __str__(self) -> str:
        return cut(text_of(self._value), _MOST_CHARACTERS)

    def __repr__(self) -> str:
        return short(self._value, _MOST_CHARACTERS)


def _shown(value: Any) -> Any:
    if type(value) is str:
        return cut(value, _MOST_OF_A_TRACEBACK)
    return value if issubclass(type(value), int | float) else _Shown(value)


class _Unprintable(Exception):
    """Stands for an exception that cannot be printed, or only at great length."""


def _printable(told: Any) -> _Raised | None:
    """What ``exc_info`` names, as something that can be printed."""
    if told is None or told is False:
        return None
    raised: _Raised
    if issubclass(type(told), BaseException):
        raised = type(told), told, traceback_of(told)
    else:
        raised = told if type(told) is tuple else sys.exc_info()
    error = raised[1]
    if error is None:
        return raised
    text = as_text(error)
    # Printed once more by the handler. One that fails at it, or is huge, goes as text.
    if len(text) <= _MOST_OF_A_TRACEBACK and not text.endswith("(what it says cannot be shown)"):
        return raised
    substitute = _Unprintable(f"{class_name(error)}:\n{cut(text, _MOST_OF_A_TRACEBACK)}")
    return _Unprintable, substitute, None


def _say_on_stderr(line: str) -> None:
    try:
        if logging.raiseExceptions and sys.stderr is not None:
            sys.stderr.write(cut(line, _MOST_OF_A_TRACEBACK) + "\n")
    except BaseException as error:
        if is_ctrl_c(error):
            raise
