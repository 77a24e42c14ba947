"""Dask's log shows errors only while this process has clusters of its own. Runs in the driver; any thread.

Dask's own clusters each put back the level that they found: of two that overlap, the first to close makes the other one talk.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

_LOGGERS: Final = ("distributed", "bokeh")
_lock = threading.Lock()
_clusters = 0
_levels: list[tuple[logging.Handler, int]] = []


def quieten() -> None:
    """One more cluster: the first one raises the level of Dask's handlers."""
    global _clusters
    with _lock:
        _clusters += 1
        if _clusters > 1:
            return
        for name in _LOGGERS:
            for handler in logging.getLogger(name).handlers:
                if isinstance(handler, logging.StreamHandler) and handler.level < logging.ERROR:
                    _levels.append((handler, handler.level))
                    handler.setLevel(logging.ERROR)


def restore() -> None:
    """One cluster less: the last one puts the levels back."""
    global _clusters
    with _lock:
        _clusters -= 1
        if _clusters:
            return
        for handler, level in _levels:
            handler.setLevel(level)
        _levels.clear()
