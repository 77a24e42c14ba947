"""Keeping what was computed. Runs on the driver."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from flowkit.errors import InvalidArgument
from flowkit.execution.actions import drain_rows
from flowkit.lineage.explain import explain, lineage_tree
from flowkit.lineage.kernels import CachedOnly, StoredPartitions, Union
from flowkit.lineage.nodes import Narrow, Shuffle
from flowkit.lineage.picture import picture
from flowkit.lineage.stages import cut
from flowkit.model.job_spec import Determinism
from flowkit.model.storage_level import StorageLevel
from flowkit.observe.hints import Hint, Hints, hints_for
from flowkit.rdd.base import Base, action
from flowkit.rdd.checkpoints import KeepOnExecutors, WriteCheckpoint, check_absent
from flowkit.rdd.checks import check_on_driver, check_path, check_str
from flowkit.scheduling.coalescing import too_few_to_share
from flowkit.storage.objects.local import local_place
from flowkit.storage.objects.stores import Stores, address_of, local_path

if TYPE_CHECKING:
    from typing import Self

T = TypeVar("T")


class Persistence(Base[T]):
    """Caching, naming, explaining."""

    __slots__ = ()

    def cache(self) -> Self:
        """Keep each partition as objects in the memory of the executor that computes it first: ``persist(StorageLevel.MEMORY_ONLY)``.

        A function may change the rows it gets: each reader has its own, whatever the level.

        Returns
        -------
        RDD
            This very RDD.

        Notes
        -----
        Cost: nothing at the call; see ``persist``.

        Examples
        --------
        >>> squares = fc.range(4).map(lambda x: x * x).cache()
        >>> squares.sum(), squares.is_cached
        (14, True)
        """
        return self.persist(StorageLevel.MEMORY_ONLY)

    def persist(self, level: StorageLevel = StorageLevel.MEMORY_ONLY) -> Self:
        """Keep each partition where it is computed first, for jobs after this one.

        Parameters
        ----------
        level
            How. Objects in memory (``MEMORY_ONLY``) cost least to read and most to hold: immutable rows nothing, others a copy, since
            each reader has rows of its own. Encoded (``MEMORY_ONLY_SER``) they take a fraction and are decoded at each use. ``MEMORY_AND_DISK``, with or without ``_SER``, writes to disk what memory has no room
            for; ``DISK_ONLY`` writes everything there; ``OFF_HEAP`` keeps bytes in memory that all executors of a host share. With ``_2``
            there is a copy in another executor, on another host if there is one, and a lost one is made again.
            ``MEMORY_ONLY_BY_REFERENCE`` hands out the very objects that are kept, whatever they are: for functions that change none.

        Returns
        -------
        RDD
            This very RDD.

        Raises
        ------
        errors.InvalidArgument
            It is persisted otherwise already, or nothing would be kept. A level can't be changed: ``unpersist`` first.

        Notes
        -----
        Cost: nothing at the call. What does not fit where its level allows is computed again when needed, as is what is lost with an
        executor; files outlive the process that wrote them, on its host. A task that runs elsewhere fetches what another executor holds.
        Copies are made in the background soon after a partition was computed, in memory that is free. Dropped by ``unpersist``, or when nothing in the driver refers
        to this RDD or to any made from it. Rows that can be neither copied nor pickled are kept by reference only; other levels compute
        them again, with a warning in the executor's log.

        Examples
        --------
        >>> from flowkit import StorageLevel
        >>> squares = fc.range(4).map(lambda x: x * x).persist(StorageLevel.MEMORY_AND_DISK)
        >>> squares.sum(), squares.storage_level
        (14, StorageLevel.MEMORY_AND_DISK)
        """
        check_on_driver("RDD.persist()")
        if not isinstance(level, StorageLevel):
            raise InvalidArgument(
                f"level = {level!r}: must be a StorageLevel, as StorageLevel.MEMORY_AND_DISK",
                name="level",
                value=level,
                allowed="a StorageLevel",
            )
        if not level.is_kept:
            raise InvalidArgument(
                f"level = {level!r} keeps nothing; unpersist() does that", name="level", value=level, allowed="others"
            )
        node = self._node
        with self._runner.changing():
            known = node.level
            if known is not None and known != level:
                raise InvalidArgument(
                    f"{node.label} is persisted as {known!r} already; unpersist() it before another level",
                    name="level",
                    value=level,
                    allowed=repr(known),
                )
            if known is None:
                node.change(level=level)
            if not node.dropped_with:
                node.dropped_with = True
                self._runner.drop_with(node)
        return self

    def unpersist(self, *, blocking: bool = False) -> Self:
        """Drop what ``cache`` or ``persist`` kept; the RDD can still be used and computes again.

        Of a local checkpoint that was made there is nothing else: dropped, it is lost (``errors.CheckpointLost``). One that was only asked
        for is not made.

        Parameters
        ----------
        blocking
            Return only when executors were told.

        Notes
        -----
        Cost: one message, no job.

        Examples
        --------
        >>> squares = fc.range(4).map(lambda x: x * x).cache()
        >>> squares.unpersist().is_cached
        False
        """
        check_on_driver("RDD.unpersist()")
        node = self._node
        with self._runner.changing():
            was_kept = node.level is not None
            if was_kept:
                node.change(level=None)
            if isinstance(node.pending, KeepOnExecutors):
                node.pending = None  # there will be nothing to go on with
        if was_kept:
            self._runner.unpersist(node.id, blocking=blocking)
        return self

    @property
    def is_cached(self) -> bool:
        """Whether it is marked to be kept."""
        return self._node.cached

    @property
    def storage_level(self) -> StorageLevel:
        """How it is marked to be kept; ``StorageLevel.NONE`` when it is not.

        Examples
        --------
        >>> fc.range(4).storage_level
        StorageLevel.NONE
        """
        return self._node.level or StorageLevel.NONE

    @action
    def checkpoint(self, path: str | Path | None = None, *, eager: bool = False) -> Self:
        """Write all rows to files and forget what they were made of: long lineages stay short, and the rows outlive this driver.

        Parameters
        ----------
        path
            A directory that is not there yet, on a file system that driver and executors share, or an address of an object store. None: one
            of its own in the setting ``checkpoint_directory``.
        eager
            Write now; else after the first action that computes these rows, or rows made of them.

        Returns
        -------
        RDD
            This very RDD.

        Raises
        ------
        errors.InvalidArgument
            Neither a path nor the setting says where, or it is checkpointed already.
        errors.OutputExists
            Something is there.

        Notes
        -----
        Cost: one job of its own when it is written; ``cache()`` first, or the rows are computed twice. Files carry checksums; one that is
        damaged later is an ``errors.CheckpointDamaged``. They stay until somebody removes them; ``fc.checkpoint_file`` reads them in
        another session.

        Examples
        --------
        >>> import tempfile
        >>> squares = fc.range(4, num_partitions=2).map(lambda x: x * x).checkpoint(tempfile.mkdtemp() + "/squares")
        >>> squares.sum(), squares.is_checkpointed
        (14, True)
        >>> fc.checkpoint_file(squares.checkpoint_path).collect()
        [0, 1, 4, 9]
        """
        check_on_driver("RDD.checkpoint()")
        node = self._node
        self._check_uncheckpointed(path)
        if path is None:
            base = self._runner.config.checkpoint_directory
            if not base:
                raise InvalidArgument(
                    "path = None: say where, or set checkpoint_directory", name="path", value=None, allowed="a directory"
                )
            path = f"{base.rstrip('/')}/{secrets.token_hex(8)}-rdd-{node.id}"
        place = check_path("path", path)
        if address_of(place) is None:
            place = str(local_place(local_path(place)))
        check_absent(place, Stores(self._runner.config.object_stores))
        with self._runner.changing():
            self._check_uncheckpointed(path)
            node.pending = WriteCheckpoint(place)
        if eager:
            self._run(drain_rows, "checkpoint")
        return self

    def _check_uncheckpointed(self, path: object) -> None:
        node = self._node
        if isinstance(node.kernel, StoredPartitions) or node.pending is not None:
            raise InvalidArgument(f"{node.label} is checkpointed already", name="path", value=path, allowed="one checkpoint")

    def local_checkpoint(self) -> Self:
        """Forget what the rows were made of, and keep them on executors' memory and disks only: quick, and lost with them.

        Returns
        -------
        RDD
            This very RDD, persisted as ``MEMORY_AND_DISK`` unless it is persisted otherwise.

        Raises
        ------
        errors.RowsNotKept
            By the action that is followed by the keeping: rows can be neither copied nor pickled. ``persist`` them before with
            ``StorageLevel.MEMORY_ONLY_BY_REFERENCE``.

        Notes
        -----
        Cost: the first action that computes these rows is followed by a job that keeps those of its partitions that are not kept yet. What
        goes with an executor is an ``errors.CheckpointLost`` from then on.

        Examples
        --------
        >>> steps = fc.range(4).map(lambda x: x + 1).local_checkpoint()
        >>> steps.sum(), steps.explain().count("map at")
        (10, 1)
        """
        check_on_driver("RDD.local_checkpoint()")
        node = self._node
        with self._runner.changing():
            if node.level is None:
                self.persist(StorageLevel.MEMORY_AND_DISK)
            if node.pending is None and not isinstance(node.kernel, CachedOnly):
                node.pending = KeepOnExecutors()
        return self

    @property
    def is_checkpointed(self) -> bool:
        """Whether its rows lie in files, and what they were made of is forgotten."""
        return isinstance(self._node.kernel, StoredPartitions)

    @property
    def is_locally_checkpointed(self) -> bool:
        """Whether its rows are kept by executors, and what they were made of is forgotten."""
        return isinstance(self._node.kernel, CachedOnly)

    @property
    def checkpoint_path(self) -> str | None:
        """Where its files lie; None when it is not checkpointed."""
        kernel = self._node.kernel
        return kernel.paths[0].rpartition("/")[0] if isinstance(kernel, StoredPartitions) and kernel.paths else None

    def indeterminate(self) -> Self:
        """Say that computing this RDD again may give other rows, as a function that draws random numbers or reads a clock does.

        Returns
        -------
        RDD
            The same rows; it and all that is made from it are computed consistently.

        Notes
        -----
        flowkit never guesses this. Rows are taken to be the same each time: what is lost is computed again alone, next to what
        others have read already. Where this is said, losing one output of a shuffle that was read rolls back all of it and all
        that was made from it, in the cache too; the job fails, with that reason, if part of its result was already delivered.
        A cached partition that is lost before any shuffle has new rows when it is computed again: ``checkpoint`` keeps them for good.

        Partitioner kept. Cost: narrow, no job; when something is lost, more is computed again.

        Examples
        --------
        >>> import random
        >>> fc.range(3).map(lambda x: (x, random.random())).indeterminate().count()
        3
        """
        return self._make(  # type: ignore[no-any-return]
            Union(),
            [Narrow(self._node)],
            self.num_partitions,
            "indeterminate",
            partitioner=self._node.partitioner,
            determinism=Determinism.INDETERMINATE,
        )

    def set_name(self, name: str) -> Self:
        """Give it a name for people, shown by ``repr`` and ``explain``.

        Notes
        -----
        Cost: nothing.

        Examples
        --------
        >>> fc.range(4).set_name("numbers").name
        'numbers'
        """
        check_on_driver("RDD.set_name()")
        check_str("name", name)
        with self._runner.changing():
            self._node.change(name=name)
        return self

    def explain(self) -> str:
        """What an action would run, in that order: stages, what is pipelined in each, partitions, shuffles, caches; and what those did that have run.

        Returns
        -------
        Explanation
            Text; prints as it is, in a notebook or a shell too.

        Notes
        -----
        Cost: nothing runs.

        Examples
        --------
        >>> fc.range(4, num_partitions=2).map(lambda x: (x % 2, x)).group_by_key().explain()  # doctest: +ELLIPSIS
        stage 0: writes the shuffle of group_by_key at ...
            range at ...   2 partitions
            map at ...
        stage 1: result, 2 partitions
            group_by_key at ...   <- stage 0, hash partitioned into 2
        """
        config, slots = self._runner.config, self._runner.default_parallelism
        return explain(
            self._node,
            self._runner.ran,
            shares_above=too_few_to_share(slots) if config.coalesce_bytes else None,
            splits=config.split_bytes > 0 and slots > 1,
        )

    def hints(self) -> Hints:
        """What could be better about the stages that computed this RDD for an action, as far as they have run.

        Skew, spills, too many or too few tasks, groups that move much: each with the number that shows it and what to change. Nothing
        is said of jobs of a moment.

        Notes
        -----
        Cost: nothing runs.

        Examples
        --------
        >>> fc.range(4).hints()
        no hints
        """
        stages = list(cut(self._node))
        known = [self._runner.facts(stage.root, None if stage.writes is None else stage.writes.id) for stage in stages]
        writers = {stage.writes.id: facts for stage, facts in zip(stages, known, strict=True) if stage.writes and facts}
        found: list[Hint] = []
        for stage, facts in zip(stages, known, strict=True):
            if facts is None:
                continue
            read = {each.id for node in stage.nodes for each in node.dependencies if isinstance(each, Shuffle)}
            parents = [writers[shuffle] for shuffle in read if shuffle in writers]
            operations = tuple(node.operation for node in stage.nodes)
            found += hints_for(replace(facts, operations=operations).reading(parents))
        return Hints(found)

    def debug_string(self) -> str:
        """The lineage as a tree: this RDD, and what each is made of beneath it; ``+-`` where rows are shuffled.

        ``explain`` tells more, and in the order of the run.

        Notes
        -----
        Cost: nothing runs.

        Examples
        --------
        >>> fc.range(4, num_partitions=2).map(lambda x: (x % 2, x)).group_by_key(3).debug_string()  # doctest: +ELLIPSIS
        (3) group_by_key at ...
         +-(2) map at ...
            |  range at ...
        """
        return lineage_tree(self._node)

    def _repr_html_(self) -> str:
        """For notebooks: the stages as a picture. Starts nothing."""
        return picture(self._node)
