"""Large content of a driver: put on one host, put again should that be lost, forgotten when nobody needs it.

Runs in the driver, on any thread but the client's event loop.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from flowkit import errors
from flowkit.cluster.contents import ContentUsers, KeptContents
from flowkit.cluster.wire import ExecutorSummary
from flowkit.logs import logger_of
from flowkit.model.ids import AppId, ContentId, ExecutorId, HostToken
from flowkit.model.job_spec import Content
from flowkit.storage.content import ContentStore
from flowkit.storage.host_directory import HostDirectory

logger = logger_of("flowkit.cluster")

#: Executors that are asked to take one before it is given up.
_MOST_ASKED = 3


class PutContents:
    """What was put, who needs it, and which host was given it.

    Parameters
    ----------
    app
        Whose content it is.
    local_directory
        Where hosts have their files; None: the usual place.
    executors
        Those there are; waits for the first.
    send
        Gives bytes to an executor and waits until it has them.
    """

    def __init__(
        self,
        app: AppId,
        local_directory: str | None,
        executors: Callable[[], list[ExecutorSummary]],
        send: Callable[[ExecutorId, ContentId, bytes], None],
    ) -> None:
        self._app = app
        self._local_directory = local_directory
        self._executors = executors
        self._send = send
        self._kept = KeptContents()
        self._users = ContentUsers()
        self._holders: dict[ContentId, HostToken] = {}
        self._host_directory: HostDirectory | None = None

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
        """Forget everything, on this host too."""
        self._kept.close()
        if self._host_directory is not None:
            # Its lock is held here too, so the last executor could not have removed everything.
            self._host_directory.drop_application(self._app)
            self._host_directory.close()

    def _directory(self) -> HostDirectory | None:
        """The directory of this machine; None where there can be none: the place may be one of the executors' machines alone."""
        if self._host_directory is None:
            try:
                self._host_directory = HostDirectory.open(self._local_directory)
            except (OSError, ValueError, errors.ClusterError) as error:
                logger.info("content is sent to executors, for this machine has no directory to share: %s", error)
        return self._host_directory

    def _place(self, name: ContentId, data: bytes) -> HostToken:
        """Written directly where the driver shares a directory with executors, else sent to one."""
        executors = self._executors()
        shared = self._directory()
        if shared is not None and any(executor.host == shared.token for executor in executors):
            ContentStore(shared.application(self._app).content_directory).put(data)
            return shared.token
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
