"""A local cluster of Dask's that keeps its number of workers, however often they die.

Runs in the driver, on the cluster's event loop. Dask's own loses workers for good in two ways: one that happens to be away, since it
died again, a quarter of a minute after an earlier death; and one whose process dies while it starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import Any, Literal

from distributed import LocalCluster, Nanny
from distributed.core import Status

from flowkit.cluster.script_free import workers_without_script
from flowkit.logs import logger_of

logger = logger_of("flowkit.cluster")

#: why a nanny closes that did not want to
_FAILURES = frozenset({"nanny-instantiate-failed", "nanny-instantiate-timeout", "nanny-unregister-failed"})
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0


class LastingNanny(Nanny):
    """Tells its cluster when it closes, and leaves no process behind that a task started: a worker is the leader of a session of its own.

    Its worker process does not run the driver's script: what is the script's comes by value.
    """

    _leader: int | None = None

    async def instantiate(self) -> Status:
        """Start a worker process; see ``Nanny``."""
        with workers_without_script():
            status = await super().instantiate()
        self._leader = self.pid
        return status

    def _on_worker_exit_sync(self, exitcode: int) -> None:
        leader, self._leader = self._leader, None
        if leader is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(leader, signal.SIGKILL)
        super()._on_worker_exit_sync(exitcode)

    async def close(self, timeout: float = 5, reason: str = "nanny-close") -> Literal["OK"]:  # noqa: ASYNC109
        """See ``Nanny``."""
        was_open = self.status not in {Status.closing, Status.closed}
        done = await super().close(timeout=timeout, reason=reason)
        cluster = getattr(self, "_cluster", lambda: None)()
        if was_open and isinstance(cluster, LastingCluster):
            cluster.nanny_closed(self, failed=reason in _FAILURES)
        return done  # type: ignore[no-any-return]


class LastingCluster(LocalCluster):
    """Workers are made again when their nanny has given them up, and never given up while it has not."""

    def __init__(self, **options: Any) -> None:
        self._pause_s = _FIRST_PAUSE_S
        self._mending: asyncio.Task[None] | None = None
        super().__init__(**options)

    def nanny_closed(self, nanny: Nanny, *, failed: bool) -> None:
        """One is closed; replaced when nobody asked for that."""
        for name in [name for name, each in self.workers.items() if each is nanny]:
            del self.workers[name]
        if failed and self.status is Status.running and (self._mending is None or self._mending.done()):
            self._mending = asyncio.ensure_future(self._mend())

    async def _mend(self) -> None:
        while self.status is Status.running and set(self.worker_spec) - set(self.workers):
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
            try:
                await self._correct_state()
            except Exception:
                logger.warning("a worker that died while it started could not be replaced; trying again", exc_info=True)
            else:
                self._pause_s = _FIRST_PAUSE_S

    def _update_worker_status(self, op: str, msg: Any) -> None:
        if op == "remove":
            self.scheduler_info["workers"].pop(msg, None)
        else:
            super()._update_worker_status(op, msg)
