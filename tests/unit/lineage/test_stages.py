"""Where lineage is cut, what stages say of themselves, and which programs are pickled again."""

from __future__ import annotations

import gc
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from operator import add

import pytest

from flowkit import StorageLevel
from flowkit.errors import ClosureTooLarge, TooManyPartitions
from flowkit.lineage import stages
from flowkit.lineage.fingerprint import fingerprint
from flowkit.lineage.kernels import IntegerRange, Result, ShuffleWrite, StoredPartitions
from flowkit.lineage.nodes import ancestors
from flowkit.lineage.stages import cached_inputs, cut, parent_shuffles
from flowkit.model.ids import RddId
from flowkit.model.job_spec import CachedInput, Determinism, JobSpec, StageKind
from flowkit.testing.inline import InlineLink, inline_context


@pytest.fixture
def fc():
    with inline_context(default_parallelism=2) as context:
        yield context


@pytest.fixture
def specs(monkeypatch) -> list[JobSpec]:
    """Every job that is submitted."""
    seen: list[JobSpec] = []
    submit = InlineLink.submit

    def remember(self, spec, on_result):
        seen.append(spec)
        return submit(self, spec, on_result)

    monkeypatch.setattr(InlineLink, "submit", remember)
    return seen


def pairs(fc, n=4):
    return fc.range(n).map(lambda x: (x % 2, x))


def operations(rdd) -> list[list[str]]:
    return [[node.operation for node in stage.nodes] for stage in cut(rdd._node)]


# -- the cut -----------------------------------------------------------------------------------------------------------


def test_narrow_operations_are_one_stage(fc):
    assert operations(fc.range(4).map(abs).filter(bool).glom()) == [["range", "map", "filter", "glom"]]


def test_a_shuffle_begins_a_stage(fc):
    assert operations(pairs(fc).reduce_by_key(add).map_values(abs)) == [["range", "map"], ["reduce_by_key", "map_values"]]


def test_a_join_reads_two_shuffles_in_one_stage(fc):
    assert operations(pairs(fc).join(pairs(fc))) == [["range", "map"], ["range", "map"], ["join"]]


def test_a_join_of_sides_that_lie_alike_adds_no_stage(fc):
    left, right = pairs(fc).reduce_by_key(add), pairs(fc).group_by_key()
    assert operations(left.join(right))[-1] == ["reduce_by_key", "group_by_key", "join"]
    assert len(operations(left.join(right))) == 3


def test_an_aggregation_of_what_lies_by_key_adds_no_stage(fc):
    rdd = pairs(fc).partition_by(2)
    assert len(operations(rdd.reduce_by_key(add).group_by_key().filter(bool).map_values(len).distinct())) == 3
    assert len(operations(rdd.reduce_by_key(add).group_by_key().filter(bool).map_values(len))) == 2
    assert rdd.partition_by(2) is rdd


@pytest.mark.parametrize("keeps", ["filter", "map_values", "flat_map_values"])
def test_what_leaves_keys_alone_keeps_the_partitioner(fc, keeps):
    rdd = pairs(fc).partition_by(3)
    assert getattr(rdd, keeps)(bool).partitioner == rdd.partitioner


@pytest.mark.parametrize("drops", ["map", "flat_map", "map_partitions", "map_partitions_with_index", "key_by"])
def test_what_may_change_keys_drops_the_partitioner(fc, drops):
    rdd = pairs(fc).partition_by(3)
    assert getattr(rdd, drops)(bool).partitioner is None
    if drops != "key_by":
        assert getattr(rdd, drops)(bool, preserves_partitioning=True).partitioner == rdd.partitioner


def test_a_shuffle_read_twice_is_written_by_one_stage(fc):
    counts = pairs(fc).reduce_by_key(add)
    assert operations(counts.map(abs).union(counts.filter(bool))) == [
        ["range", "map"],
        ["reduce_by_key", "map", "filter", "union"],
    ]


