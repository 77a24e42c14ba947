"""Large content of a driver: put on one host, put again should that be lost, forgotten when nobody needs it.

Runs in the driver, on any thread but the client's event loop.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from flowkit import errors
from flowkit.cluster.contents import ContentUsers, KeptContents
from flowkit.cluster.wire import ExecutorSummary
from flowkit.execution.forks import call_in_forks
from flowkit.logs import logger_of
from flowkit.model.ids import ContentId, ExecutorId, HostToken
from flowkit.model.job_spec import Content
from flowkit.storage.content import ContentStore
from flowkit.storage.host_directory import DriverDirectory, disown_all

logger = logger_of("flowkit.cluster")

call_in_forks(disown_all)

#: Executors that are asked to take one before it is given up.
_MOST_ASKED = 3


class PutContents:
    """What was put, who needs it, and which host was given it.

    Parameters
    ----------
    directory
        The application's on this host, which it may share with executors.
    own_directory
        The driver's.
    executors
        Those there are; waits for the first.
    send
        Gives bytes to an executor and waits until it has them.
    """

    def __init__(
        self,
        directory: DriverDirectory,
        own_directory: DriverDirectory,
        executors: Callable[[], list[ExecutorSummary]],
        send: Callable[[ExecutorId, ContentId, bytes], None],
    ) -> None:
        self._directory = directory
        self._own_directory = own_directory
        self._executors = executors
        self._send = send
        self._kept = KeptContents(lambda: own_directory.application().path)
        self._users = ContentUsers()
        self._holders: dict[ContentId, HostToken] = {}

    def put(self, name: ContentId, data: bytes) -> Content:
        """Have it on one host, and count one more who needs it."""
        self._users.add(name)
        self._kept.keep(name, data)
        holder = self._holders.get(name)
        if holder is None:
            holder = self._holders[name] = self._place(name, data)
        return Content(name, len(data), holders=(holder,))

    def put_again(self, name: ContentId) -> HostToken:
        """Have it on some host: none holds it any more. Raises ``KeyError`` when it was never put."""
        host = self._holders[name] = self._place(name, self._kept.get(name))
        return host

    def retain(self, name: ContentId) -> None:
        """One more who needs it."""
        self._users.add(name)

    def release(self, names: Sequence[ContentId]) -> tuple[ContentId, ...]:
        """One fewer who needs each; those that nobody needs any more are forgotten, and returned."""
        unneeded = self._users.remove(names)
        for name in unneeded:
            self._holders.pop(name, None)
            self._kept.forget(name)
        return unneeded

    def leave(self, name: ContentId | None = None) -> None:
        """No host holds it any more, or any at all; it is put again when it is needed."""
        if name is None:
            self._holders.clear()
        else:
            self._holders.pop(name, None)

    def close(self) -> None:
        """Forget everything."""
        self._kept.close()
        self._own_directory.close()

    def _shared_token(self) -> HostToken | None:
        """Name this host; None where its directory cannot be used: ``local_directory`` may be a place of the executors' machines alone."""
        try:
            return self._directory.host.token
        except (OSError, ValueError, errors.ClusterError) as error:
            logger.info("content is sent to executors, for this machine has no directory to share: %s", error)
            return None

    def _place(self, name: ContentId, data: bytes) -> HostToken:
        """Written directly where the driver shares a directory with executors, else sent to one."""
        executors = self._executors()
        token = self._shared_token()
        if any(executor.host == token for executor in executors):
            ContentStore(self._directory.application().content_directory).put(data)
            assert token is not None
            return token
        # Any one will do; another should the first not answer.
        random.shuffle(executors)
        failure: Exception | None = None
        for executor in executors[:_MOST_ASKED]:
            try:
                self._send(executor.executor, name, data)
            except (OSError, TimeoutError) as error:
                failure = error
            else:
                return executor.host
        raise errors.ClusterError(f"no executor took {len(data)} bytes of content: {failure}") from failure
