"""Reads one reduce partition: blocks of this host from their files, others' asked for ahead of need, all merged in map order.

``read_shuffle`` runs on the task's slot thread. Helper threads of its own only wait for other hosts; they start with the first remote
block and end with the generator, whether it was exhausted, closed or raised.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from time import perf_counter
from typing import Any, NotRequired, Protocol, TypedDict, Unpack, cast

from flowkit.abc import BlockTransport
from flowkit.errors import FetchFailed, InternalError
from flowkit.model.ids import AppId, AttemptId, HostToken, PartitionIndex, ShuffleId
from flowkit.model.map_status import ShuffleSources
from flowkit.model.metrics import TaskMetrics
from flowkit.model.task import FetchFailure
from flowkit.storage.frames import frames_in, frames_of_pieces
from flowkit.storage.serializers import PairColumns, decode_batch, decode_pairs
from flowkit.storage.shuffle.fetch_plan import BlockSource, FetchPlan, FetchRequest, FetchWindow, plan_fetches
from flowkit.storage.shuffle.files import BlockError, BlockMissing

#: small batches are joined up to this many rows or encoded bytes, so that what follows is not called for a handful of rows
_BATCH_ROWS, _BATCH_BYTES = 4_096, 1 << 20
#: a local block above this is read in pieces instead of whole
_STREAM_ABOVE_BYTES = 16 << 20
#: threads that wait for other hosts; requests are large, so a few keep a link busy
_MOST_THREADS = 4
#: how often a reader that waits for another host looks whether its task was killed
_KILL_CHECK_S = 0.2
#: after a damaged block, it is read or asked for once more: memory and networks err more often than disks
_TRIES = 2
DEFAULT_TIMEOUT_S = 60.0

#: a map output, by its partition and the attempt that made it
_Output = tuple[PartitionIndex, AttemptId]


class BlockReads(Protocol):
    """Blocks of this host; ``ShuffleFiles`` as a rule."""

    def read_block(self, shuffle: ShuffleId, map_partition: PartitionIndex, attempt: AttemptId, reducer: int) -> bytes:
        """See ``ShuffleFiles.read_block``."""
        ...

    def stream_block(
        self, shuffle: ShuffleId, map_partition: PartitionIndex, attempt: AttemptId, reducer: int
    ) -> Iterator[bytes]:
        """See ``ShuffleFiles.stream_block``."""
        ...

    def absent(self, shuffle: ShuffleId, outputs: Iterable[_Output]) -> list[_Output]:
        """See ``ShuffleFiles.absent``."""
        ...


class ReadOptions(TypedDict):
    """What a read needs besides what to read.

    ``in_flight_bytes`` bounds the blocks of other hosts asked for or waiting to be used (see ``FetchWindow`` for the
    exception), ``timeout_s`` the wait for one answer of another host.
    """

    app: AppId
    files: BlockReads
    host: HostToken
    transport: BlockTransport
    in_flight_bytes: int
    metrics: TaskMetrics
    check_killed: Callable[[], None]
    timeout_s: NotRequired[float]


def read_shuffle(sources: ShuffleSources, reducer: int, **options: Unpack[ReadOptions]) -> Iterator[list[tuple[Any, Any]]]:
    """Iterate the pairs of a reduce partition in batches: by map partition, and within one in the order of writing.

    Small batches are joined.

    Raises
    ------
    errors.FetchFailed
        With a ``FetchFailure`` for the output that is missing or damaged and, of this host, for the others that are; or for a whole
        host when none of its executors can be reached.
    """
    metrics, check_killed = options["metrics"], options["check_killed"]
    pending: list[tuple[Any, Any]] = []
    pending_bytes = 0
    with closing(_read_frames(sources, reducer, **options)) as frames:
        for encoded in frames:
            batch = decode_batch(encoded)
            metrics.shuffle_read_rows += len(batch)
            if pending and (len(batch) >= _BATCH_ROWS or len(encoded) >= _BATCH_BYTES):
                check_killed()
                yield pending
                pending, pending_bytes = [], 0
            if pending:
                pending += batch
            else:
                pending = batch
            pending_bytes += len(encoded)
            if len(pending) >= _BATCH_ROWS or pending_bytes >= _BATCH_BYTES:
                check_killed()
                yield pending
                pending, pending_bytes = [], 0
    if pending:
        check_killed()
        yield pending


def read_shuffle_columns(sources: ShuffleSources, reducer: int, **options: Unpack[ReadOptions]) -> Iterator[PairColumns]:
    """The same pairs in the same order as ``read_shuffle``, as the columns they were written in. Raises as it does."""
    with closing(_read_frames(sources, reducer, **options)) as frames:
        for encoded in frames:
            pairs = decode_pairs(encoded)
            options["metrics"].shuffle_read_rows += len(pairs.keys)
            options["check_killed"]()
            yield pairs


def _read_frames(
    sources: ShuffleSources, reducer: int, **options: Unpack[ReadOptions]
) -> Generator[bytes | memoryview, None, None]:
    host = options["host"]
    plan = plan_fetches(sources, reducer, host=host, limit_bytes=options["in_flight_bytes"])
    local = _LocalBlocks(plan, sources, reducer, options)
    with closing(_RemoteBlocks(plan, sources, reducer, options)) as remote:
        for block in plan.blocks:
            if block.host == host:
                yield from local.frames(block)
            else:
                yield from frames_in(remote.take(block))
            remote.done_with(block)


class _LocalBlocks:
    """Blocks of this host, read from their files. When one cannot be, the failure names all that cannot, so that all are made again at once."""

    def __init__(self, plan: FetchPlan, sources: ShuffleSources, reducer: int, options: ReadOptions) -> None:
        self._plan = plan
        self._sources = sources
        self._reducer = reducer
        self._host = options["host"]
        self._files = options["files"]
        self._metrics = options["metrics"]
        self._check_killed = options["check_killed"]

    def frames(self, block: BlockSource) -> Iterator[bytes | memoryview]:
        """The frames of a block. Raises ``FetchFailed``."""
        if block.about_bytes > _STREAM_ABOVE_BYTES:
            self._metrics.shuffle_local_bytes += block.about_bytes
            return self._streamed(block)
        for attempt in range(_TRIES):
            try:
                data = self._files.read_block(self._sources.shuffle, block.map_partition, block.attempt, self._reducer)
            except BlockError as exc:
                if isinstance(exc, BlockMissing) or attempt + 1 == _TRIES:
                    raise self._failed(block, exc) from exc
            else:
                self._metrics.shuffle_local_bytes += len(data)
                return frames_in(data)
        raise InternalError("unreachable: the last try returns or raises")

    def _streamed(self, block: BlockSource) -> Iterator[bytes | memoryview]:
        for attempt in range(_TRIES):
            begun = False
            try:
                for encoded in frames_of_pieces(self._stream(block)):
                    begun = True
                    yield encoded
            except BlockError as exc:
                if begun or isinstance(exc, BlockMissing) or attempt + 1 == _TRIES:
                    raise self._failed(block, exc) from exc
            else:
                return

    def _stream(self, block: BlockSource) -> Generator[bytes, None, None]:
        yield from self._files.stream_block(self._sources.shuffle, block.map_partition, block.attempt, self._reducer)

    def _failed(self, block: BlockSource, error: BlockError) -> FetchFailed:
        others = dict.fromkeys(self._absent_beside(block))
        if not isinstance(error, BlockMissing):  # what damages one file may have damaged others
            others.update(dict.fromkeys(self._damaged_behind(block)))
        return _Failures(self._sources).of_block(block, str(error), tuple(others))

    def _absent_beside(self, block: BlockSource) -> list[_Output]:
        """Of the outputs of this host those without a file, also such as have nothing for this reducer: others will look for them."""
        of_host = [(each.map_partition, each.attempt) for each in self._sources.outputs if each.host == self._host]
        return [
            each for each in self._files.absent(self._sources.shuffle, of_host) if each != (block.map_partition, block.attempt)
        ]

    def _damaged_behind(self, block: BlockSource) -> Iterator[_Output]:
        """Blocks that would have been read next and could not be. Reads them, once, which is no more than the task would have read."""
        for each in self._plan.blocks:
            if each.host == self._host and each.map_partition > block.map_partition:
                self._check_killed()
                if not self._is_sound(each):
                    yield each.map_partition, each.attempt

    def _is_sound(self, block: BlockSource) -> bool:
        for _ in range(_TRIES):
            try:
                if block.about_bytes > _STREAM_ABOVE_BYTES:
                    with closing(self._stream(block)) as pieces:
                        next(pieces, None)  # the first piece comes when all of them were found sound
                else:
                    self._files.read_block(self._sources.shuffle, block.map_partition, block.attempt, self._reducer)
            except BlockMissing:
                return False
            except BlockError:
                continue
            return True
        return False


class _Failures:
    """Makes ``FetchFailed`` with what the scheduler must know: which output, of which attempt, by which sources."""

    def __init__(self, sources: ShuffleSources) -> None:
        self._sources = sources

    def of_block(self, block: BlockSource, story: str, others: tuple[_Output, ...] = ()) -> FetchFailed:
        """``story`` begins with the reason: ``missing: ...`` or ``corrupt: ...``. ``others``: what is known to be lost as well."""
        reason, _, detail = story.partition(": ")
        known = reason if reason in {"missing", "corrupt"} else "missing"
        told = f"map output {block.map_partition} is {known}: {detail or story}"
        if others:
            told += f" (and {len(others)} more of its host)"
        return self._failure(block.map_partition, block, known, told, others)

    def of_host(self, block: BlockSource, story: str) -> FetchFailed:
        """No executor of the block's host answers."""
        return self._failure(None, block, "unreachable", f"nobody on {block.host} can be reached: {story}")

    def _failure(
        self, map_partition: PartitionIndex | None, block: BlockSource, reason: str, text: str, others: tuple[_Output, ...] = ()
    ) -> FetchFailed:
        message = f"shuffle {self._sources.shuffle}: {text}"
        failure = FetchFailure(
            shuffle=self._sources.shuffle,
            map_partition=map_partition,
            map_attempt=None if map_partition is None else block.attempt,
            host=block.host,
            reason=reason,
            message=message,
            epoch=self._sources.epoch,
            others=others,
        )
        return FetchFailed(message, failure=failure)


