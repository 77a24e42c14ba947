"""Content from host to host: piece by piece, from whoever has a piece, so that the first holder sends each of them few times.

Runs in executors: fetching on task threads, serving on a few threads of the transport's. Whoever holds content remembers to whom
it gave a piece, and sends the next who ask for it there: pieces spread like a rumour, without anybody who keeps account of it all.
The idea is that of Cohen, *Incentives Build Robustness in BitTorrent*, 2003, without the incentives.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from flowkit.abc import BlockTransport
from flowkit.errors import DiskFull, FetchFailed
from flowkit.model.ids import AppId, ContentId, HostToken
from flowkit.model.task import ContentMissing
from flowkit.storage.content import ContentStore, Draft, Manifest, is_piece

#: those who got a piece last and can be asked for it
_REMEMBERED = 4
#: times that others are tried for a piece before a holder has to send it itself
_PATIENCE = 2


class PieceServer:
    """Serves pieces of one application's content, or says who else has one. Thread-safe."""

    def __init__(self, store: ContentStore) -> None:
        self._store = store
        self._mutex = threading.Lock()
        self._given: dict[tuple[ContentId, int], deque[str]] = {}

    def manifest(self, content: ContentId) -> Manifest:
        """What content is made of. Raises ``KeyError`` when it is not here."""
        return self._store.manifest(content)

    def piece(self, content: ContentId, piece: int, digest: bytes, *, asker: str, insist: bool) -> bytes | list[str]:
        """A piece, or the addresses of others who have it, or soon will. Raises ``KeyError`` when it is not here.

        ``insist``: the others were asked.
        """
        key = content, piece
        if not insist:
            with self._mutex:
                others = [address for address in self._given.get(key, ()) if address != asker]
                if not others:  # before it is read: the next who asks while that lasts is sent there
                    self._given.setdefault(key, deque(maxlen=_REMEMBERED)).append(asker)
            if others:
                return others
        try:
            data = self._store.piece(content, piece, digest)
        except KeyError:
            with self._mutex:  # nobody is sent to those who ask for what is not here
                self._given.pop(key, None)
            raise
        if insist:
            with self._mutex:
                self._given.setdefault(key, deque(maxlen=_REMEMBERED)).append(asker)
        return data

    def forget(self, contents: tuple[ContentId, ...]) -> None:
        """They are dropped."""
        gone = set(contents)
        with self._mutex:
            for key in [key for key in self._given if key[0] in gone]:
                del self._given[key]


class ContentFetcher:
    """One application's content on this host, fetched from others when it is not here yet; once, however many tasks ask."""

    def __init__(
        self,
        store: ContentStore,
        app: AppId,
        host: HostToken,
        transport: BlockTransport,
        timeout_s: float,
        fetched: Callable[[AppId, ContentId], None] = lambda _app, _content: None,
    ) -> None:
        self._store = store
        self._app = app
        self._host = host
        self._transport = transport
        self._timeout_s = timeout_s
        self._fetched = fetched
        self._mutex = threading.Lock()
        self._fetching: dict[ContentId, threading.Lock] = {}

    def path(self, content: ContentId, holders: Sequence[tuple[HostToken, str]]) -> Path:
        """The file that holds it; raises ``FetchFailed`` with a ``ContentMissing`` when no other host has it.

        ``holders``: hosts that should, and an address to ask at; a host may have several.
        """
        path = self._store.path(content)
        if path is not None:
            return path
        with self._mutex:
            fetching = self._fetching.setdefault(content, threading.Lock())
        # Held over the fetch on purpose: whoever else wants this content waits for the very same bytes.
        with fetching:
            path = self._store.path(content) or self._fetch(content, [address for host, address in holders if host != self._host])
        with self._mutex:
            self._fetching.pop(content, None)
        return path

    def drop(self, content: ContentId) -> None:
        """Delete it on this host."""
        self._store.drop(content)

    def _fetch(self, content: ContentId, addresses: Sequence[str]) -> Path:
        told: list[str] = []
        for address in random.sample(addresses, len(addresses)):
            try:
                with self._store.drafting(content) as draft:
                    if draft is not None:
                        manifest = self._transport.describe_content(address, self._app, content, timeout_s=self._timeout_s)
                        if not manifest.is_of(content):
                            told.append(f"{address}: described other bytes than were asked for")
                            continue
                        self._gather(content, manifest, address, draft)
                        draft.finish()
                        self._fetched(self._app, content)
            except KeyError:
                told.append(f"{address}: has it no more")
            except DiskFull:
                raise
            except (OSError, TimeoutError) as error:
                told.append(f"{address}: {str(error) or type(error).__name__}")
            else:
                path = self._store.path(content)
                if path is not None:
                    return path
                told.append(f"{address}: it was dropped again")
        where = "; ".join(told) or "no other host is known to have it"
        raise FetchFailed(f"content {content} could not be had: {where}", failure=ContentMissing((content,)))

    def _gather(self, content: ContentId, manifest: Manifest, holder: str, draft: Draft) -> None:
        """Every piece once, in an order of our own, so that those who fetch at once have different ones to give."""
        missing = deque((piece, 0) for piece in random.sample(range(manifest.piece_count), manifest.piece_count))
        while missing:
            piece, tries = missing.popleft()
            digest = manifest.digest(piece)
            answer = self._ask(holder, content, piece, digest, insist=tries >= _PATIENCE)
            data = answer if isinstance(answer, bytes) else self._from_others(answer, content, piece, digest)
            if data is None:
                missing.append((piece, tries + 1))
            elif is_piece(data, digest):
                draft.write(piece, data)
            elif tries > _PATIENCE:
                raise KeyError(content)  # damaged, time and again: as good as gone
            else:
                missing.append((piece, _PATIENCE + tries))

    def _from_others(self, others: list[str], content: ContentId, piece: int, digest: bytes) -> bytes | None:
        for address in random.sample(others, len(others)):
            try:
                answer = self._ask(address, content, piece, digest, insist=True)
            except (KeyError, OSError, TimeoutError):
                continue  # it has not come there yet, or is gone with its host
            if isinstance(answer, bytes) and is_piece(answer, digest):
                return answer
        return None

    def _ask(self, address: str, content: ContentId, piece: int, digest: bytes, *, insist: bool) -> bytes | list[str]:
        return self._transport.fetch_piece(address, self._app, content, piece, digest, insist=insist, timeout_s=self._timeout_s)
