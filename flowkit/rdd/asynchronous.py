"""Actions that return at once: their result comes as a future, which asyncio can await. Run on the driver."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from flowkit.execution.forks import call_in_forks
from flowkit.execution.on_driver import as_exception, without_stop_iteration
from flowkit.execution.sides import in_fork
from flowkit.jobs import Cancellation
from flowkit.lineage.call_site import called_from, find_call_site
from flowkit.rdd.actions import Actions
from flowkit.rdd.checks import check_callable, check_int, check_on_driver
from flowkit.tracebacks import trim, trims_own_frames

T = TypeVar("T")
R = TypeVar("R")


_futures: weakref.WeakSet[JobFuture[Any]] = weakref.WeakSet()


def _disown_all() -> None:
    for each in tuple(_futures):
        each.disown(os.getppid())


call_in_forks(_disown_all)


class JobFuture(Future[R]):
    """The result of an action to come: a ``concurrent.futures.Future``, and awaitable.

    ``cancel`` cancels the action's jobs, also while they run; ``result`` then raises ``errors.JobCancelled``. An action goes on when
    nobody holds its future any more.
    """

    def __init__(self, cancellation: Cancellation) -> None:
        super().__init__()
        self._cancellation = cancellation
        _futures.add(self)

    def disown(self, owner: int) -> None:
        """Fail, in a fork of the driver: the thread that would give it a result is not here."""
        if not self.done():
            super().__init__()
            self.set_exception(in_fork("a future's result()", owner))

    def cancel(self) -> bool:
        """Cancel the action; False when it was over already. Returns at once."""
        if self.done():
            return False
        self._cancellation.cancel("its future was cancelled")
        return True

    def __await__(self) -> Generator[Any, None, R]:
        return asyncio.wrap_future(self).__await__()


@trims_own_frames
class LocalIterator(Iterator[T]):
    """All elements of an RDD, a partition at a time."""

    def __init__(self, rows: Generator[T, None, None]) -> None:
        self._rows = rows

    def __next__(self) -> T:
        return next(self._rows)

    def close(self) -> None:
        """Cancel what was asked for and not used."""
        self._rows.close()


class Asynchronous(Actions[T]):
    """The most usual actions, as futures. What this thread says about its jobs is taken at the call."""

    __slots__ = ()

    def collect_async(self) -> JobFuture[list[T]]:
        """``collect``, at once.

        Notes
        -----
        Cost: as ``collect``, and a thread that waits.

        Examples
        --------
        >>> future = fc.range(3).collect_async()
        >>> future.result()
        [0, 1, 2]
        """
        return self._started(self.collect, "collect_async")

    def count_async(self) -> JobFuture[int]:
        """``count``, at once.

        Notes
        -----
        Cost: as ``count``, and a thread that waits.

        Examples
        --------
        >>> async def main():
        ...     return await fc.range(3).count_async()
        >>> import asyncio
        >>> asyncio.run(main())
        3
        """
        return self._started(self.count, "count_async")

    def take_async(self, num: int) -> JobFuture[list[T]]:
        """``take``, at once.

        Notes
        -----
        Cost: as ``take``, and a thread that waits.

        Examples
        --------
        >>> fc.range(3).take_async(2).result()
        [0, 1]
        """
        check_int("num", num)
        return self._started(lambda: self.take(num), "take_async")

    def reduce_async(self, fn: Callable[[T, T], T]) -> JobFuture[T]:
        """``reduce``, at once.

        Notes
        -----
        Cost: as ``reduce``, and a thread that waits.

        Examples
        --------
        >>> fc.range(4).reduce_async(lambda x, y: x + y).result()
        6
        """
        check_callable("fn", fn)
        return self._started(lambda: self.reduce(fn), "reduce_async")

    def foreach_async(self, fn: Callable[[T], object]) -> JobFuture[None]:
        """``foreach``, at once.

        Notes
        -----
        Cost: as ``foreach``, and a thread that waits.

        Examples
        --------
        >>> fc.range(4).foreach_async(lambda x: None).result()
        """
        check_callable("fn", fn)
        return self._started(lambda: self.foreach(fn), "foreach_async")

    def foreach_partition_async(self, fn: Callable[[Iterator[T]], object]) -> JobFuture[None]:
        """``foreach_partition``, at once.

        Notes
        -----
        Cost: as ``foreach_partition``, and a thread that waits.

        Examples
        --------
        >>> fc.range(4).foreach_partition_async(list).result()
        """
        check_callable("fn", fn)
        return self._started(lambda: self.foreach_partition(fn), "foreach_partition_async")

    def _started(self, action: Callable[[], R], operation: str) -> JobFuture[R]:
        check_on_driver(operation)
        cancellation = Cancellation()
        future: JobFuture[R] = JobFuture(cancellation)
        said, call_site = contextvars.copy_context(), find_call_site()

        def run() -> None:
            future.set_running_or_notify_cancel()
            try:
                with called_from(call_site), self._runner.cancellable(cancellation):
                    result = action()
            except BaseException as error:
                # All kinds: who waits for the future would wait for ever. One of asyncio takes no StopIteration, and its event loop
                # would be ended by a SystemExit.
                told = as_exception(without_stop_iteration(error, operation, call_site))
                trim(told)
                future.set_exception(told)
            else:
                future.set_result(result)

        threading.Thread(target=lambda: said.run(run), name=f"flowkit {operation}", daemon=True).start()
        return future

    def to_local_iterator(self, *, prefetch: bool = False) -> Iterator[T]:
        """Iterate over all elements, a partition at a time; later partitions are not computed before they are needed.

        Parameters
        ----------
        prefetch
            Compute the next partition while this one is used.

        Notes
        -----
        Cost: one job a partition (shuffles are computed once); the driver holds one partition, two with ``prefetch``. An iterator
        that is closed early cancels what it had asked for.

        Examples
        --------
        >>> rows = fc.range(10, num_partitions=5).to_local_iterator()
        >>> next(rows), next(rows)
        (0, 1)
        >>> rows.close()
        """
        check_on_driver("to_local_iterator")
        return LocalIterator(self._partition_by_partition(prefetch))

    def _partition_by_partition(self, prefetch: bool) -> Generator[T, None, None]:
        def start(partition: int) -> JobFuture[list[T]]:
            return self._started(lambda: self._collect_partition(partition), "to_local_iterator")

        following: JobFuture[list[T]] | None = None
        try:
            for partition in range(self.num_partitions):
                current = following or start(partition)
                following = start(partition + 1) if prefetch and partition + 1 < self.num_partitions else None
                try:
                    rows = current.result()
                except BaseException:
                    current.cancel()
                    raise
                yield from rows
        finally:
            if following is not None:
                following.cancel()

    def _collect_partition(self, partition: int) -> list[T]:
        from flowkit.execution.actions import collect_rows

        return list(self._run(collect_rows, "to_local_iterator", [partition])[0])
