"""Which executors there are and how they fare, from what Dask says of its workers; tells the core, once, of each loss.

Runs in the scheduler process, on its event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from typing import Any

import msgspec
from distributed import Scheduler

from flowkit.cluster import dask_internals
from flowkit.cluster.losses import Loss, LossFacts, diagnose
from flowkit.cluster.peers import ExecutorPeer
from flowkit.cluster.requests import WorkerExit, WorkerOutOfMemory
from flowkit.cluster.wire import EXIT_TOPIC, LAST_WORDS, SHUTDOWN_TOPIC, Drain, encode
from flowkit.logs import logger_of
from flowkit.model.ids import AttemptId, ExecutorId
from flowkit.scheduling import stimuli as sti

logger = logger_of("flowkit.cluster")

FAREWELL_WAIT_S = 0.5
"""How long a worker's own last words may be on their way when it has no nanny, or says that it leaves; nothing is launched there meanwhile."""
LAST_WORDS_LIMIT_S = 5.0
"""A nanny is asked how its worker's process ended, and answers when it has: at once, as a rule. A process may outlive its connections, and a
host may go without a word: what ran there does not wait longer than this."""
DRAIN_LIMIT_S = 10.0
"""How long a worker that leaves in good order may take to finish what it runs."""
LINGER_S = 1.0
"""A link to somebody who is gone stays so long: the acknowledgement of the last message may still have to go."""
FACTS_KEPT = 1_000
_MEMORY_TOPIC = "worker-restart-memory"


