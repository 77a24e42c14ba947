"""A driver asks executors: for large results, and to take large content; through the scheduler where it cannot reach them.

Runs in the driver, on the client's event loop. In pieces, so that neither side holds a second whole copy for the network.
"""

from __future__ import annotations

import asyncio
from typing import Any

from distributed import Client

from flowkit.cluster.wire import CHUNK_BYTES, PUT_CONTENT, READ_RESULT, RELAY
from flowkit.logs import logger_of
from flowkit.model.ids import AppId, AttemptId, ContentId, ExecutorId, executor_address

logger = logger_of("flowkit.cluster")

CALL_LIMIT_S = 30.0
"""For one piece."""
DIRECT_LIMIT_S = 5.0
"""For the first direct one: an address that does not answer at all is tried through the scheduler."""


class ExecutorCalls:
    """Calls to executors in the name of one application."""

    def __init__(self, client: Client, app: AppId) -> None:
        self._client = client
        self._app = app
        #: shown to executors; known once the session is open
        self.secret = ""
        #: executors that cannot be reached from here, by address
        self._unreachable: set[str] = set()

    async def read_result(self, executor: ExecutorId, attempt: AttemptId, size_bytes: int) -> bytes:
        """A stored result. Raises ``OSError`` or ``TimeoutError`` when it cannot be had."""
        pieces: list[bytes] = []
        received = 0
        while received < size_bytes:
            length = min(CHUNK_BYTES, size_bytes - received)
            piece = await self._call(
                executor_address(executor), READ_RESULT, attempt=int(attempt), offset=received, length=length
            )
            if not piece:
                raise OSError(f"{executor} no longer has the result of attempt {attempt}")
            pieces.append(piece)
            received += len(piece)
        return b"".join(pieces)

    async def put_content(self, executor: ExecutorId, content: ContentId, data: bytes) -> None:
        """Send content to an executor's host. Raises ``OSError`` or ``TimeoutError`` when it does not take it."""
        for offset in range(0, len(data), CHUNK_BYTES):
            piece = data[offset : offset + CHUNK_BYTES]
            address = executor_address(executor)
            answer = await self._call(address, PUT_CONTENT, content=content, total=len(data), offset=offset, data=piece)
            if answer != "ok":
                raise OSError(f"{executor} answered {answer!r} to content {content}")

    async def _call(self, address: str, op: str, **arguments: Any) -> Any:
        if address not in self._unreachable:
            call = getattr(self._client.rpc(address), op)(app=self._app, secret=self.secret, **arguments)
            try:
                return await asyncio.wait_for(call, DIRECT_LIMIT_S)
            except (OSError, TimeoutError) as error:
                logger.info("%s cannot be reached directly (%s); asking through the scheduler", address, error)
        answer = await asyncio.wait_for(
            getattr(self._client.scheduler, RELAY)(
                app=self._app, secret=self.secret, address=address, requested=op, arguments=arguments
            ),
            CALL_LIMIT_S,
        )
        # Only now: an executor that nobody can reach is lost, not behind a wall.
        self._unreachable.add(address)
        return answer
