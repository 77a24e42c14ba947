"""Blocks and content between executors, over the workers' own connections, shown the application's secret each time.

Runs in executors: asking on task threads (which wait, with a deadline), serving on the event loop with the reading in threads. Blocks come with
their CRC-32: without TLS, what TCP looks at is 16 bits of each packet.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from distributed import Worker

from flowkit.cluster import dask_internals
from flowkit.cluster.requests import BlocksAsked, CachedAsked, ContentAsked, ContentSent, OutputAsked, PieceAsked, checked
from flowkit.cluster.wire import CHUNK_BYTES, DESCRIBE_CONTENT, READ_BLOCKS, READ_CACHED, READ_OUTPUT, READ_PIECE, is_secret
from flowkit.errors import InvalidArgument
from flowkit.execution.content_fetch import PieceServer
from flowkit.model.ids import AppId, AttemptId, ContentId, PartitionIndex, RddId, ShuffleId
from flowkit.model.shown import in_words
from flowkit.storage.blocks.block_pieces import BlockPiece
from flowkit.storage.content import ContentStore, Manifest, Upload
from flowkit.storage.host_directory import HostDirectory
from flowkit.storage.shuffle.files import READ_PIECE_BYTES, BlockError
from flowkit.storage.shuffle.server import read_blocks

T = TypeVar("T")

ADMISSION_WAIT_S = 5.0
"""A request may overtake the message that admits its application by so much."""
CONNECT_LIMIT_S = 3.0
"""An executor whose port is closed is gone: Dask itself would go on knocking for half a minute."""
SERVING_THREADS = 4
BROKEN_CONNECTIONS = 4
"""In a row, before an executor is taken to be out of reach."""


class Admissions:
    """Which applications this executor serves, and what their members show. Event loop only."""

    def __init__(self) -> None:
        self._secrets: dict[AppId, str] = {}
        self._news = asyncio.Event()

    def admit(self, app: AppId, secret: str) -> None:
        """Serve an application from now on."""
        self._secrets[app] = secret
        news, self._news = self._news, asyncio.Event()
        news.set()

    def forget(self, app: AppId) -> None:
        """Serve it no more."""
        self._secrets.pop(app, None)

    def secret(self, app: AppId) -> str:
        """What to show to others; empty when unknown, which they refuse."""
        return self._secrets.get(app, "")

    async def check(self, app: object, secret: object) -> AppId:
        """Return the application when the asker is a member; raise ``PermissionError`` otherwise, whatever was named and shown."""
        if not isinstance(app, str) or not isinstance(secret, str) or not secret:
            raise PermissionError(f"application {app!r:.100}: the request does not show its secret")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ADMISSION_WAIT_S
        while app not in self._secrets:
            try:
                await asyncio.wait_for(self._news.wait(), deadline - loop.time())
            except TimeoutError:
                break
        if not is_secret(secret, self._secrets.get(AppId(app), "")):
            raise PermissionError(f"application {app!r:.100} is not known here, or the request does not show its secret")
        return AppId(app)


class DaskBlockTransport:
    """``abc.BlockTransport`` over the worker's pool of connections."""

    def __init__(self, worker: Worker, admissions: Admissions, loop: asyncio.AbstractEventLoop) -> None:
        self._worker = worker
        self._admissions = admissions
        self._loop = loop

    def __repr__(self) -> str:
        return f"<DaskBlockTransport of {self._worker.address}>"

    def fetch_shuffle(
        self,
        address: str,
        app: AppId,
        shuffle: ShuffleId,
        reducer: PartitionIndex,
        outputs: Sequence[tuple[PartitionIndex, AttemptId]],
        *,
        timeout_s: float,
    ) -> list[bytes | str]:
        """Ask for one reducer's blocks of some map outputs, in one message; see ``abc.BlockTransport``."""
        pairs = [(int(partition), int(attempt)) for partition, attempt in outputs]
        asking = self._ask(address, READ_BLOCKS, app, shuffle=int(shuffle), reducer=int(reducer), outputs=pairs)
        answer = self._run(asking, address, timeout_s)
        return [
            f"corrupt: it was damaged on its way from {address}"
            if not isinstance(block, str) and zlib.crc32(block) != checksum
            else block
            for block, checksum in answer
        ]

    def fetch_cached(
        self, address: str, app: AppId, rdd: RddId, partition: PartitionIndex, *, serial: int, position: int, timeout_s: float
    ) -> BlockPiece:
        """Ask for a piece of a cached partition; see ``abc.BlockTransport``."""

        def asking() -> Any:
            return self._ask(address, READ_CACHED, app, rdd=int(rdd), partition=int(partition), serial=serial, position=position)

        answer = self._insist(asking, address, timeout_s)
        if answer is None:
            raise KeyError((rdd, partition))
        piece, checksum = BlockPiece(*answer[:-1]), answer[-1]
        if _checksum_of(piece.batches) != checksum:
            raise OSError(f"a piece of partition {partition} of RDD {rdd} was damaged on its way from {address}")
        return piece

    def fetch_output(
        self,
        address: str,
        app: AppId,
        shuffle: ShuffleId,
        map_partition: PartitionIndex,
        attempt: AttemptId,
        *,
        offset: int,
        timeout_s: float,
    ) -> tuple[int, bytes]:
        """Ask for a piece of a map output's file; see ``abc.BlockTransport``."""

        def asking() -> Any:
            return self._ask(
                address,
                READ_OUTPUT,
                app,
                shuffle=int(shuffle),
                map_partition=int(map_partition),
                attempt=int(attempt),
                offset=offset,
            )

        answer = self._insist(asking, address, timeout_s)
        if answer is None:
            raise KeyError((shuffle, map_partition, attempt))
        return int(answer[0]), bytes(answer[1])

    def describe_content(self, address: str, app: AppId, content: ContentId, *, timeout_s: float) -> Manifest:
        """Ask what content is made of; see ``abc.BlockTransport``."""
        answer = self._run(self._ask(address, DESCRIBE_CONTENT, app, content=content), address, timeout_s)
        if answer is None:
            raise KeyError(content)
        return Manifest(*answer)

    def fetch_piece(
        self, address: str, app: AppId, content: ContentId, piece: int, digest: bytes, *, insist: bool, timeout_s: float
    ) -> bytes | list[str]:
        """Ask for a piece of content; see ``abc.BlockTransport``."""
        asking = self._ask(
            address, READ_PIECE, app, content=content, piece=piece, digest=digest, asker=self._worker.address, insist=insist
        )
        answer = self._run(asking, address, timeout_s)
        if answer is None:
            raise KeyError(content)
        return list(answer) if isinstance(answer, list | tuple) else bytes(answer)

    async def _ask(self, address: str, op: str, app: AppId, **arguments: Any) -> Any:
        return await self._call(address, op, app=app, secret=self._admissions.secret(app), **arguments)

    async def _call(self, address: str, op: str, **arguments: Any) -> Any:
        return await dask_internals.ask(self._worker.rpc, address, op, connect_limit_s=CONNECT_LIMIT_S, **arguments)

    def _insist(self, asking: Callable[[], Any], address: str, timeout_s: float) -> Any:
        """Ask again when the connection breaks: Dask closes those to a worker that leaves, which serves on until it has handed over."""
        for tries_left in reversed(range(BROKEN_CONNECTIONS)):
            began = time.monotonic()
            try:
                return self._run(asking(), address, timeout_s)
            except TimeoutError:
                raise
            except OSError:
                # One that could not be opened for seconds is another matter: nobody is there.
                if not tries_left or time.monotonic() - began > CONNECT_LIMIT_S / 2:
                    raise
        raise AssertionError("unreachable")

    def _run(self, work: Any, address: str, timeout_s: float) -> Any:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout_s)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise TimeoutError(f"{address} did not answer within {timeout_s:g} s") from None
        except concurrent.futures.CancelledError:
            raise OSError(f"this worker closed while it waited for {address}") from None


