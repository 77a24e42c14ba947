"""Rows in files in place of what they were made of. Runs on the driver.

::

    <path>/part-00000.block ...   one file a partition (``storage.blocks.block_files``)
    <path>/_checkpoint            CRC-32 of what follows, then pickled: how many partitions, and how their pairs lie
    <path>/_SUCCESS               all of it is there
"""

from __future__ import annotations

import pickle
import zlib
from pathlib import Path

from flowkit.abc import JobRunner
from flowkit.errors import InvalidArgument, OutputExists
from flowkit.execution.actions import keep_rows
from flowkit.execution.sinks import BlockFormat, LocalTarget, StoreTarget, Target, WriteFiles
from flowkit.lineage.kernels import CachedOnly, StoredPartitions
from flowkit.lineage.nodes import Node
from flowkit.lineage.partitioners import Partitioner
from flowkit.storage.objects.stores import Stores, address_of


class WriteCheckpoint:
    """Writes an RDD's rows and puts the files in the place of its lineage."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self, runner: JobRunner, node: Node) -> None:
        """All rows are to be had now."""
        path = self._path
        stores = None if address_of(path) is None else Stores(runner.config.object_stores).only([path])
        target: Target = LocalTarget(path) if stores is None else StoreTarget(path, stores)
        count = node.num_partitions
        try:
            # Hidden by its missing _SUCCESS until all is written.
            runner.run_job(node, WriteFiles(target, "part", BlockFormat()), operation="checkpoint", call_site=node.call_site)
            put(path, stores, "_checkpoint", _sealed(pickle.dumps((count, node.partitioner))))
            put(path, stores, "_SUCCESS", b"")
        except BaseException:
            remove(path, stores)
            raise
        with runner.changing():
            node.truncate(StoredPartitions(paths_of(path, count), stores))


class KeepOnExecutors:
    """Has executors keep an RDD's rows, and forgets its lineage."""

    def __call__(self, runner: JobRunner, node: Node) -> None:
        """All rows are to be had now. Those of an RDD that is unpersisted meanwhile have nothing but their lineage."""
        kept_since = node.revision
        runner.run_job(node, keep_rows, operation="local_checkpoint", call_site=node.call_site)
        with runner.changing():
            if node.revision == kept_since:
                node.truncate(CachedOnly(node.label))
            elif node.level is not None:  # perhaps it was dropped and kept anew in between
                node.pending = node.pending or self


def paths_of(path: str, count: int) -> tuple[str, ...]:
    """Files of a checkpoint, by partition."""
    return tuple(f"{path}/part-{partition:05d}.block" for partition in range(count))


def check_absent(path: str, stores: Stores) -> None:
    """Raise when something is there."""
    if Path(path).exists() if address_of(path) is None else stores.exists(path):
        raise OutputExists(f"{path} exists already; choose another place for the checkpoint, or remove it", path=path)


def put(path: str, stores: Stores | None, name: str, data: bytes) -> None:
    """Write a small file of a checkpoint."""
    if stores is not None:
        stores.write(f"{path}/{name}", data)
    else:
        Path(path).mkdir(parents=True, exist_ok=True)
        (Path(path) / name).write_bytes(data)


def remove(path: str, stores: Stores | None) -> None:
    """Remove what was begun."""
    import shutil

    if stores is not None:
        stores.delete(path)
    else:
        shutil.rmtree(path, ignore_errors=True)


def _sealed(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "big") + data


def _unsealed(told: bytes) -> bytes:
    data = told[4:]
    if told != _sealed(data):
        raise ValueError("its _checkpoint is not what was written")
    return data


def opened(path: str, stores: Stores | None) -> tuple[int, Partitioner | None]:
    """What a checkpoint says of itself: how many partitions, and how their pairs lie.

    Raises
    ------
    errors.InvalidArgument
        There is none, or one that was not finished.
    """
    try:
        if stores is not None:
            with stores.open(f"{path}/_SUCCESS"), stores.open(f"{path}/_checkpoint") as file:
                told = file.read()
        else:
            (Path(path) / "_SUCCESS").read_bytes()
            told = (Path(path) / "_checkpoint").read_bytes()
        count, partitioner = pickle.loads(_unsealed(told))
    except (OSError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise InvalidArgument(
            f"{path} is no checkpoint, or one that was not finished: {error}",
            name="path",
            value=path,
            allowed="a checkpoint's directory",
        ) from error
    return count, partitioner
