"""flowkit in a Dask nanny: it says how its worker's process ended and what that ran, and looks at one that does not answer.

Runs in the nanny's process.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Mapping
from typing import Any

from distributed import Nanny
from distributed.diagnostics.plugin import NannyPlugin

from flowkit.cluster import dask_internals, slot_record, vital_signs
from flowkit.cluster.machine import host_directory
from flowkit.cluster.wire import EXAMINE, EXIT_TOPIC, LAST_WORDS, PLUGIN_NAME
from flowkit.errors import FlowkitError
from flowkit.logs import logger_of
from flowkit.model.ids import ExecutorId, executor_address

logger = logger_of("flowkit.cluster")

EXITS_KEPT = 8
"""A scheduler asks at once."""


class Exits:
    """How the processes of one nanny ended, for who asks, before or after they do."""

    def __init__(self) -> None:
        self._news: deque[dict[str, Any]] = deque(maxlen=EXITS_KEPT)
        self._more = asyncio.Event()

    def add(self, news: dict[str, Any]) -> None:
        """One ended."""
        self._news.append(news)
        more, self._more = self._more, asyncio.Event()
        more.set()

    async def wait(self, executor: str) -> dict[str, Any]:
        """How the process of an executor ended, once it has. Who asks sets the limit.

        A worker may come back at the address it had: the record that an executor leaves behind tells them apart.
        """
        while True:
            for news in reversed(self._news):
                left: Mapping[str, Any] = news.get("running", {})
                if executor in left or (not left and news["worker"] == executor_address(ExecutorId(executor))):
                    return dict(news)
            await self._more.wait()


class FlowkitNannyPlugin(NannyPlugin):
    """Has nannies say how their workers' processes ended, and how those are that live."""

    name = PLUGIN_NAME
    restart = False

    def __init__(self, local_directory: str | None) -> None:
        self._local_directory = local_directory

    def setup(self, nanny: Nanny) -> None:
        """Begin to."""
        environment = {**os.environ, **dask_internals.nanny_environment(nanny)}
        dask_internals.add_nanny_handler(nanny, EXAMINE, lambda executor: self._look(nanny, environment, executor))
        exits = Exits()
        dask_internals.add_nanny_handler(nanny, LAST_WORDS, exits.wait)
        dask_internals.tell_exits(nanny, EXIT_TOPIC, lambda address: self._last_words(environment, address), exits.add)

    def _look(self, nanny: Nanny, environment: Mapping[str, str], executor: str) -> dict[str, Any]:
        base = host_directory(environment, self._local_directory).base
        return vital_signs.look(dask_internals.worker_pid(nanny), base, ExecutorId(executor))

    def _last_words(self, environment: Mapping[str, str], address: str) -> dict[str, Any]:
        try:
            return {"running": slot_record.collect(host_directory(environment, self._local_directory).base, address)}
        except (OSError, FlowkitError) as error:
            logger.warning("what %s ran in the end could not be read: %s", address, error)
            return {}
