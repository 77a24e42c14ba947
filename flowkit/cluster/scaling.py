"""Makes workers and closes them, through the Dask cluster object that a driver holds; for whatever the scheduler's allocation asks.

Runs in the driver, on a thread of its own: a cluster's ``scale`` may talk to Kubernetes or a batch system, and takes its time.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

from flowkit.cluster import dask_internals
from flowkit.logs import logger_of

logger = logger_of("flowkit.cluster")

CLOSE_LIMIT_S = 5.0


class _Close(NamedTuple):
    addresses: tuple[str, ...]


class Scaling:
    """One for each driver that holds a cluster. What the cluster refuses is logged; the scheduler asks again."""

    def __init__(self, cluster: Any, client: Any) -> None:
        self._cluster = cluster
        self._client = client
        self._wishes: SimpleQueue[int | _Close | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="flowkit-scaling", daemon=True)

    @property
    def count(self) -> int:
        """Workers the cluster was asked for so far."""
        return len(self._cluster.plan)

    def start(self) -> None:
        """Listen to wishes."""
        self._thread.start()

    def to(self, count: int) -> None:
        """There are to be so many workers."""
        self._wishes.put(count)

    def end(self, addresses: Sequence[str]) -> None:
        """These workers are to be closed."""
        self._wishes.put(_Close(tuple(addresses)))

    def close(self) -> None:
        """Listen no more; what is under way at the cluster goes on. Idempotent."""
        self._wishes.put(None)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_LIMIT_S)

    def _run(self) -> None:
        while (wish := self._wishes.get()) is not None:
            try:
                if isinstance(wish, _Close):
                    self._end(wish.addresses)
                else:
                    self._cluster.scale(wish)
            except BaseException:  # the cluster may be of a class of the user's
                logger.warning("the cluster %r could not be scaled", self._cluster, exc_info=True)

    def _end(self, addresses: Sequence[str]) -> None:
        names = dask_internals.worker_names(self._cluster, addresses)
        if names is not None:
            self._cluster.sync(self._cluster.scale_down, names)
        else:  # others choose themselves whom they end when they are scaled: these have ended by then
            self._client.retire_workers(workers=list(addresses), close_workers=True, remove=True)
