"""What a reducer reads from where: local files one by one, other hosts' blocks in requests of bounded size, in a good order.

Pure. Rows are merged in map order whatever arrives first, so requests are issued by the first map partition in them: what is needed
first is asked for first. ``FetchWindow`` says when the next one may go, with bytes asked for and bytes waiting to be used together
below a limit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from flowkit.errors import InternalError
from flowkit.model.ids import AttemptId, HostToken, PartitionIndex
from flowkit.model.map_status import MapStatus, ShuffleSources, decode_size

#: requests below this cost more in messages than they win in evenness
SMALLEST_REQUEST_BYTES = 64 << 10
#: several requests under way at once keep a link busy while one of them waits; Spark takes a fifth of the limit as well
REQUESTS_IN_LIMIT = 5


@dataclass(frozen=True, slots=True)
class BlockSource:
    """One block of the reducer: whose output it is and about how large."""

    map_partition: PartitionIndex
    attempt: AttemptId
    host: HostToken
    #: at most 10 % too large, never too small by more than rounding
    about_bytes: int


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """Blocks of one host, asked for in one message; in map order."""

    number: int
    host: HostToken
    blocks: tuple[BlockSource, ...]
    about_bytes: int


@dataclass(frozen=True, slots=True)
class FetchPlan:
    """All a reducer reads."""

    #: every block that is not empty, in map order
    blocks: tuple[BlockSource, ...]
    #: for the blocks of other hosts; by their first map partition
    requests: tuple[FetchRequest, ...]

    @property
    def about_bytes(self) -> int:
        """Size of all blocks, about."""
        return sum(block.about_bytes for block in self.blocks)


def size_code(status: MapStatus, reducer: int) -> int:
    """The log-scaled size byte of one reducer's block; 0: empty. Raises ``ValueError`` when sizes are damaged, or of fewer reducers."""
    codes = _size_codes(status)
    if reducer >= len(codes):
        raise ValueError(f"map output {status.map_partition} has sizes of {len(codes):,} reducers, none of reducer {reducer}")
    return codes[reducer]


#: each of a host's reducers looks at one byte of every map output: unpacked once
_size_codes = lru_cache(maxsize=4096)(MapStatus.codes)


def plan_fetches(sources: ShuffleSources, reducer: int, *, host: HostToken, limit_bytes: int) -> FetchPlan:
    """Plan the reading of one reduce partition by a task on ``host``. Empty blocks are left out."""
    blocks = []
    for status in sources.outputs:
        code = size_code(status, reducer)
        if code:
            blocks.append(BlockSource(status.map_partition, status.attempt, status.host, decode_size(code)))
    remote: dict[HostToken, list[BlockSource]] = {}
    for block in blocks:
        if block.host != host:
            remote.setdefault(block.host, []).append(block)
    # One request of every host can be stuck half used while the next is needed, so all of those must fit the limit as well.
    most_bytes = max(SMALLEST_REQUEST_BYTES, limit_bytes // max(REQUESTS_IN_LIMIT, 2 * len(remote)))
    groups = [group for of_host in remote.values() for group in _cut(of_host, most_bytes)]
    groups.sort(key=lambda group: group[0].map_partition)
    requests = tuple(
        FetchRequest(number, group[0].host, tuple(group), sum(block.about_bytes for block in group))
        for number, group in enumerate(groups)
    )
    return FetchPlan(tuple(blocks), requests)


def _cut(blocks: Sequence[BlockSource], most_bytes: int) -> list[list[BlockSource]]:
    groups: list[list[BlockSource]] = []
    size = 0
    for block in blocks:
        if not groups or size + block.about_bytes > most_bytes:
            groups.append([])
            size = 0
        groups[-1].append(block)
        size += block.about_bytes
    return groups


@dataclass(slots=True)
class FetchWindow:
    """Which request goes next, and whether it may yet. Sizes are what was planned until a request arrives, then what came.

    Invariant: bytes under way or waiting to be used are at most ``limit_bytes``, but for a request that is needed now
    (otherwise the reader would wait for ever) or that is larger than the limit by itself and goes alone.
    """

    limit_bytes: int
    waiting: deque[FetchRequest]
    #: per request, asked for or arrived: bytes not used yet
    held_bytes: dict[int, int] = field(default_factory=dict)
    #: the sum of ``held_bytes``
    total_bytes: int = 0

    @classmethod
    def over(cls, plan: FetchPlan, limit_bytes: int) -> FetchWindow:
        """A window in which nothing was asked for yet."""
        return cls(limit_bytes, deque(plan.requests))

    def next_request(self, needed: int | None = None) -> FetchRequest | None:
        """The request to send now, counted as under way; None when it must wait or there is none.

        ``needed``: number of the request the reader waits for; it and those before it go in any case.
        """
        if not self.waiting:
            return None
        request = self.waiting[0]
        fits = not self.total_bytes or self.total_bytes + request.about_bytes <= self.limit_bytes
        if not fits and (needed is None or request.number > needed):
            return None
        self.waiting.popleft()
        self._hold(request.number, request.about_bytes)
        return request

    def arrived(self, number: int, size_bytes: int) -> None:
        """A request was answered with this many bytes."""
        if number not in self.held_bytes:
            raise InternalError(f"fetch request {number} answered, but never sent")
        self._hold(number, size_bytes)

    def used(self, number: int, size_bytes: int) -> None:
        """The reader is done with that many bytes of an answer."""
        left = self.held_bytes[number] - size_bytes
        if left < 0:
            raise InternalError(f"fetch request {number}: {-left} bytes more used than arrived")
        self._hold(number, left)

    def _hold(self, number: int, size_bytes: int) -> None:
        self.total_bytes += size_bytes - self.held_bytes.get(number, 0)
        if size_bytes:
            self.held_bytes[number] = size_bytes
        else:
            self.held_bytes.pop(number, None)