class _RemoteBlocks:
    """Blocks of other hosts, fetched by helper threads within the window and handed out one by one."""

    def __init__(self, plan: FetchPlan, sources: ShuffleSources, reducer: int, options: ReadOptions) -> None:
        self._sources = sources
        self._reducer = PartitionIndex(reducer)
        self._app = options["app"]
        self._transport = options["transport"]
        self._metrics = options["metrics"]
        self._check_killed = options["check_killed"]
        self._timeout_s = options.get("timeout_s", DEFAULT_TIMEOUT_S)
        self._failures = _Failures(sources)
        self._request_of = {block.map_partition: request for request in plan.requests for block in request.blocks}
        self._thread_count = min(_MOST_THREADS, len(plan.requests))
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        # All below is guarded by the condition.
        self._window = FetchWindow.over(plan, options["in_flight_bytes"])
        self._needed: int | None = None
        self._arrived: dict[PartitionIndex, bytes | BaseException] = {}
        self._taken: dict[PartitionIndex, int] = {}
        self._closed = False

    def take(self, block: BlockSource) -> bytes:
        """The block, waiting for it if need be. Raises ``FetchFailed``."""
        self._start()
        started = perf_counter()
        number = self._request_of[block.map_partition].number
        with self._changed:
            if block.map_partition not in self._arrived:
                self._needed = number
                self._changed.notify_all()
        found = self._wait_for(block)
        self._metrics.shuffle_fetch_wait_s += perf_counter() - started
        if issubclass(type(found), BaseException):
            raise cast("BaseException", found)
        data = cast("bytes", found)
        self._metrics.shuffle_remote_bytes += len(data)
        return data

    def _wait_for(self, block: BlockSource) -> bytes | BaseException:
        while True:
            with self._changed:
                found = self._arrived.pop(block.map_partition, None)
                if found is not None:
                    self._needed = None
                    if type(found) is bytes:  # an error of a transport's may not even let its class be looked at
                        self._taken[block.map_partition] = len(found)
                    return found
                self._changed.wait(_KILL_CHECK_S)
            self._check_killed()

    def done_with(self, block: BlockSource) -> None:
        """The block's bytes were used up: others may be asked for."""
        if block.map_partition not in self._request_of:
            return
        with self._changed:
            self._window.used(self._request_of[block.map_partition].number, self._taken.pop(block.map_partition))
            self._changed.notify_all()

    def close(self) -> None:
        """Stop asking. A request under way ends by its own time-out; its thread then ends too, and nobody waits for it."""
        with self._changed:
            self._closed = True
            self._arrived.clear()
            self._changed.notify_all()

    def _start(self) -> None:
        if not self._threads:
            for number in range(self._thread_count):
                name = f"flowkit-fetch-{self._sources.shuffle}-{self._reducer}-{number}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _work(self) -> None:
        while (request := self._next_request()) is not None:
            answers: list[bytes | BaseException]
            try:
                answers = [*self._fetch(request)]
            except BaseException as exc:  # raised again on the task's thread, which waits for it
                answers = [exc] * len(request.blocks)
            with self._changed:
                if self._closed:
                    return
                self._window.arrived(request.number, sum(len(each) for each in answers if type(each) is bytes))
                for block, answer in zip(request.blocks, answers, strict=True):
                    self._arrived[block.map_partition] = answer
                self._changed.notify_all()

    def _next_request(self) -> FetchRequest | None:
        with self._changed:
            while not self._closed and self._window.waiting:
                request = self._window.next_request(self._needed)
                if request is not None:
                    return request
                self._changed.wait()
            return None

    def _fetch(self, request: FetchRequest) -> list[bytes]:
        found = self._ask(request, request.blocks)
        again = [place for place, answer in enumerate(found) if isinstance(answer, str) and answer.startswith("corrupt")]
        if again:
            answers = self._ask(request, tuple(request.blocks[place] for place in again))
            for place, answer in zip(again, answers, strict=True):
                found[place] = answer
        blocks = [answer for answer in found if not isinstance(answer, str)]
        if len(blocks) < len(found):
            lost = [(block, answer) for block, answer in zip(request.blocks, found, strict=True) if isinstance(answer, str)]
            (first, story), *others = lost
            raise self._failures.of_block(first, story, tuple((block.map_partition, block.attempt) for block, _ in others))
        return blocks

    def _ask(self, request: FetchRequest, blocks: tuple[BlockSource, ...]) -> list[bytes | str]:
        addresses = self._sources.addresses.get(request.host, ())
        story: list[str] = []
        cause: BaseException | None = None
        # Not all readers at the same neighbour: where a host has several, each reducer begins at another one.
        for turn in range(len(addresses)):
            address = addresses[(self._reducer + turn) % len(addresses)]
            try:
                return self._transport.fetch_shuffle(
                    address,
                    self._app,
                    self._sources.shuffle,
                    self._reducer,
                    [(block.map_partition, block.attempt) for block in blocks],
                    timeout_s=self._timeout_s,
                )
            except (OSError, TimeoutError) as exc:
                story.append(f"{address}: {str(exc) or type(exc).__name__}")
                cause = exc
        raise self._failures.of_host(blocks[0], "; ".join(story) or "it has no executor left") from cause
