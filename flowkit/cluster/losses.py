"""Why a worker is gone, from what its nanny, its own last words and its connection tell, in whatever order they arrive.

Runs in the scheduler process; pure: facts in, a verdict out.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: signals a process gets for what its own code did, or from a kernel short of memory
_CAUSED_BY_WHAT_RAN = frozenset(
    {
        signal.SIGKILL,
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGABRT,
        signal.SIGILL,
        signal.SIGFPE,
        signal.SIGTRAP,
        signal.SIGSYS,
    }
)
_SHOWN_TASKS = 5


@dataclass(slots=True)
class LossFacts:
    """What is known of one process so far."""

    address: str
    pid: int | None = None
    #: as a process reports it: negative for a signal; None while nobody told
    exit_code: int | None = None
    #: resident bytes when its nanny ended it for memory
    killed_for_memory_bytes: int | None = None
    memory_limit_bytes: int = 0
    last_memory_bytes: int = 0
    #: what each executor of the process ran in the end, by the record it left; empty when there was none to read
    running: Mapping[str, Sequence[int]] = field(default_factory=dict)
    #: the worker was asked to leave, or said that it leaves
    leaving: str = ""
    #: another process connected from its address
    came_back: bool = False
    #: a nanny watches the process, and would have told how it ended if it could
    has_nanny: bool = True
    #: tasks in words, ``stage 3 partition 7``
    ran: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Loss:
    """The verdict. ``task_caused``: what ran there may be to blame; None: nobody knows."""

    reason: str
    task_caused: bool | None


def diagnose(facts: LossFacts) -> Loss:
    """Say why, and whether what ran there may be to blame.

    >>> print(diagnose(LossFacts("tcp://w:1", pid=7, exit_code=-11, ran=("stage 3 partition 0",))).reason)
    worker tcp://w:1 (pid 7) was killed by SIGSEGV; it ran stage 3 partition 0
    >>> diagnose(LossFacts("tcp://w:1", leaving="retired"))
    Loss(reason='worker tcp://w:1 left the cluster: retired', task_caused=False)
    """
    who = f"worker {facts.address}" + (f" (pid {facts.pid})" if facts.pid else "")
    caused: bool | None
    if facts.killed_for_memory_bytes is not None:
        verdict, caused = (
            f"{who} was killed for memory by its nanny at {_size(facts.killed_for_memory_bytes)}{_limit(facts)}",
            True,
        )
    elif facts.leaving and not (facts.exit_code or 0) < 0:
        return Loss(f"{who} left the cluster: {facts.leaving}", task_caused=False)
    elif facts.exit_code is None:
        begin = f"{who} came back as another process" if facts.came_back else f"the connection to {who} broke"
        nanny = "" if facts.has_nanny else " (it has no nanny, which would know)"
        verdict, caused = f"{begin} and nobody could say how its process ended{nanny}{_last_memory(facts)}", None
    elif facts.exit_code < 0:
        number = -facts.exit_code
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        memory = _last_memory(facts)
        near_limit = facts.memory_limit_bytes and facts.last_memory_bytes > 0.8 * facts.memory_limit_bytes
        if number == signal.SIGKILL and near_limit:
            name += ", most likely for memory"
        verdict, caused = f"{who} was killed by {name}{memory}", number in _CAUSED_BY_WHAT_RAN
    else:
        verdict, caused = f"{who} ended itself with exit code {facts.exit_code}{_last_memory(facts)}", True
    return Loss(verdict + _ran(facts), task_caused=caused)


def _ran(facts: LossFacts) -> str:
    if not facts.ran:
        return "; it ran nothing"
    shown = ", ".join(facts.ran[:_SHOWN_TASKS])
    more = len(facts.ran) - _SHOWN_TASKS
    return f"; it ran {shown}" + (f" and {more} more" if more > 0 else "")


def _last_memory(facts: LossFacts) -> str:
    return f"; its memory was last {_size(facts.last_memory_bytes)}{_limit(facts)}" if facts.last_memory_bytes else ""


def _limit(facts: LossFacts) -> str:
    return f" of {_size(facts.memory_limit_bytes)}" if facts.memory_limit_bytes else ""


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.0f} MiB"