def test_ancestors_come_before_what_uses_them(fc):
    rdd = pairs(fc).join(pairs(fc)).union(pairs(fc).join(pairs(fc)))
    seen = set()
    for node in ancestors(rdd._node):
        assert all(dependency.parent.id in seen for dependency in node.dependencies)
        seen.add(node.id)


# -- what a spec says --------------------------------------------------------------------------------------------------


def test_a_spec_lists_parents_first_and_the_result_last(fc, specs):
    pairs(fc).reduce_by_key(add, 3).take(1)
    (spec,) = specs
    first, last = spec.stages
    assert (first.kind, first.num_partitions, first.num_reducers) == (StageKind.MAP, 2, 3)
    assert (last.kind, last.num_partitions, last.partitions) == (StageKind.RESULT, 3, (0,))
    assert [each.shuffle for each in last.parents] == [first.shuffle]
    assert spec.name.startswith("take at test_stages.py:")


def test_a_program_is_a_flat_list_of_steps(fc, specs):
    pairs(fc).reduce_by_key(add).collect()
    first, last = (pickle.loads(stage.program.inline) for stage in specs[0].stages)
    assert [step.operation for step in first.steps] == ["range", "map"]
    assert isinstance(first.output, ShuffleWrite)
    assert isinstance(last.output, Result)
    assert last.steps[0].call_site.startswith("/")


def test_a_shuffle_keeps_its_stage_and_its_program_from_job_to_job(fc, specs):
    counts = pairs(fc).reduce_by_key(add)
    counts.collect()
    counts.map(str).count()
    one, two = (spec.stages[0] for spec in specs)
    assert one.stage == two.stage
    assert one.program is two.program
    assert specs[0].stages[1].stage != specs[1].stages[1].stage


def test_a_changed_cache_mark_makes_another_program(fc, specs):
    source = pairs(fc)
    counts = source.reduce_by_key(add)
    counts.collect()
    source.cache()
    counts.collect()
    one, two = (spec.stages[0] for spec in specs)
    assert one.stage == two.stage
    assert one.program.id != two.program.id
    assert two.cached == (CachedInput(RddId(source.id), 0, 2),)


def test_a_cached_rdd_on_every_way_makes_the_shuffle_before_it_unnecessary(fc):
    counts = pairs(fc).reduce_by_key(add)
    cached = counts.map_values(abs).cache()
    (parent,) = parent_shuffles(cut(cached.map(abs)._node)[-1])
    assert parent.unless_cached == (cached.id,)
    (parent,) = parent_shuffles(cut(cached.union(counts.filter(bool))._node)[-1])
    assert parent.unless_cached == (), "a way round the cached RDD leads to the shuffle"


def test_a_cached_side_of_a_union_says_which_partitions_use_it(fc):
    left, right = fc.range(3, num_partitions=3), fc.range(2, num_partitions=2).cache()
    assert cached_inputs(cut(left.union(right)._node)[-1]) == (CachedInput(RddId(right.id), 3, 2),)


def test_a_sort_runs_nothing_until_an_action_and_then_one_job_before_it(fc, specs):
    rdd = fc.range(100, num_partitions=4).sort_by(lambda x: -x)
    assert specs == []
    rdd.first()
    assert [spec.name.partition(" at ")[0] for spec in specs] == ["sort_by (sampling)", "first"]
    rdd.first()
    assert len(specs) == 3


def test_numbering_counts_all_but_the_last_partition_once(fc, specs):
    rdd = fc.range(9, num_partitions=3).zip_with_index()
    assert specs == []
    rdd.count()
    rdd.count()
    assert [spec.result_stage.partitions for spec in specs] == [(0, 1), (0, 1, 2), (0, 1, 2)]


def test_a_shuffle_nobody_refers_to_is_released(fc, monkeypatch):
    released = []
    monkeypatch.setattr(fc._link, "release_shuffle", released.append)
    counts = pairs(fc).reduce_by_key(add)
    kept = counts.map(str)
    counts.count()
    shuffle = counts._node.dependencies[0].id
    del counts
    gc.collect()
    assert released == []
    del kept
    gc.collect()
    assert released == [shuffle]


