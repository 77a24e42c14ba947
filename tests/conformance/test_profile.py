"""A profile: every operation of a stage has its own rows and time, and the user's lines have theirs, wherever tasks run."""

from __future__ import annotations

import inspect
from operator import add

import pytest


def names(profile):
    return [label.partition(" at ")[0] for label in profile.operations]


def cost(profile, name):
    return next(each for label, each in profile.operations.items() if label.startswith(name))


def spin(x):
    total = 0
    for number in range(20_000):
        total += number % 7
    return x + (total < 0)


def test_operations_of_one_stage_have_rows_and_time_of_their_own(fc):
    with fc.profile() as found:
        assert fc.range(100, num_partitions=2).map(spin).filter(lambda x: x % 2).flat_map(lambda x: [x, x]).count() == 100
    assert names(found) == ["range", "map(spin)", "filter(<lambda>)", "flat_map(<lambda>)", "count"]
    assert [each.rows for each in found.operations.values()] == [100, 100, 50, 100, 0]
    assert cost(found, "map").seconds > 0.8 * found.seconds
    assert found.tasks >= 2


def test_the_line_that_takes_the_time_is_named(fc):
    with fc.profile() as found:
        fc.range(200, num_partitions=2).map(spin).map(lambda x: (x, x)).count()
    place, seconds = next(iter(found.line_seconds.items()))
    lines, first = inspect.getsourcelines(spin)
    assert place.file.endswith("test_profile.py")
    assert place.line in {first + 2, first + 3}
    assert place.function == "spin"
    assert seconds > 0.2 * found.seconds
    assert sum(found.line_seconds.values()) <= found.seconds * 1.01


def test_both_sides_of_a_shuffle_are_told_apart(fc):
    with fc.profile() as found:
        fc.range(100, num_partitions=2).map(lambda x: (x % 5, 1)).reduce_by_key(add, 2).collect()
    before = [label for label in found.operations if label.endswith("before the shuffle")]
    assert len(before) == 1
    assert names(found)[-2:] == ["reduce_by_key", "collect"]
    assert "rows made" in repr(found)
    assert "<table>" in found._repr_html_()


def test_operations_on_one_line_are_told_apart(fc):
    with fc.profile() as found:
        fc.range(10, num_partitions=1).map(spin).map(spin).map(spin).count()
    assert len([name for name in names(found) if name.startswith("map")]) == 3
    assert [each.rows for each in found.operations.values()] == [10, 10, 10, 10, 0]


def test_cached_rows_take_no_time_of_those_who_made_them(fc):
    made = fc.range(50, num_partitions=2).map(spin).cache()
    made.count()
    with fc.profile() as found:
        assert made.map(lambda x: -x).count() == 50
    if "range" not in names(found):  # an executor that died took its partitions along
        assert cost(found, "map(spin)").seconds < 0.05


def test_memory_is_that_of_whoever_holds_it(fc):
    def hold(rows):
        kept = [bytes(10_000) for _ in rows]
        yield len(kept)

    with fc.profile(memory=True) as found:
        assert fc.range(1_000, num_partitions=1).map(lambda x: x).map_partitions(hold).collect() == [1_000]
    assert cost(found, "map_partitions(hold)").held_bytes > 9_000_000
    assert cost(found, "map(<lambda>)").held_bytes < 1_000_000
    place, size = next(iter(found.line_bytes.items()))
    assert place.line == inspect.getsourcelines(hold)[1] + 1
    assert size > 4_000_000


def test_jobs_outside_of_the_block_are_not_measured(fc):
    with fc.profile() as found:
        pass
    fc.range(3).count()
    assert found.tasks == 0
    assert "no task" in repr(found)


def test_what_fails_in_a_profile_fails_as_ever(fc):
    def fail(x):
        raise LookupError(f"no {x}")

    with fc.profile(), pytest.raises(LookupError, match="no 0") as raised:
        fc.range(3, num_partitions=1).map(fail).count()
    assert any("map at" in note for note in raised.value.__notes__)
