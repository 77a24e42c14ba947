"""Commands of ``%flowkit`` about RDDs of the user's variables, and about partitions that failed. Runs in the kernel's main thread."""

from __future__ import annotations

import argparse
from typing import Any

from flowkit.context import Context
from flowkit.lineage.call_site import short_call_site
from flowkit.model.ids import executor_label
from flowkit.model.storage_level import StorageLevel
from flowkit.notebook.commands import argument, command, context_of, tell, usage
from flowkit.observe.metrics import counted, format_bytes
from flowkit.observe.status import StatusStore
from flowkit.observe.stored import Stored
from flowkit.observe.tables import Table
from flowkit.rdd.base import Base
from flowkit.rdd.capsules import open_capsule
from flowkit.rdd.replay import Replay
from flowkit.rdd.replayed import debugged


def _rdd(shell: Any, name: str) -> Any:
    found = shell.user_ns.get(name)
    if not isinstance(found, Base):
        raise usage(f"{name} is no RDD" if name in shell.user_ns else f"there is no variable {name}")
    return found


def _stored(rdd: Any) -> Stored:
    status: StatusStore = rdd._runner.status
    return status.stored(rdd._node.id)


def _stored_in_words(stored: Stored, partitions: int) -> str:
    if not stored.partition_count:
        return "nothing is stored"
    size = " and ".join(
        f"{format_bytes(count)} {where}"
        for count, where in ((stored.memory_bytes, "in memory"), (stored.disk_bytes, "on disk"))
        if count
    )
    return f"{stored.partition_count} of {counted(partitions, 'partition')} are stored, {size or '0 B'}"


@command("explain", argument("rdd", help="variable"), takes="rdd")
def explain(shell: Any, options: argparse.Namespace) -> Any:
    """What an action on an RDD would run."""
    return _rdd(shell, options.rdd).explain()


@command("lineage", argument("rdd", help="variable"), takes="rdd")
def lineage(shell: Any, options: argparse.Namespace) -> Any:
    """What an RDD is made of, as a tree."""
    return _rdd(shell, options.rdd).debug_string()


@command(
    "persist",
    argument("rdd", help="variable"),
    argument("level", nargs="?", default="MEMORY_ONLY", help="a storage level, as MEMORY_AND_DISK"),
    takes="rdd",
)
def persist(shell: Any, options: argparse.Namespace) -> None:
    """Keep an RDD's partitions once they are computed."""
    level = getattr(StorageLevel, options.level.upper(), None)
    if not isinstance(level, StorageLevel):
        raise usage(f"{options.level!r} is no storage level; MEMORY_ONLY, MEMORY_AND_DISK, DISK_ONLY and OFF_HEAP are some")
    rdd = _rdd(shell, options.rdd)
    rdd.persist(level)
    tell(
        f"{options.rdd} is kept ({level.name}) as its partitions are computed; {_stored_in_words(_stored(rdd), rdd.num_partitions)}"
    )


@command("unpersist", argument("rdd", help="variable"), takes="rdd")
def unpersist(shell: Any, options: argparse.Namespace) -> None:
    """Drop what is kept of an RDD."""
    rdd = _rdd(shell, options.rdd)
    if not rdd.is_cached:
        tell(f"{options.rdd} was not kept")
        return
    stored = _stored(rdd)
    rdd.unpersist(blocking=True)
    dropped = (
        f"; {counted(stored.partition_count, 'partition')} of it dropped"
        if stored.partition_count
        else "; nothing of it was stored"
    )
    tell(f"{options.rdd} is not kept any more{dropped}")


@command("storage")
def storage(shell: Any, _options: argparse.Namespace) -> Any:
    """RDDs of the notebook that are kept: how much of each is stored, and where."""
    rdds: list[tuple[str, Any]] = [
        (name, value) for name, value in sorted(shell.user_ns.items()) if isinstance(value, Base) and not name.startswith("_")
    ]
    kept = [(name, value, _stored(value)) for name, value in rdds if value.is_cached]
    rows = [
        (
            name,
            value.name or "",
            value.storage_level.name,
            f"{stored.partition_count} of {value.num_partitions}",
            format_bytes(stored.memory_bytes) if stored.memory_bytes else "",
            format_bytes(stored.disk_bytes) if stored.disk_bytes else "",
            ", ".join(map(executor_label, stored.executors)),
            short_call_site(value.call_site),
        )
        for name, value, stored in kept
    ]
    names = ("variable", "name", "level", "partitions", "in memory", "on disk", "executors", "made at")
    return Table(counted(len(rows), "cached RDD"), names, rows).without_empty(1, 4, 5, 6)


@command(
    "replay",
    argument("capsule", nargs="?", help="a file that was saved, in place of the last failure"),
    argument("--element", metavar="VAR", help="keep the element at fault in a variable"),
    argument("--no-debug", action="store_true", help="only run it again and tell"),
    argument("--save", metavar="FILE", help="only save it, to be replayed elsewhere"),
)
def replay(shell: Any, options: argparse.Namespace) -> Any:
    """Compute the partition that failed last once more, in this process, and debug where it fails."""
    if options.capsule is not None:
        replayed = open_capsule(options.capsule)(debug=False)
    else:
        found = _last_failure(shell)
        if options.save:
            return found.save(options.save)
        replayed = found.run()
    if options.element and replayed.error is not None:
        try:
            shell.push({options.element: replayed.element})
        except AttributeError as error:
            raise usage(str(error)) from None
    return debugged(replayed, debug=not options.no_debug and not options.element)


def _last_failure(shell: Any) -> Replay:
    """Of the Context that commands are about; else of whichever is open."""
    for context in (context_of(shell), *reversed(Context.live())):
        if context.last_failure is not None:
            return context.last_failure
    raise usage("no task has failed yet; there is nothing to replay")
