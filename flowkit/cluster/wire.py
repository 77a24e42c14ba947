"""What goes over the network: the messages of drivers, scheduler and executors, and how they become bytes.

Imported by all three processes. Plain data and pure functions; no thread, no loop, no Dask.
"""

from __future__ import annotations

import functools
import hmac
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from flowkit.errors import VersionMismatch
from flowkit.model.events import Event
from flowkit.model.ids import APP_ID_PATTERN, AppId, AttemptId, ExecutorId, HostToken
from flowkit.model.ranges import Lease, Slots
from flowkit.scheduling.actions import (
    AnswerBarrier,
    AnswerCommit,
    ApplicationExpired,
    CloseExecutors,
    CopyBlock,
    CopyOutputs,
    DefineStage,
    DeliverAccumulated,
    DeliverResult,
    DropApplication,
    DropContents,
    DropRdd,
    DropShuffle,
    ForgetStage,
    JobFailed,
    JobSucceeded,
    Kill,
    Launch,
    MayLeave,
    Recall,
    ReleaseResults,
    RequestContent,
    ScaleTo,
)
from flowkit.scheduling.stimuli import (
    ApplicationClosed,
    BarrierReached,
    BlockCopied,
    BlocksEvicted,
    BlocksMoved,
    CommitRequested,
    ContentFetched,
    ContentPut,
    ContentsReleased,
    ExecutorReady,
    Heartbeat,
    JobCancelRequested,
    JobSubmitted,
    LeaseRenewed,
    OutputsCopied,
    RddUnpersistRequested,
    ResultLost,
    ResultsFetched,
    ScalingOffered,
    ShuffleReleased,
    SlotsChanged,
    TasksReported,
    TaskWouldNotStop,
)

M = TypeVar("M")

PROTOCOL = 9
"""Rises with every change that an older peer would misread. Part of every name given to Dask, so two never mix."""

PLUGIN_NAME = f"flowkit-{PROTOCOL}"
OPEN_DRIVER = f"flowkit-{PROTOCOL}-open-driver"
OPEN_EXECUTOR = f"flowkit-{PROTOCOL}-open-executor"
RELAY = f"flowkit-{PROTOCOL}-relay"
#: handlers of an executor, asked by drivers, by other executors, or by the scheduler for a driver that cannot reach it
READ_RESULT = f"flowkit-{PROTOCOL}-read-result"
PUT_CONTENT = f"flowkit-{PROTOCOL}-put-content"
DESCRIBE_CONTENT = f"flowkit-{PROTOCOL}-describe-content"
READ_PIECE = f"flowkit-{PROTOCOL}-read-piece"
READ_BLOCKS = f"flowkit-{PROTOCOL}-read-blocks"
READ_CACHED = f"flowkit-{PROTOCOL}-read-cached"
READ_OUTPUT = f"flowkit-{PROTOCOL}-read-output"
#: handlers of a nanny: how its worker's process is, seen from outside; how that ended, once it has
EXAMINE = f"flowkit-{PROTOCOL}-examine"
LAST_WORDS = f"flowkit-{PROTOCOL}-last-words"
RELAYED = frozenset({READ_RESULT, PUT_CONTENT})
#: topic under which a nanny tells how its worker's process ended
EXIT_TOPIC = f"flowkit-{PROTOCOL}-worker-exit"
#: topic under which whoever owns the cluster says that all of it goes now: nobody need finish anything
SHUTDOWN_TOPIC = f"flowkit-{PROTOCOL}-shutdown"

#: set in the environment of an embedded cluster's workers
EMBEDDED_VARIABLE = "FLOWKIT_EMBEDDED"

CHUNK_BYTES = 4 << 20
"""Large results and content travel in pieces of this size, so no process holds a second whole copy for the network."""


# -- versions ------------------------------------------------------------------------------------------------------


class Versions(msgspec.Struct, frozen=True):
    """What must agree between processes that exchange programs."""

    flowkit: str
    python: str
    cloudpickle: str


@functools.cache
def own_versions() -> Versions:
    """The versions in this process; Python by its minor, since bytecode differs between minors.

    >>> own_versions().python == ".".join(platform.python_version_tuple()[:2])
    True
    """
    try:
        flowkit = metadata.version("flowkit")
    except metadata.PackageNotFoundError:
        flowkit = "not installed, run from its source"
    return Versions(
        flowkit=flowkit,
        python=".".join(platform.python_version_tuple()[:2]),
        cloudpickle=metadata.version("cloudpickle").partition(".")[0],
    )


