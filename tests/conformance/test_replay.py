"""A failed partition again in the driver, up to the element at fault, however it was run before."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from operator import add

import pytest

from flowkit import __version__, open_capsule
from flowkit.errors import InvalidArgument, NotReplayable
from flowkit.rdd.capsules import CapsuleRunsCode


def failure(action):
    with pytest.raises(Exception) as raised:
        action()
    return raised.value


def bad_at(number):
    def check(x):
        if x == number:
            raise LookupError(f"no {x}")
        return x

    return check


def test_the_element_at_fault_is_handed_out(fc):
    error = failure(fc.range(20, num_partitions=4).map(lambda x: x * 2).map(bad_at(26)).filter(bool).collect)
    replayed = error.replay(debug=False)
    assert replayed.element == 26
    assert isinstance(replayed.error, LookupError)
    assert "check" in replayed.traceback.tb_frame.f_code.co_name
    assert "failed again at 26: LookupError" in repr(replayed)
    assert error.replay.partition == 2


def test_behind_a_shuffle_its_rows_come_from_the_shuffle(fc):
    sums = fc.range(20, num_partitions=4).map(lambda x: (x % 5, x)).reduce_by_key(add, 3)
    seen = fc.accumulator(0)
    error = failure(sums.map(lambda pair: seen.add(1) or pair).map_values(bad_at(34)).collect)
    before = seen.value
    replayed = error.replay(debug=False)
    assert replayed.element == 34
    assert seen.value == before


def test_before_a_shuffle_too(fc):
    error = failure(fc.range(20, num_partitions=4).map(bad_at(11)).map(lambda x: (x % 5, x)).reduce_by_key(add, 3).collect)
    assert error.replay(debug=False).element == 11


def test_a_function_that_merges_on_the_map_side(fc):
    def merge(a, b):
        raise ArithmeticError(f"{a} and {b}")

    error = failure(fc.parallelize([(1, 2), (1, 3)], 1).reduce_by_key(merge).collect)
    replayed = error.replay(debug=False)
    assert str(replayed.error) == "2 and 3"
    with pytest.raises(AttributeError, match="one element"):
        _ = replayed.element


def test_the_function_of_an_action(fc):
    def visit(x):
        if x == 5:
            raise ValueError("five")

    error = failure(lambda: fc.range(8, num_partitions=2).foreach(visit))
    assert error.replay(debug=False).element == 5


@pytest.mark.undisturbed
def test_cached_parents_are_used_and_what_fails_while_it_is_cached_is_computed_again(fc):
    calls = fc.accumulator(0)
    parent = fc.range(8, num_partitions=2).map(lambda x: calls.add(1) or x).cache()
    parent.count()
    before = calls.value
    error = failure(parent.map(bad_at(6)).collect)
    assert error.replay(debug=False).element == 6
    assert calls.value == before
    error = failure(fc.range(8, num_partitions=2).map(bad_at(6)).cache().map(str).collect)
    assert error.replay(debug=False).element == 6


def test_unions_joins_and_coalesced_partitions(fc):
    left = fc.range(4, num_partitions=2)
    error = failure(left.union(left.map(lambda x: x + 10)).coalesce(1).map(bad_at(12)).collect)
    assert error.replay(debug=False).element == 12
    pairs = left.map(lambda x: (x, x))
    error = failure(pairs.join(pairs).map_values(lambda both: bad_at(3)(both[0])).collect)
    assert error.replay(debug=False).element == (3, 3)


def test_what_goes_well_the_second_time_says_so(fc, tmp_path):
    marker = tmp_path / "failing"
    marker.touch()

    def moody(x):
        if marker.exists():
            raise OSError("not today")
        return x

    error = failure(fc.range(4, num_partitions=1).map(moody).collect)
    marker.unlink()
    replayed = error.replay(debug=False)
    assert replayed.error is None
    assert replayed.value == [0, 1, 2, 3]
    assert "went well this time" in repr(replayed)


def test_what_fails_while_its_rows_are_merged_is_merged_again_here(fc):
    def merge(a, b):
        if {a, b} == {2, 3}:
            raise ArithmeticError(f"{a} and {b}")
        return a + b

    pairs = fc.parallelize([(1, 2), (5, 2), (1, 3), (5, 4)], 4)
    for rdd in (
        pairs.reduce_by_key(merge),
        pairs.fold_by_key(0, merge),
        pairs.reduce_by_key(merge).map_values(str),
        pairs.aggregate_by_key(0, merge, merge),
    ):
        replayed = failure(rdd.collect).replay(debug=False)
        assert str(replayed.error) in {"2 and 3", "3 and 2"}
        assert replayed.traceback.tb_frame.f_code.co_name == "merge"


def test_what_fails_while_its_rows_are_sorted_is_sorted_again_here(fc):
    def picky(key):
        if key == 7:
            raise LookupError("no sevens")
        return key

    sorted_within = fc.range(10, num_partitions=2).map(lambda x: (x, x)).repartition_and_sort_within_partitions(2, key=picky)
    replayed = failure(sorted_within.collect).replay(debug=False)
    assert str(replayed.error) == "no sevens"


def test_what_fails_behind_a_join_whose_sides_lie_differently(fc):
    left = fc.range(6, num_partitions=2).map(lambda x: (x % 3, x)).partition_by(2)
    right = fc.range(3, num_partitions=3).map(lambda x: (x, -x))
    error = failure(left.join(right, 2).map(bad_at((1, (4, -1)))).collect)
    assert error.replay(debug=False).element == (1, (4, -1))


def test_what_cannot_be_read_says_that_it_cannot_be_replayed(fc, tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("1\n2\n")
    lines = fc.text_file(str(path)).map(int)
    path.unlink()
    with pytest.raises(NotReplayable, match="fails where its rows are read"):
        failure(lines.collect).replay(debug=False)


def test_an_error_travels_without_its_replay(fc):
    error = failure(fc.range(4).map(bad_at(2)).collect)
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, LookupError)
    assert copy.replay is None


def test_an_attribute_of_the_users_own_by_that_name_stays(fc):
    def fail(x):
        error = ValueError("mine")
        error.replay = "my own"
        raise error

    assert failure(fc.range(2).map(fail).collect).replay == "my own"


def test_a_capsule_is_replayed_by_another_process(fc, tmp_path):
    table = fc.broadcast({"limit": 26})
    seen = fc.accumulator(0)

    def check(x):
        seen.add(1)
        if x == table.value["limit"]:
            raise LookupError(f"no {x}")
        return x

    error = failure(fc.range(20, num_partitions=4).map(lambda x: x * 2).map(check).collect)
    saved = error.replay.save(tmp_path / "failed.capsule")
    assert saved.stat().st_mode & 0o077 == 0
    script = (
        "import sys, warnings, flowkit as fk\n"
        "capsule = fk.open_capsule(sys.argv[1])\n"
        "with warnings.catch_warnings(record=True) as said:\n"
        "    warnings.simplefilter('always')\n"
        "    replayed = capsule(debug=False)\n"
        "assert 'runs code' in str(said[0].message), said\n"
        "print(repr(capsule)); print(repr(replayed.error), replayed.element)\n"
    )
    # The suite's own module is known by reference: whoever replays has it too.
    ran = subprocess.run(
        [sys.executable, "-c", script, str(saved)],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "LookupError: no 26" in ran.stdout
    assert "packages  as here" in " ".join(ran.stdout.split("\n")).replace("              ", "  ")
    assert ran.stdout.rstrip().endswith("LookupError('no 26') 26")


def test_a_capsule_names_what_differs_before_it_runs_anything(fc, tmp_path):
    error = failure(fc.range(4, num_partitions=1).map(bad_at(2)).collect)
    saved = error.replay.save(tmp_path / "failed.capsule")
    header, rest = saved.read_bytes().split(b"\n", 1)
    told = json.loads(header)
    told["packages"]["flowkit"] = "0.0.1"
    told["packages"]["gone-package"] = "3.0"
    saved.write_bytes(json.dumps(told).encode() + b"\n" + rest)
    capsule = open_capsule(saved)
    assert capsule.mismatches() == [f"flowkit 0.0.1 there, {__version__} here", "gone-package 3.0 there, none here"]
    assert "gone-package" in repr(capsule)
    assert "gone-package" in capsule._repr_html_()
    with pytest.warns(CapsuleRunsCode, match="gone-package 3.0 there"):
        assert capsule(debug=False).element == 2


@pytest.mark.parametrize("content", [b"", b"no json\n", b"{}\n", b'{"flowkit_capsule": 99}\n', b"\x80\x05."])
def test_what_is_no_capsule_is_refused(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InvalidArgument, match=r"no capsule|format 99"):
        open_capsule(tmp_path / "file")
    with pytest.raises(InvalidArgument, match="no capsule"):
        open_capsule(tmp_path / "missing")