# -- limits ------------------------------------------------------------------------------------------------------------


def test_a_closure_too_large_is_named_with_what_makes_it_large():
    with inline_context(max_closure_bytes=100_000) as fc:
        table = [float(i) for i in range(50_000)]

        def look_up(i):
            return table[i]

        with pytest.raises(ClosureTooLarge, match=r"look_up -> table \(list, .* bytes\), used by map at test_stages"):
            fc.range(3).map(look_up).collect()
        assert fc.range(3).sum() == 3


def test_too_many_partitions_are_refused_at_the_call_that_asks_for_them():
    with inline_context(max_partitions=10) as fc, pytest.raises(TooManyPartitions, match="num_partitions = 11"):
        fc.range(5, num_partitions=11)


def test_too_many_partitions_that_come_of_several_rdds_are_refused_at_the_action():
    with inline_context(max_partitions=10) as fc:
        both = fc.range(5, num_partitions=6).union(fc.range(5, num_partitions=5))
        with pytest.raises(TooManyPartitions, match="11 partitions"):
            both.count()


# -- what changes after it was planned ---------------------------------------------------------------------------------


def test_a_cut_is_as_its_nodes_were_when_it_was_made(fc):
    source = pairs(fc)
    counts = source.reduce_by_key(add)
    before = cut(counts._node)
    source.cache()
    after = cut(counts._node)
    assert cached_inputs(before[0]) == ()
    assert cached_inputs(after[0]) == (CachedInput(RddId(source.id), 0, 2),)
    assert before[0].revision < after[0].revision
    assert before[1].changes == after[1].changes == ()


def test_a_node_has_one_recipe_in_all_stages_of_a_job(fc, monkeypatch):
    source = pairs(fc)
    both = source.reduce_by_key(add).join(source)
    read = []
    monkeypatch.setattr(
        stages, "ancestors", lambda node, **options: (read.append(node.id), source._node.change(), ancestors(node, **options))[-1]
    )
    found = {node.revision for stage in cut(both._node) for node in stage.nodes if node.id == source.id}
    assert len(read) > 1
    assert len(found) == 1


def test_another_storage_level_makes_another_program(fc, specs):
    source = pairs(fc).persist(StorageLevel.MEMORY_ONLY)
    counts = source.reduce_by_key(add)
    counts.collect()
    source.unpersist().persist(StorageLevel.DISK_ONLY)
    counts.collect()
    programs = [pickle.loads(spec.stages[0].program.inline) for spec in specs]
    assert [program.steps[-1].level for program in programs] == [StorageLevel.MEMORY_ONLY, StorageLevel.DISK_ONLY]
    assert specs[0].stages[0].revision < specs[1].stages[0].revision


def test_a_checkpoint_makes_another_program_without_parents(fc, specs, tmp_path):
    base = pairs(fc).partition_by(2).checkpoint(tmp_path / "base")
    sums = base.map_values(abs).reduce_by_key(add, 3)
    sums.collect()
    sums.collect()
    first, last = specs[0], specs[-1]
    assert [len(stage.parents) for stage in first.stages] == [0, 1, 1]
    assert [len(stage.parents) for stage in last.stages] == [0, 1]
    assert last.stages[0].shuffle == first.stages[1].shuffle
    (source, *_) = pickle.loads(last.stages[0].program.inline).steps
    assert isinstance(source.kernel, StoredPartitions)


def test_programs_go_when_neither_the_planner_nor_a_job_refers_to_them(fc):
    table = list(range(20_000))
    source = fc.range(4, num_partitions=2).map(lambda i: (i % 2, table[i]))
    counts = source.reduce_by_key(add)
    held = fc._link._content_users
    counts.collect()
    assert len(held) == 1, "that of the map stage; that of the result is gone with its job"
    source.cache()
    counts.collect()
    fc._release_garbage()
    assert len(held) == 1, "the one before is gone"
    del counts, source
    gc.collect()
    fc._release_garbage()
    assert len(held) == 0


