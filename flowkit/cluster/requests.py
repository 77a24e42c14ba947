"""What executors and the scheduler are asked over Dask's own connections, as data: types, ranges and alphabets, checked before anything is done.

Pure; used by those who are asked. Dask calls a handler with whatever the asker named: a list for an id, a text of half characters for a secret.
Who may ask is not decided here: secrets are compared by ``wire.is_secret``, which takes anything.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from flowkit.errors import InvalidArgument
from flowkit.model.ids import AppId, AttemptId, ContentId, PartitionIndex, RddId, ShuffleId
from flowkit.model.ranges import Count

R = TypeVar("R", bound=msgspec.Struct)


class BlocksAsked(msgspec.Struct, frozen=True):
    """One reducer's blocks of some map outputs."""

    shuffle: ShuffleId
    reducer: PartitionIndex
    outputs: list[tuple[PartitionIndex, AttemptId]]


class CachedAsked(msgspec.Struct, frozen=True):
    """A piece of a cached partition."""

    rdd: RddId
    partition: PartitionIndex
    serial: int
    position: Count


class OutputAsked(msgspec.Struct, frozen=True):
    """A piece of a map output's file."""

    shuffle: ShuffleId
    map_partition: PartitionIndex
    attempt: AttemptId
    offset: Count


class PieceAsked(msgspec.Struct, frozen=True):
    """A piece of content."""

    content: ContentId
    piece: Count
    digest: bytes
    asker: str
    insist: bool


class ContentAsked(msgspec.Struct, frozen=True):
    """What content is made of."""

    content: ContentId


class ContentSent(msgspec.Struct, frozen=True):
    """The next piece of content from a driver."""

    content: ContentId
    total: Count
    offset: Count
    data: bytes


class ResultAsked(msgspec.Struct, frozen=True):
    """A piece of a stored result."""

    attempt: AttemptId
    offset: Count
    length: Count


class RelayAsked(msgspec.Struct, frozen=True):
    """To ask an executor on behalf of a driver."""

    app: AppId
    address: str
    requested: str
    arguments: dict[str, Any]


class WorkerExit(msgspec.Struct, frozen=True):
    """A nanny's last words on a process of its worker, as Dask's log of events brings them; anybody may write to that."""

    worker: str
    exit: int | None
    pid: int | None = None
    #: what each of its executors ran in the end
    running: dict[str, list[AttemptId]] = {}


class WorkerOutOfMemory(msgspec.Struct, frozen=True):
    """Dask's nanny ended a process for its memory."""

    worker: str
    rss: Count
    pid: int | None = None


def checked(kind: type[R], **arguments: object) -> R:
    """The request that these arguments make. Raises ``InvalidArgument``, which travels to the asker, when they make none.

    >>> checked(ResultAsked, attempt=1, offset=-1, length=5)
    Traceback (most recent call last):
        ...
    flowkit.errors.InvalidArgument: ResultAsked: Expected `int` >= 0 - at `$.offset`
    """
    try:
        return msgspec.convert(arguments, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidArgument(f"{kind.__name__}: {error}", name=kind.__name__, value=None, allowed=str(error)) from None
