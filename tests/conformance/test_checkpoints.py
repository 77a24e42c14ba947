"""Checkpoints: rows in files in place of their lineage, in this session and the next; local ones on executors alone."""

from __future__ import annotations

from operator import add

import pytest

from flowkit.errors import CheckpointDamaged, InvalidArgument, OutputExists


def test_rows_are_written_after_the_first_action_and_the_lineage_is_forgotten(fc, tmp_path):
    parents = fc.range(40, num_partitions=4).map(lambda x: (x % 5, x))
    sums = parents.reduce_by_key(add, 3).checkpoint(tmp_path / "sums")
    assert not sums.is_checkpointed
    assert not (tmp_path / "sums").exists()
    expected = sorted(sums.collect())
    assert sums.is_checkpointed
    assert sums.checkpoint_path == str(tmp_path / "sums")
    assert sorted(path.name for path in (tmp_path / "sums").iterdir() if path.name != "_temporary") == [
        "_SUCCESS", "_checkpoint", "part-00000.block", "part-00001.block", "part-00002.block",
    ]  # fmt: skip
    assert "map at" not in sums.explain()
    assert sorted(sums.collect()) == expected
    assert sorted(sums.map_values(lambda total: -total).values().collect()) == sorted(-total for _, total in expected)


def test_an_action_on_what_was_made_of_it_writes_it_too(fc, tmp_path):
    base = fc.range(10, num_partitions=2).checkpoint(tmp_path / "base")
    assert base.map(lambda x: x + 1).sum() == 55
    assert base.is_checkpointed


def test_now_if_that_is_wanted(fc, tmp_path):
    assert fc.range(10, num_partitions=2).checkpoint(tmp_path / "now", eager=True).is_checkpointed


def test_how_pairs_lie_is_kept_so_that_a_join_needs_no_shuffle(fc, tmp_path):
    left = fc.range(20, num_partitions=2).map(lambda x: (x % 4, x)).partition_by(3).checkpoint(tmp_path / "left", eager=True)
    again = fc.checkpoint_file(tmp_path / "left")
    assert again.num_partitions == 3
    right = fc.range(4, num_partitions=2).map(lambda x: (x, -x)).partition_by(3)
    assert again.join(right).explain().count("writes the shuffle") == 1
    assert sorted(again.join(right).collect()) == sorted(left.join(right).collect())


@pytest.mark.undisturbed
def test_a_cached_rdd_is_not_computed_twice_for_it(fc, tmp_path):
    computed = fc.accumulator(0)
    rows = fc.range(30, num_partitions=3).map(lambda x: computed.add(1) or x).cache().checkpoint(tmp_path / "once")
    assert rows.sum() == sum(range(30))
    assert computed.value == 30
    rows.unpersist()
    assert rows.sum() == sum(range(30))
    assert computed.value == 30


def test_a_long_iteration_stays_short(fc, tmp_path):
    rows = fc.range(8, num_partitions=2)
    for step in range(12):
        rows = rows.map(lambda x: x + 1)
        if step % 4 == 3:
            rows = rows.checkpoint(tmp_path / f"step-{step}", eager=True)
    assert rows.collect() == [x + 12 for x in range(8)]
    assert rows.explain().count("map at") == 1


def test_a_damaged_file_is_a_clear_error(fc, tmp_path):
    # One partition: a task beside it would be stopped, perhaps between opening its file and taking hold of it.
    rows = fc.range(100, num_partitions=1).checkpoint(tmp_path / "damaged", eager=True)
    file = tmp_path / "damaged" / "part-00000.block"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointDamaged, match=r"part-00000.block is damaged or gone \(a checksum does not fit\)"):
        rows.collect()
    file.unlink()
    with pytest.raises(CheckpointDamaged, match="part-00000.block"):
        rows.count()


def test_a_job_that_fails_leaves_no_checkpoint_and_the_next_try_makes_one(fc, tmp_path):
    (tmp_path / "stop").touch()
    place = tmp_path

    def moody(x):
        if (place / "stop").exists():
            raise LookupError("not yet")
        return x

    rows = fc.range(4, num_partitions=2).map(moody).checkpoint(tmp_path / "kept")
    with pytest.raises(LookupError):
        rows.count()
    assert not (tmp_path / "kept").exists()
    (tmp_path / "stop").unlink()
    assert rows.count() == 4
    assert rows.is_checkpointed


def test_what_makes_no_sense_is_refused_at_the_call(fc, tmp_path):
    with pytest.raises(InvalidArgument, match="checkpoint_directory"):
        fc.range(3).checkpoint()
    with pytest.raises(OutputExists, match="exists already"):
        fc.range(3).checkpoint(tmp_path)
    rows = fc.range(3).checkpoint(tmp_path / "one")
    with pytest.raises(InvalidArgument, match="checkpointed already"):
        rows.checkpoint(tmp_path / "two")
    for wrong in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InvalidArgument, match="is no checkpoint"):
            fc.checkpoint_file(wrong)


@pytest.mark.undisturbed
def test_a_local_one_forgets_the_lineage_and_keeps_the_rows(fc):
    rows = fc.range(40, num_partitions=4).map(lambda x: x * 2).local_checkpoint()
    assert rows.sum() == sum(range(0, 80, 2))
    assert rows.is_locally_checkpointed
    assert "range at" not in rows.explain()
    assert rows.storage_level.use_disk
