"""Per application, what its tasks on this executor share: the files on this host and the content fetched to it.

Runs in executors; thread-safe. Opened by the first task, kept until the application is dropped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flowkit.abc import BlockTransport
from flowkit.config import Config
from flowkit.execution.content_fetch import ContentFetcher
from flowkit.execution.shipped import forget
from flowkit.model.ids import AppId, ContentId, RddId, ShuffleId
from flowkit.storage.blocks.block_files import BlockFiles, BlockVolumes
from flowkit.storage.content import ContentStore
from flowkit.storage.host_directory import ApplicationDirectory, HostDirectory, volumes_of


@dataclass(frozen=True, slots=True)
class Application:
    """One application's services on this executor."""

    directory: ApplicationDirectory
    content: ContentFetcher
    blocks: BlockVolumes

    @property
    def results_directory(self) -> Path:
        """Where results go that memory has no room for."""
        return self.directory.path / "results"


class Applications:
    """The applications whose tasks this executor has seen."""

    def __init__(
        self,
        host_directory: HostDirectory,
        transport: BlockTransport,
        config: Config,
        content_fetched: Callable[[AppId, ContentId], None] = lambda _app, _content: None,
    ) -> None:
        self._host_directory = host_directory
        self._transport = transport
        self._config = config
        self._content_fetched = content_fetched
        self._lock = threading.Lock()
        self._open: dict[AppId, Application] = {}

    def get(self, app: AppId) -> Application:
        """The application's services, opened on first use."""
        known = self._open.get(app)
        if known is not None:
            return known
        with self._lock:
            known = self._open.get(app)
            if known is None:
                directory = self._host_directory.application(app, quota_bytes=self._config.max_disk_bytes)
                store = ContentStore(directory.content_directory)
                fetcher = ContentFetcher(
                    store,
                    app,
                    self._host_directory.token,
                    self._transport,
                    self._config.executor_timeout_s,
                    self._content_fetched,
                )
                known = self._open[app] = Application(directory, fetcher, self._volumes(app, directory))
            return known

    def _volumes(self, app: AppId, directory: ApplicationDirectory) -> BlockVolumes:
        config = self._config
        places = (self._host_directory.on_volume(each, app) for each in volumes_of(config.block_directories))
        others = [each for each in places if each is not None]

        def shared() -> BlockFiles:
            found = self._host_directory.shared_memory(app)
            return BlockFiles([] if found is None else [found], limit_bytes=config.max_off_heap_bytes, mapped=True)

        return BlockVolumes(BlockFiles([*others, directory.path / "blocks"], codec=config.block_codec), shared)

    def drop_rdd(self, app: AppId, rdd: RddId) -> None:
        """Delete the files of an RDD's cached partitions on this host, whichever executor wrote them."""
        if (self._host_directory.base / app).exists():
            for files in self.get(app).blocks.made():
                files.drop_rdd(rdd)

    def drop_shuffle(self, app: AppId, shuffle: ShuffleId) -> None:
        """Delete a shuffle's files on this host, whichever executor wrote them."""
        if (self._host_directory.base / app).exists():  # asking for a directory makes it, and the application may be over
            self.get(app).directory.shuffle_files.drop_shuffle(shuffle)

    def drop_contents(self, app: AppId, contents: tuple[ContentId, ...]) -> None:
        """Delete contents on this host, whichever executor fetched them."""
        if (self._host_directory.base / app).exists():
            for content in contents:
                self.get(app).content.drop(content)

    def drop(self, app: AppId) -> None:
        """Delete the application's files on this host."""
        with self._lock:
            self._open.pop(app, None)
        forget(app)
        self._host_directory.drop_application(app)