class BlockServer:
    """Answers what transports and drivers ask. Reading files happens in a few threads of its own."""

    def __init__(
        self,
        host_directory: HostDirectory,
        admissions: Admissions,
        read_cached: Callable[[AppId, RddId, PartitionIndex, int, int], BlockPiece | None],
    ) -> None:
        self._host_directory = host_directory
        self._admissions = admissions
        self._read_cached = read_cached
        self._threads = concurrent.futures.ThreadPoolExecutor(SERVING_THREADS, thread_name_prefix="flowkit-serve")
        #: content that is not all there yet: it lies in files, so that what nobody finishes takes no memory
        self._uploads: dict[tuple[AppId, ContentId], Upload] = {}
        self._pieces: dict[AppId, PieceServer] = {}

    def close(self) -> None:
        """Answer no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._uploads.clear()

    def drop_application(self, app: AppId) -> None:
        """Forget half-sent content of an application, and who got what."""
        self._pieces.pop(app, None)
        for key in [key for key in self._uploads if key[0] == app]:
            self._uploads.pop(key).close()

    async def read_blocks(
        self, app: str, secret: str, shuffle: int, reducer: int, outputs: list[tuple[int, int]]
    ) -> list[tuple[bytes | str, int]]:
        """One reducer's blocks of some map outputs of this host, each with its CRC-32."""
        member = await self._admissions.check(app, secret)
        asked = checked(BlocksAsked, shuffle=shuffle, reducer=reducer, outputs=outputs)

        def read() -> list[tuple[bytes | str, int]]:
            files = self._host_directory.application(member).shuffle_files
            blocks = read_blocks(files, asked.shuffle, asked.reducer, asked.outputs)
            return [(block, 0 if isinstance(block, str) else zlib.crc32(block)) for block in blocks]

        return await self._in_thread(read)

    async def read_cached(
        self, app: str, secret: str, rdd: int, partition: int, serial: int, position: int
    ) -> tuple[Any, ...] | None:
        """A piece of a cached partition, and after what is in it the CRC-32 of its batches; None when it is not here."""
        member = await self._admissions.check(app, secret)
        asked = checked(CachedAsked, rdd=rdd, partition=partition, serial=serial, position=position)

        def read() -> tuple[Any, ...] | None:
            piece = self._read_cached(member, asked.rdd, asked.partition, asked.serial, asked.position)
            return None if piece is None else (*piece, _checksum_of(piece.batches))

        return await self._in_thread(read)

    async def read_output(
        self, app: str, secret: str, shuffle: int, map_partition: int, attempt: int, offset: int
    ) -> tuple[int, bytes] | None:
        """A piece of a map output's file, and how long that is; None when it is not on this host."""
        member = await self._admissions.check(app, secret)
        asked = checked(OutputAsked, shuffle=shuffle, map_partition=map_partition, attempt=attempt, offset=offset)

        def read() -> tuple[int, bytes] | None:
            files = self._host_directory.application(member).shuffle_files
            try:
                return files.read_output(asked.shuffle, asked.map_partition, asked.attempt, asked.offset, READ_PIECE_BYTES)
            except BlockError:
                return None

        return await self._in_thread(read)

    async def describe_content(self, app: str, secret: str, content: str) -> Manifest | None:
        """Size and digests of content; None when it is not on this host."""
        member = await self._admissions.check(app, secret)
        asked = checked(ContentAsked, content=content)
        server = self._piece_server(member)
        return await self._in_thread(lambda: _or_none(lambda: server.manifest(asked.content)))

    async def read_piece(
        self, app: str, secret: str, content: str, piece: int, digest: bytes, asker: str, insist: bool
    ) -> bytes | list[str] | None:
        """A piece of content, or who else has it; None when it is not on this host."""
        member = await self._admissions.check(app, secret)
        asked = checked(PieceAsked, content=content, piece=piece, digest=digest, asker=asker, insist=insist)
        server = self._piece_server(member)
        return await self._in_thread(
            lambda: _or_none(
                lambda: server.piece(asked.content, asked.piece, asked.digest, asker=asked.asker, insist=asked.insist)
            )
        )

    def drop_contents(self, app: AppId, contents: tuple[ContentId, ...]) -> None:
        """Forget who got them."""
        if (server := self._pieces.get(app)) is not None:
            server.forget(contents)

    def _piece_server(self, app: AppId) -> PieceServer:
        if app not in self._pieces:
            self._pieces[app] = PieceServer(self._store(app))
        return self._pieces[app]

    async def put_content(self, app: str, secret: str, content: str, total: int, offset: int, data: bytes) -> str:
        """The next piece of content from a driver. Returns ``ok``, or ``again`` when the pieces do not fit: begin anew."""
        member = await self._admissions.check(app, secret)
        sent = checked(ContentSent, content=content, total=total, offset=offset, data=data)
        if len(sent.data) > CHUNK_BYTES or sent.offset + len(sent.data) > sent.total:
            raise InvalidArgument(
                f"{len(sent.data):,} bytes at {sent.offset:,} of {sent.total:,}: a piece has {CHUNK_BYTES:,} at most, and ends with the content",
                name="data",
                value=len(sent.data),
                allowed=f"up to {CHUNK_BYTES:,} bytes",
            )
        key = member, sent.content
        # Taken out while it is written to: of two who send the same at once, one is told to begin anew.
        upload = self._uploads.pop(key, None)
        if sent.offset == 0:
            if upload is not None:
                upload.close()
            upload = await self._in_thread(lambda: self._store(member).upload(sent.content))
        if upload is None or upload.size_bytes != sent.offset:
            if upload is not None:
                upload.close()
            return "again"
        took = upload
        if sent.offset + len(sent.data) == sent.total:
            return "ok" if await self._in_thread(lambda: took.finish(sent.data)) else "again"
        await self._in_thread(lambda: took.append(sent.data))
        if key in self._uploads or not self._admissions.secret(member):
            took.close()
            return "again"
        self._uploads[key] = took
        return "ok"

    def _store(self, app: AppId) -> ContentStore:
        return ContentStore(self._host_directory.application(app).content_directory)

    def _in_thread(self, work: Callable[[], T]) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, _with_exceptions_alone, work)


def _with_exceptions_alone(work: Callable[[], T]) -> T:
    """What it returns. Cached rows are pickled in there: a ``SystemExit`` of theirs, awaited on the event loop, would end that."""
    try:
        return work()
    except Exception:
        raise
    except BaseException as error:
        said = in_words(error)
    raise RuntimeError(f"it could not be read: {said}")


def _checksum_of(batches: Sequence[bytes]) -> int:
    checksum = 0
    for batch in batches:
        checksum = zlib.crc32(batch, checksum)
    return checksum


def _or_none(read: Callable[[], T]) -> T | None:
    """What is read, or None when it is not there."""
    try:
        return read()
    except KeyError:
        return None
