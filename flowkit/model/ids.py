"""Names of things, one type each, so that a stage is never passed as a job.

Driver-made ids (jobs, stages, shuffles, RDDs) are unique within their application; scheduler-made ones (attempts) in the cluster.
What comes over a network or out of a file is held to the forms at the end of this module, wherever a message has one of these types.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, NewType

from msgspec import Meta

AppId = NewType("AppId", str)
"""One driver's session, made by the driver: unguessable and unique, e.g. ``app-20261120-6f3a…``."""
JobId = NewType("JobId", int)
StageId = NewType("StageId", int)
"""Stable for a map stage (one per shuffle for the application's life); fresh for each job's result stage."""
ShuffleId = NewType("ShuffleId", int)
RddId = NewType("RddId", int)
"""The driver's number of an RDD; where its partitions are kept, also its generation (``kept_as``)."""
PartitionIndex = NewType("PartitionIndex", int)
AttemptId = NewType("AttemptId", int)
"""One try at one task, unique in the cluster, made by the scheduler core, ever rising."""
ExecutorId = NewType("ExecutorId", str)
"""``<worker address>#<incarnation>``: a process that comes back at the same address is another executor."""
HostToken = NewType("HostToken", str)
"""Names the directory executors of one host share; two tokens are two hosts, whatever their IP."""
ContentId = NewType("ContentId", str)
"""Hex digest of immutable bytes (large closures, collections)."""

APP_ID_PATTERN: Final = r"\A(?!token\Z)[A-Za-z0-9][A-Za-z0-9_-]*\Z"
"""A session that is opened has such an id: it becomes the name of a directory."""

_NUMBER: Final = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
_NAME: Final = Annotated[str, Meta(max_length=256)]
#: what msgspec accepts for each. Type checkers are left with the plain types above: they know no ``NewType`` of an ``Annotated`` one. A length
#: and a range cost nothing that can be measured; a pattern does, so it is left to names that come once a stage at most.
_FORMS: Final[dict[Any, Any]] = {
    AppId: Annotated[str, Meta(max_length=128)],
    **dict.fromkeys((JobId, StageId, ShuffleId, RddId, PartitionIndex, AttemptId), _NUMBER),
    **dict.fromkeys((ExecutorId, HostToken), _NAME),
    ContentId: Annotated[str, Meta(pattern=r"\A[0-9a-f]{32,64}\Z", max_length=64)],
}
for _name, _form in _FORMS.items():
    _name.__supertype__ = _form


_GENERATION_BIT = 32


def kept_as(rdd: RddId, generation: int) -> RddId:
    """The number under which partitions of an RDD are cached, after its rows were voided ``generation`` times.

    An RDD whose rows are others each time it is computed must not be made of old and new ones. Whatever is late (a task that goes on, a
    copy under way, news of either) has the old number, so nobody takes it for a part of the new ones.

    >>> kept_as(RddId(7), 0), rdd_of(kept_as(RddId(7), 3))
    (7, 7)
    """
    return RddId(rdd + (generation << _GENERATION_BIT))


def rdd_of(kept: RddId) -> RddId:
    """The RDD of partitions that are kept under a number."""
    return RddId(kept & ((1 << _GENERATION_BIT) - 1))


def executor_address(executor: ExecutorId) -> str:
    """The Dask worker address in an executor id.

    >>> executor_address(ExecutorId("tcp://127.0.0.1:4711#a1b2"))
    'tcp://127.0.0.1:4711'
    """
    return executor.rpartition("#")[0]


def executor_label(executor: ExecutorId) -> str:
    """An executor's id, short enough for a label.

    >>> executor_label("tcp://127.0.0.1:34567#9f2c")
    '127.0.0.1:34567'
    """
    return executor.partition("#")[0].rpartition("/")[2]