def test_of_two_threads_that_plan_one_shuffle_each_releases_what_it_put(fc, monkeypatch):
    table = list(range(20_000))
    counts = fc.range(4, num_partitions=2).map(lambda i: (i % 2, table[i])).reduce_by_key(add)
    together = threading.Barrier(2)
    monkeypatch.setattr(fc._planner, "_dumps", lambda program, dumps=fc._planner._dumps: (together.wait(20), dumps(program))[1])
    with ThreadPoolExecutor(2) as threads:
        first, second = [threads.submit(counts.collect) for _ in range(2)]
        assert sorted(first.result(20)) == sorted(second.result(20))
    held = fc._link._content_users
    del counts, first, second
    gc.collect()
    fc._release_garbage()
    assert dict(held._counts) == {}


def test_what_a_plan_refers_to_stays_until_its_job_is_over(fc, monkeypatch):
    """Its shuffles, and what its functions captured: another thread may checkpoint what they belong to."""
    released = []
    monkeypatch.setattr(fc._link, "release_shuffle", released.append)
    base = pairs(fc).partition_by(2)
    shuffle = base._node.dependencies[0].id
    submit = fc._link.submit

    def truncate_meanwhile(spec, take):
        base._node.truncate(IntegerRange(0, 0, 1, 2))
        gc.collect()
        assert released == []
        return submit(spec, take)

    monkeypatch.setattr(fc._link, "submit", truncate_meanwhile)
    assert sorted(base.map(tuple).collect()) == sorted((x % 2, x) for x in range(4))
    gc.collect()
    assert released == [shuffle]


def test_rows_that_differ_each_time_are_fixed_by_a_checkpoint_for_what_is_made_from_then_on(fc, tmp_path):
    base = pairs(fc).indeterminate()
    before = base.reduce_by_key(add)
    base.checkpoint(tmp_path / "base", eager=True)
    after = base.reduce_by_key(add)
    assert cut(before._node)[0].determinism is Determinism.INDETERMINATE, "its outputs may hold other rows than the checkpoint"
    assert cut(after._node)[0].determinism is Determinism.DETERMINATE
    assert after._node.determinism is Determinism.DETERMINATE


# -- what is pending -----------------------------------------------------------------------------------------------------


def test_of_two_actions_one_writes_a_checkpoint(fc, specs, tmp_path):
    base = pairs(fc).checkpoint(tmp_path / "base")
    together = threading.Barrier(2)

    def count(_):
        together.wait(20)
        return base.count()

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(count, range(2))) == [4, 4]
    assert sum(spec.name.startswith("checkpoint") for spec in specs) == 1


def test_a_checkpoint_that_fails_is_tried_again_after_the_next_action(fc, tmp_path):
    base = pairs(fc).checkpoint(tmp_path / "base")
    (tmp_path / "base").write_text("somebody's file")
    with pytest.raises(OSError):  # noqa: PT011 - whichever it is
        base.count()
    assert not base.is_checkpointed
    (tmp_path / "base").unlink()
    assert base.count() == 4
    assert base.is_checkpointed


def test_an_rdd_that_is_unpersisted_before_its_local_checkpoint_keeps_its_lineage(fc):
    base = pairs(fc).local_checkpoint()
    base.unpersist()
    assert base.count() == 4
    assert not base.is_locally_checkpointed
    assert sorted(base.values().collect()) == [0, 1, 2, 3]


def test_a_local_checkpoint_is_no_fingerprint(fc):
    made = [fc.range(number, num_partitions=2).map(abs).local_checkpoint() for number in (2, 3)]
    for each in made:
        each.count()
    assert fingerprint(made[0]._node, "app") != fingerprint(made[1]._node, "app")
