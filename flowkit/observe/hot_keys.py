"""Says in the log, once a stage, that one key has a large part of the rows which it shuffles.

Runs in the driver, on the thread of its listener queue. The other hints wait until somebody asks (``rdd.hints()``, the panel): this one
is worth a line in the log of a job that nobody watches, for such a job may take hours more than it should, or not end at all.
"""

from __future__ import annotations

import logging

from flowkit.logs import logger_of
from flowkit.model.events import Event, StageCompleted
from flowkit.observe.hints import SKEWED_KEY, hints_for
from flowkit.observe.status import StatusStore, facts_of

logger = logger_of(__name__)

#: stages that were warned of are remembered, up to so many
_MOST = 1_000


class HotKeyWarnings:
    """A listener; in the queue of the status that it reads, behind it.

    Parameters
    ----------
    status
        What it reads.
    level
        Of the lines in the log: those below ``WARNING`` are seen only where somebody configured logging.
    """

    def __init__(self, status: StatusStore, level: int = logging.WARNING) -> None:
        self._status = status
        self._level = level
        self._told: dict[str, None] = {}

    def on_event(self, event: Event) -> None:
        """A stage is over: look at what it shuffled."""
        if not isinstance(event, StageCompleted) or event.failure or event.name in self._told:
            return
        stage = self._status.last_attempt(event.stage)
        if stage is None:
            return
        for hint in hints_for(facts_of(stage, 0)):
            if hint.kind == SKEWED_KEY and len(self._told) < _MOST:
                self._told[event.name] = None
                logger.log(self._level, "%s: %s", hint.text, hint.change)
