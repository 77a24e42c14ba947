"""Makes copies the scheduler asks for: of cached partitions other executors hold, and of map outputs of hosts that are leaving.

Runs in executors, on threads of its own: no task waits for a copy, and no copy for a task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Final

from flowkit.abc import BlockTransport, Serializer
from flowkit.errors import LimitExceeded
from flowkit.execution.applications import Applications
from flowkit.execution.remote_blocks import NotHeld, pieces_of
from flowkit.logs import logger_of
from flowkit.model.ids import AppId, AttemptId, PartitionIndex, RddId, ShuffleId
from flowkit.model.storage_level import StorageLevel
from flowkit.model.task import BlockInfo
from flowkit.storage.blocks.block_store import BlockStore
from flowkit.storage.serializers import chosen, decode_batch
from flowkit.storage.shuffle.files import BlockError

logger = logger_of(__name__)

#: at a time: enough to be faster than one, and few enough to leave tasks the processor
_THREADS: Final = 2

Outputs = tuple[tuple[PartitionIndex, AttemptId], ...]


class Copier:
    """Fetches what is to be held here too.

    Parameters
    ----------
    block_copied
        Hears what became of a copy of a cached partition: None when it could not be made.
    outputs_copied
        Hears which map outputs are here now, and which could not be had.
    """

    def __init__(
        self,
        *,
        cache: BlockStore,
        applications: Applications,
        transport: BlockTransport,
        timeout_s: float,
        serializers: Mapping[str, Serializer],
        block_copied: Callable[[AppId, RddId, PartitionIndex, BlockInfo | None], None],
        outputs_copied: Callable[[AppId, ShuffleId, Outputs, Outputs], None],
    ) -> None:
        self._cache = cache
        self._applications = applications
        self._transport = transport
        self._timeout_s = timeout_s
        self._block_copied = block_copied
        self._outputs_copied = outputs_copied
        self._threads = ThreadPoolExecutor(
            _THREADS, thread_name_prefix="flowkit copier", initializer=chosen.choose, initargs=(serializers,)
        )

    def close(self) -> None:
        """Begin nothing more. What is under way ends on its own."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def copy_block(
        self, app: AppId, rdd: RddId, partition: PartitionIndex, level: StorageLevel, sources: tuple[str, ...]
    ) -> None:
        """Keep a cached partition here too. Returns at once."""
        self._threads.submit(self._copy_block, app, rdd, partition, level, sources)

    def copy_outputs(self, app: AppId, shuffle: ShuffleId, outputs: Outputs, sources: tuple[str, ...]) -> None:
        """Take map outputs to this host. Returns at once."""
        self._threads.submit(self._copy_outputs, app, shuffle, outputs, sources)

    def _copy_block(
        self, app: AppId, rdd: RddId, partition: PartitionIndex, level: StorageLevel, sources: tuple[str, ...]
    ) -> None:
        kept: BlockInfo | None = None
        try:
            for address in sources:
                pieces = pieces_of(self._transport, address, app, rdd, partition, timeout_s=self._timeout_s)
                rows = chain.from_iterable(map(decode_batch, pieces))
                try:
                    kept = self._cache.keep_copy(app, rdd, partition, rows, level=level)
                except NotHeld as error:
                    logger.info("%s", error)
                    continue
                break
        except BaseException:  # rows are unpickled
            logger.exception("partition %s of RDD %s could not be copied", partition, rdd)
        finally:
            self._block_copied(app, rdd, partition, kept)

    def _copy_outputs(self, app: AppId, shuffle: ShuffleId, outputs: Outputs, sources: tuple[str, ...]) -> None:
        copied: list[tuple[PartitionIndex, AttemptId]] = []
        try:
            for partition, attempt in outputs:
                if self._copy_output(app, shuffle, partition, attempt, sources):
                    copied.append((partition, attempt))
        except BaseException:
            logger.exception("map outputs of shuffle %s could not be copied", shuffle)
        finally:
            failed = tuple(each for each in outputs if each not in copied)
            self._outputs_copied(app, shuffle, tuple(copied), failed)

    def _copy_output(
        self, app: AppId, shuffle: ShuffleId, partition: PartitionIndex, attempt: AttemptId, sources: tuple[str, ...]
    ) -> bool:
        files = self._applications.get(app).directory.shuffle_files

        def pieces(address: str) -> Iterator[bytes]:
            offset, size = 0, 1
            while offset < size:
                size, data = self._transport.fetch_output(
                    address, app, shuffle, partition, attempt, offset=offset, timeout_s=self._timeout_s
                )
                if not data:
                    return
                offset += len(data)
                yield data

        for address in sources:
            try:
                files.take_output(shuffle, partition, attempt, pieces(address))
            except (KeyError, OSError, TimeoutError, BlockError, LimitExceeded) as error:
                logger.info("map output %s of shuffle %s could not be had from %s: %s", partition, shuffle, address, error)
            else:
                return True
        return False