class Membership:
    """All executors that are connected, or whose connection may come back."""

    def __init__(self, scheduler: Scheduler, submit: Callable[[sti.Stimulus], None]) -> None:
        self._scheduler = scheduler
        self._submit = submit
        self._loop = asyncio.get_running_loop()
        self._by_address: dict[str, ExecutorPeer] = {}
        self._by_id: dict[ExecutorId, ExecutorPeer] = {}
        self._facts: dict[str, LossFacts] = {}
        self._shutting_down = False
        #: by address: workers Dask has lost, whose executors wait for the last words of their nannies
        self._diagnoses: dict[str, asyncio.TimerHandle] = {}
        self._asking: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[ExecutorPeer]:
        return iter(self._by_address.values())

    def __len__(self) -> int:
        return len(self._by_address)

    def at(self, address: str) -> ExecutorPeer | None:
        """The executor of a worker now."""
        return self._by_address.get(address)

    def get(self, executor: ExecutorId) -> ExecutorPeer | None:
        """The executor of this incarnation, unless it is lost."""
        return self._by_id.get(executor)

    def add(self, executor: ExecutorPeer) -> None:
        """It connected. Another incarnation at the same address is lost with that."""
        known = self._by_address.get(executor.address)
        if known is not None:
            self._facts_of(executor.address).came_back = True
            self._diagnose(known)
        self._by_address[executor.address] = self._by_id[executor.executor] = executor
        state = self._scheduler.workers[executor.address]
        self._facts[executor.address] = LossFacts(
            executor.address, pid=state.pid or None, memory_limit_bytes=state.memory_limit or 0, has_nanny=bool(state.nanny)
        )
        # Dask's record of the worker goes before its plugins hear of a loss; its last measurements are wanted then.
        executor.dask_state = state

    def ready(self, executor: ExecutorPeer) -> None:
        """It said ready; perhaps it was paused, or on its way out, before."""
        state = executor.dask_state
        if state is not None and state.status.name != "running":
            self._loop.call_soon(self._status_changed, executor.address, state.status.name)

    def lose(self, executor: ExecutorPeer, loss: Loss, running: Collection[AttemptId] | None = None) -> None:
        """It is gone; the core learns it once. ``running``: what it ran in the end, None when nobody knows."""
        if self._remove(executor):
            logger.info("%s", loss.reason)
            known = None if running is None else tuple(running)
            self._submit(sti.ExecutorLost(executor.executor, loss.reason, loss.task_caused, known))

    def expire(self, executor: ExecutorPeer) -> None:
        """The core took it for dead."""
        self._remove(executor)

    def close(self) -> None:
        """Hear nothing more."""
        for timer in self._diagnoses.values():
            timer.cancel()
        for task in self._asking:
            task.cancel()
        for executor in self._by_address.values():
            executor.link.close()

    def _remove(self, executor: ExecutorPeer) -> bool:
        if executor.lost:
            return False
        executor.lost = True
        timer = self._diagnoses.pop(executor.address, None)
        if timer is not None:
            timer.cancel()
        if self._by_address.get(executor.address) is executor:
            del self._by_address[executor.address]
        self._by_id.pop(executor.executor, None)
        self._facts.pop(executor.address, None)
        self._loop.call_later(LINGER_S, executor.link.close)
        return True

    # -- what Dask tells -------------------------------------------------------------------------------------------

    def worker_removed(self, address: str) -> None:
        """Dask lost a worker, or let it go."""
        executor = self._by_address.get(address)
        if executor is None or executor.lost or address in self._diagnoses:
            return
        # The last words of its nanny, or its own farewell, may be on their way.
        self._submit(sti.ExecutorPaused(executor.executor))
        facts = self._facts_of(address)
        if executor.draining and executor.link.connected:
            wait_s = DRAIN_LIMIT_S
        elif facts.exit_code is not None:
            wait_s = 0.0
        elif executor.dask_state is None or executor.dask_state.nanny is None or facts.leaving:
            wait_s = FAREWELL_WAIT_S
        else:
            wait_s = LAST_WORDS_LIMIT_S
            task = self._loop.create_task(self._ask_for_last_words(executor, executor.dask_state.nanny))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        self._diagnoses[address] = self._loop.call_later(wait_s, self._diagnose, executor)

    async def _ask_for_last_words(self, executor: ExecutorPeer, nanny: str) -> None:
        """Of its nanny: it tells by itself as well, but only once, and only if it is not on its way out."""
        news: dict[str, Any] = {}
        try:
            news = await dask_internals.ask_nanny(
                self._scheduler, nanny, LAST_WORDS, timeout_s=LAST_WORDS_LIMIT_S, executor=executor.executor
            )
        except (OSError, TimeoutError) as error:
            logger.info("the nanny of %s cannot say how it ended: %s: %s", executor.executor, type(error).__name__, error)
        if self._by_address.get(executor.address) is executor and executor.address in self._diagnoses:
            self._note_exit(executor.address, news)
            self._hasten(executor.address)

    def _note_exit(self, worker: str, news: dict[str, Any]) -> None:
        if news:
            facts = self._facts_of(worker)
            facts.exit_code, facts.pid = news["exit"], news["pid"] or facts.pid
            facts.running = news.get("running", {})

    def link_lost(self, executor: ExecutorPeer) -> None:
        """Its connection broke. Alone that means nothing; when it was leaving, nothing more will come."""
        if executor.draining and executor.address in self._diagnoses:
            self._diagnoses.pop(executor.address).cancel()
            self._diagnose(executor)

    def hear_event(self, topic: str, message: dict[str, Any]) -> None:
        """Dask's log of events, which is where status changes and nannies' last words pass."""
        worker = message.get("worker")
        if topic == SHUTDOWN_TOPIC:
            self._shutting_down = True
            return
        if topic == EXIT_TOPIC and worker:
            msgspec.convert(message, WorkerExit)  # raises for what no nanny says
            self._note_exit(worker, message)
            self._hasten(worker)
        elif topic == _MEMORY_TOPIC and worker:
            ended = msgspec.convert(message, WorkerOutOfMemory)
            facts = self._facts_of(ended.worker)
            facts.killed_for_memory_bytes, facts.pid = ended.rss, ended.pid
        elif message.get("action") == "worker-status-change":
            self._status_changed(topic, message["status"])
        elif message.get("action") == "closing-worker":
            self._facts_of(topic).leaving = str(message.get("reason") or "closed")

    def _hasten(self, address: str) -> None:
        timer = self._diagnoses.get(address)
        executor = self._by_address.get(address)
        if timer is not None and executor is not None:
            timer.cancel()
            self._diagnose(executor)

    def _diagnose(self, executor: ExecutorPeer) -> None:
        self._diagnoses.pop(executor.address, None)
        facts = self._facts_of(executor.address)
        recorded = facts.running.get(executor.executor)
        running = None if recorded is None else {AttemptId(attempt) for attempt in recorded}
        ran = [task for task in executor.in_flight.values() if running is None or task.attempt in running]
        facts.ran = [f"stage {task.stage} partition {task.partition}" for task in ran]
        if executor.dask_state is not None:
            facts.last_memory_bytes = int(executor.dask_state.metrics.get("memory", 0))
        self.lose(executor, diagnose(facts), running)

    def _facts_of(self, address: str) -> LossFacts:
        while len(self._facts) > FACTS_KEPT + len(self._by_address):
            self._facts.pop(next(address for address in self._facts if address not in self._by_address))
        return self._facts.setdefault(address, LossFacts(address))

    def _status_changed(self, address: str, status: str) -> None:
        executor = self._by_address.get(address)
        if executor is None or executor.lost:
            return
        match status:
            case "running":
                self._submit(sti.ExecutorResumed(executor.executor))
            case "paused":
                self._submit(sti.ExecutorPaused(executor.executor))
            case "closing_gracefully" if not self._shutting_down:
                if not executor.draining:
                    executor.draining = True
                    executor.link.send(encode([Drain()]))
                self._submit(sti.ExecutorDraining(executor.executor))
            case _:
                pass