def version_complaint(here: str, mine: Versions, there: str, theirs: Versions, *, programs: bool = True) -> str | None:
    """What does not fit between two processes, naming both, or None. ``programs`` False: they exchange no pickles.

    >>> a, b = Versions("1.0", "3.11", "3"), Versions("1.0", "3.12", "3")
    >>> version_complaint("the driver", a, "the executor at tcp://w:1", b)
    'the driver has Python 3.11, the executor at tcp://w:1 has Python 3.12; functions travel as bytecode: install the same Python minor on both'
    >>> version_complaint("the driver", a, "the scheduler", b, programs=False) is None
    True
    """
    if mine.flowkit != theirs.flowkit:
        return f"{here} has flowkit {mine.flowkit}, {there} has flowkit {theirs.flowkit}; install the same version on both"
    if not programs:
        return None
    if mine.python != theirs.python:
        return (
            f"{here} has Python {mine.python}, {there} has Python {theirs.python}; functions travel as bytecode: "
            "install the same Python minor on both"
        )
    if mine.cloudpickle != theirs.cloudpickle:
        return (
            f"{here} has cloudpickle {mine.cloudpickle}, {there} has cloudpickle {theirs.cloudpickle}; install the same on both"
        )
    return None


def is_secret(shown: object, secret: str) -> bool:
    """Whether somebody shows the secret. Anything may be shown; an empty secret is nobody's.

    >>> is_secret("a1", "a1"), is_secret("ä", "a1"), is_secret(None, "a1"), is_secret("", "")
    (True, False, False, False)
    """
    if not isinstance(shown, str) or not secret:
        return False
    return hmac.compare_digest(shown.encode("utf-8", "surrogatepass"), secret.encode())


def check_protocol(theirs: int, here: str, there: str) -> None:
    """Raise ``VersionMismatch`` unless the other side speaks this protocol."""
    if theirs != PROTOCOL:
        raise VersionMismatch(
            f"{there} speaks flowkit protocol {theirs}, {here} speaks {PROTOCOL}; install the same flowkit on both",
            here=PROTOCOL,
            there=theirs,
        )


#: a worker's address, and which of its lives; nothing a terminal would obey
_EXECUTOR_PATTERN: Final = r"\A[!-~]*#[0-9a-f]*\Z"


# -- opening a connection ------------------------------------------------------------------------------------------


class ExecutorSummary(msgspec.Struct, frozen=True):
    """An executor that is ready, as a driver sees it."""

    executor: ExecutorId
    host: HostToken
    slots: Slots


class DriverHello(msgspec.Struct, frozen=True):
    """A driver opens a session, or comes back to it after its connection broke (``secret`` not empty)."""

    versions: Versions
    app: Annotated[AppId, Meta(pattern=APP_ID_PATTERN)]
    name: str
    lease_s: Lease
    secret: str = ""


class ExecutorHello(msgspec.Struct, frozen=True):
    """An executor opens its connection, or comes back to it (``resume`` the scheduler's id), or says why it does not start."""

    versions: Versions
    executor: Annotated[ExecutorId, Meta(pattern=_EXECUTOR_PATTERN)]
    resume: str = ""
    #: why there will be none; empty: there is one
    problem: str = ""


class Welcome(msgspec.Struct, frozen=True, tag="welcome"):
    """The connection stands. ``secret`` is what the application's members show one another; empty for executors."""

    scheduler: str
    secret: str = ""
    executors: tuple[ExecutorSummary, ...] = ()
    #: workers on which flowkit could not start, and why
    problems: dict[str, str] = {}
    #: the settings that hold here for all drivers, as texts
    settings: dict[str, str] = {}


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """No connection. ``kind`` is a class name in ``flowkit.errors``."""

    kind: str
    message: str


# -- messages on a connection, beside stimuli and actions ----------------------------------------------------------


class EventsPublished(msgspec.Struct, frozen=True, tag_field="action", tag="Events"):
    """Events for the driver's listeners, in order. ``dropped``: how many before these were lost because it lagged."""

    events: tuple[Event, ...]
    dropped: int = 0


class WorkerProblem(msgspec.Struct, frozen=True, tag_field="action", tag="Problem"):
    """A worker that joined has no executor, for this reason; those that were there before are in ``Welcome``."""

    address: str
    reason: str


class AdmitApplication(msgspec.Struct, frozen=True, tag_field="action", tag="Admit"):
    """An executor serves this application's blocks to whoever shows ``secret``."""

    app: AppId
    secret: str


class Drain(msgspec.Struct, frozen=True, tag_field="action", tag="Drain"):
    """The worker is leaving in good order: when it closes, it shall finish what it runs first."""


class ProcessReplaced(msgspec.Struct, frozen=True, tag_field="stimulus", tag="ProcessReplaced"):
    """The executor ends itself to be rid of a task that cannot be killed; ``others`` ran beside it, not their fault."""

    executor: ExecutorId
    reason: str
    others: tuple[AttemptId, ...]


