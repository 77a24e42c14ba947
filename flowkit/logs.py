"""Loggers whose records are text for people: users' names and messages in them are made visible. Runs everywhere.

Each module has one by its own name below ``flowkit``, with a filter of its own: those of loggers above it are not asked.
"""

from __future__ import annotations

import logging
from typing import Final

from flowkit.visible import visible


class _Visible(logging.Filter):
    """Rewrites records before any handler has them."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            record.msg, record.args = visible(record.getMessage()), None
            if record.exc_info and not record.exc_text:
                # A formatter takes what is there already.
                record.exc_text = visible(_FORMATTER.formatException(record.exc_info))
        except BaseException as error:  # a user's object that cannot be shown must not end the thread that tells of it
            record.msg, record.args = f"{record.msg} (cannot be shown: {type(error).__name__})", None
            record.exc_info = None
        return True


_FORMATTER: Final = logging.Formatter()
_VISIBLE: Final = _Visible()


def logger_of(name: str) -> logging.Logger:
    r"""The logger of a module, by its name.

    >>> logger_of("flowkit.example") is logging.getLogger("flowkit.example")
    True
    """
    found = logging.getLogger(name)
    found.addFilter(_VISIBLE)  # the same one again is not added again
    return found