class Farewell(msgspec.Struct, frozen=True, tag_field="stimulus", tag="Farewell"):
    """The executor closes in good order: what it ran has ended and is reported."""

    executor: ExecutorId
    reason: str


DriverStimulus = (
    LeaseRenewed
    | ApplicationClosed
    | JobSubmitted
    | JobCancelRequested
    | ResultsFetched
    | ResultLost
    | ContentPut
    | RddUnpersistRequested
    | ShuffleReleased
    | ContentsReleased
    | ScalingOffered
)
ExecutorStimulus = (
    ExecutorReady
    | SlotsChanged
    | Heartbeat
    | TasksReported
    | BlocksEvicted
    | BlocksMoved
    | BlockCopied
    | OutputsCopied
    | ContentFetched
    | CommitRequested
    | BarrierReached
    | TaskWouldNotStop
)

ToDriver = (
    DeliverResult
    | DeliverAccumulated
    | JobSucceeded
    | JobFailed
    | RequestContent
    | ApplicationExpired
    | ScaleTo
    | CloseExecutors
    | EventsPublished
    | WorkerProblem
)
ToExecutor = (
    DefineStage
    | ForgetStage
    | Launch
    | Recall
    | Kill
    | AnswerCommit
    | AnswerBarrier
    | ReleaseResults
    | DropRdd
    | CopyBlock
    | CopyOutputs
    | MayLeave
    | DropShuffle
    | DropContents
    | DropApplication
    | AdmitApplication
    | Drain
)
FromDriver = DriverStimulus
FromExecutor = ExecutorStimulus | ProcessReplaced | Farewell

_encoder = msgspec.msgpack.Encoder()
_to_driver = msgspec.msgpack.Decoder(tuple[ToDriver, ...])
_to_executor = msgspec.msgpack.Decoder(tuple[ToExecutor, ...])
_from_driver = msgspec.msgpack.Decoder(tuple[FromDriver, ...])
_from_executor = msgspec.msgpack.Decoder(tuple[FromExecutor, ...])


def encode(messages: Sequence[object] | msgspec.Struct) -> bytes:
    """Messages of one direction, or one opening message, as bytes.

    What has no form there (half a character in the message of somebody's exception, a number of numpy's) is said as nearly as can be: one such
    value must not keep all that was to go with it.
    """
    try:
        return _encoder.encode(messages)
    except (TypeError, ValueError, OverflowError):
        return _encoder.encode(_sayable(msgspec.to_builtins(messages, builtin_types=(bytes,), enc_hook=_plain)))


def _plain(value: object) -> object:
    item = getattr(value, "item", None)
    return item() if callable(item) else repr(value)


def _sayable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return float(value) if abs(value) < 1 << 1023 else str(value)[:100]
    if isinstance(value, dict):
        return {_sayable(name): _sayable(each) for name, each in value.items()}
    return [_sayable(each) for each in value] if isinstance(value, list | tuple) else value


def decoded(decoder: msgspec.msgpack.Decoder[M], body: bytes | msgspec.Raw) -> M:
    """What some bytes say; raises ``msgspec.DecodeError``, whatever they are: also for lists in lists, ten thousand deep."""
    try:
        return decoder.decode(body)
    except RecursionError as error:
        raise msgspec.DecodeError(f"nested too deeply: {error}") from error
    except TypeError as error:  # what came over Dask's connection is no bytes
        raise msgspec.DecodeError(f"must be bytes, not {type(body).__name__}") from error


def decode_to_driver(body: bytes) -> tuple[ToDriver, ...]:
    """What the scheduler told a driver."""
    return decoded(_to_driver, body)


def decode_to_executor(body: bytes) -> tuple[ToExecutor, ...]:
    """What the scheduler told an executor."""
    return decoded(_to_executor, body)


def decode_from_driver(body: bytes) -> tuple[FromDriver, ...]:
    """What a driver told the scheduler."""
    return decoded(_from_driver, body)


def decode_from_executor(body: bytes) -> tuple[FromExecutor, ...]:
    """What an executor told the scheduler."""
    return decoded(_from_executor, body)


_welcome: msgspec.msgpack.Decoder[Welcome | Refused] = msgspec.msgpack.Decoder(Welcome | Refused)
_driver_hello = msgspec.msgpack.Decoder(DriverHello)
_executor_hello = msgspec.msgpack.Decoder(ExecutorHello)


def decode_welcome(body: bytes) -> Welcome | Refused:
    """The scheduler's answer to a hello."""
    return decoded(_welcome, body)


def decode_driver_hello(body: bytes) -> DriverHello:
    """A driver's hello."""
    return decoded(_driver_hello, body)


def decode_executor_hello(body: bytes) -> ExecutorHello:
    """An executor's hello."""
    return decoded(_executor_hello, body)
