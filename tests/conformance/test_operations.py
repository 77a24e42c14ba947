"""What every operation yields, edges included, however it is run."""

from __future__ import annotations

import random
from collections import Counter
from decimal import Decimal
from operator import add

import pytest

import flowkit as fk
from flowkit.errors import EmptyRdd, OutputExists, StopIterationInTask

# -- sources -----------------------------------------------------------------------------------------------------------


def test_a_collection_is_cut_into_slices_of_equal_length(fc):
    assert fc.parallelize([1, 2, 3], 5).glom().collect() == [[], [1], [], [2], [3]]
    assert fc.parallelize(range(7), 3).glom().collect() == [[0, 1], [2, 3], [4, 5, 6]]


def test_an_empty_collection_still_has_its_partitions(fc):
    assert fc.parallelize([], 3).glom().collect() == [[], [], []]


def test_a_generator_is_listed_first(fc):
    assert fc.parallelize((x * x for x in range(4)), 2).collect() == [0, 1, 4, 9]


def test_a_large_collection_travels_beside_the_program(fc):
    rows = [f"row {i} " * 10 for i in range(5_000)]
    assert fc.parallelize(rows, 4).collect() == rows


@pytest.mark.parametrize(
    "bounds", [(10,), (3, 9), (0, 10, 3), (10, 0, -3), (5, 5), (0, -5), (0, 10**30, 10**29), (-(10**30), 10**30, 10**30)]
)
@pytest.mark.parametrize("parts", [1, 3])
def test_a_range_is_that_of_python(fc, bounds, parts):
    assert fc.range(*bounds, num_partitions=parts).collect() == list(range(*bounds))


def test_a_huge_range_is_never_listed(fc):
    assert fc.range(10**15, num_partitions=2).take(2) == [0, 1]


def test_an_rdd_without_partitions_is_empty(fc):
    assert fc.empty().collect() == []
    assert fc.empty().count() == 0
    assert fc.empty().sum() == 0
    assert fc.empty().is_empty()


# -- narrow ------------------------------------------------------------------------------------------------------------


def test_element_wise_steps_keep_order_and_partitions(fc):
    rdd = fc.range(10, num_partitions=3).map(lambda x: x + 1).filter(lambda x: x % 2).flat_map(lambda x: [x] * (x % 3))
    assert rdd.collect() == [x for x in range(1, 11) if x % 2 for _ in range(x % 3)]
    assert rdd.num_partitions == 3


def test_partition_functions_see_a_whole_partition(fc):
    rdd = fc.range(6, num_partitions=3)
    assert rdd.map_partitions(lambda rows: [sum(rows)]).collect() == [1, 5, 9]
    assert rdd.map_partitions_with_index(lambda i, rows: ((i, row) for row in rows)).collect() == [
        (0, 0),
        (0, 1),
        (1, 2),
        (1, 3),
        (2, 4),
        (2, 5),
    ]


def test_a_partition_function_that_returns_nothing_is_told_so(fc):
    with pytest.raises(TypeError, match="iterable"):
        fc.range(2).map_partitions(lambda rows: None).collect()


def test_a_flat_map_that_returns_a_number_is_told_so(fc):
    with pytest.raises(TypeError, match="iterable"):
        fc.range(2).flat_map(lambda x: x).collect()


def test_a_union_keeps_both_sides_partitions_and_duplicates(fc):
    both = fc.range(3, num_partitions=2) + fc.range(2, 5, num_partitions=3)
    assert both.num_partitions == 5
    assert both.collect() == [0, 1, 2, 2, 3, 4]


def test_a_union_of_many_is_one_step(fc):
    rdds = [fc.range(i, num_partitions=1) for i in range(30)]
    assert fc.union(rdds).collect() == [x for i in range(30) for x in range(i)]


def test_a_union_with_itself_doubles(fc):
    rdd = fc.range(3, num_partitions=2)
    assert rdd.union(rdd).collect() == [0, 1, 2, 0, 1, 2]


def test_a_union_of_rdds_that_lie_alike_keeps_lying_so(fc):
    left = fc.range(10).map(lambda x: (x, "l")).partition_by(2)
    right = fc.range(10).map(lambda x: (x, "r")).partition_by(2)
    both = left.union(right)
    assert both.num_partitions == 2
    assert both.partitioner == left.partitioner
    assert sorted(both.group_by_key().map_values(len).values().collect()) == [2] * 10


def test_keys_values_and_the_like(fc):
    rdd = fc.parallelize(["a", "bb"], 2).key_by(len)
    assert rdd.collect() == [(1, "a"), (2, "bb")]
    assert rdd.keys().collect() == [1, 2]
    assert rdd.values().collect() == ["a", "bb"]
    assert rdd.map_values(str.upper).collect() == [(1, "A"), (2, "BB")]
    assert rdd.flat_map_values(list).collect() == [(1, "a"), (2, "b"), (2, "b")]


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_indices_run_through_all_partitions(fc, parts):
    rows = list("abcdef")
    assert fc.parallelize(rows, parts).zip_with_index().collect() == [(row, i) for i, row in enumerate(rows)]


# -- by key ------------------------------------------------------------------------------------------------------------

WORDS = random.Random(5).choices("abcdefgh", k=300)


def test_word_count(fc):
    counts = fc.parallelize(WORDS, 4).map(lambda w: (w, 1)).reduce_by_key(add, 3)
    assert counts.collect_as_map() == Counter(WORDS)
    assert counts.num_partitions == 3


def test_groups_are_in_the_order_of_the_input(fc):
    rdd = fc.parallelize([(w, i) for i, w in enumerate(WORDS)], 5).group_by_key(3)
    expected: dict[str, list[int]] = {}
    for i, w in enumerate(WORDS):
        expected.setdefault(w, []).append(i)
    assert rdd.collect_as_map() == expected


def test_a_reducer_need_not_commute(fc):
    rdd = fc.parallelize([(i % 3, str(i)) for i in range(30)], 6).reduce_by_key(add)
    assert rdd.collect_as_map() == {k: "".join(str(i) for i in range(30) if i % 3 == k) for k in range(3)}


def test_combiners_of_another_type(fc):
    rdd = fc.parallelize([("a", 1), ("b", 2), ("a", 3)], 3)
    combined = rdd.combine_by_key(lambda v: (v, 1), lambda c, v: (c[0] + v, c[1] + 1), lambda c, d: (c[0] + d[0], c[1] + d[1]))
    assert combined.collect_as_map() == {"a": (4, 2), "b": (2, 1)}


def test_a_mutable_zero_is_not_shared_by_keys(fc):
    rdd = fc.parallelize([(i % 4, i) for i in range(20)], 3)
    result = rdd.aggregate_by_key([], lambda c, v: (c.append(v), c)[1], lambda c, d: c + d).collect_as_map()
    assert result == {k: list(range(k, 20, 4)) for k in range(4)}
    assert fc.parallelize([("a", 1), ("a", 2)], 2).fold_by_key(10, add).collect() == [("a", 23)]


def test_one_true_and_one_point_zero_are_one_key(fc):
    rdd = fc.parallelize([(1, "a"), (True, "b"), (1.0, "c"), (Decimal(1), "d")], 4)
    assert rdd.group_by_key(3).values().collect() == [["a", "b", "c", "d"]]


@pytest.mark.parametrize("key", [None, "", b"x", (), (None, 1.5), frozenset({1, 2}), -1, 2**80, float("inf")])
def test_keys_of_many_types_meet(fc, key):
    rdd = fc.parallelize([(key, i) for i in range(6)], 3)
    assert rdd.reduce_by_key(add, 4).collect() == [(key, 15)]


def test_a_key_that_hashes_by_address_is_refused_by_its_type(fc):
    class Thing:
        pass

    with pytest.raises(TypeError, match="Thing"):
        fc.range(4, num_partitions=2).map(lambda i: (Thing(), i)).reduce_by_key(add).collect()


def test_a_key_that_cannot_be_hashed_is_refused(fc):
    with pytest.raises(TypeError, match="list"):
        fc.range(4, num_partitions=2).map(lambda i: ([i], i)).group_by_key().collect()


def test_what_is_no_pair_is_refused_with_the_row(fc):
    with pytest.raises(TypeError, match="'abc'"):
        fc.parallelize(["abc"] * 4, 2).group_by_key().collect()


def test_partition_by_a_function(fc):
    rdd = fc.range(6).map(lambda i: (i - 3, i)).partition_by(3, lambda k: k)
    assert [sorted(part) for part in rdd.keys().glom().collect()] == [[-3, 0], [-2, 1], [-1, 2]]


def test_distinct(fc):
    assert sorted(fc.parallelize([3, 1, 1.0, True, 2, 3], 3).distinct().collect()) == [1, 2, 3]
    assert fc.parallelize([], 3).distinct().collect() == []
    assert set(fc.parallelize(["a", None, ("x", 1), None], 2).distinct().collect()) == {"a", None, ("x", 1)}


def test_distinct_refuses_what_cannot_be_hashed(fc):
    with pytest.raises(TypeError, match=r"distinct at .*got \[1\]"):
        fc.parallelize([[1], [1]], 2).distinct().collect()


def test_what_lies_by_key_already_stays_where_it_is(fc):
    rdd = fc.range(12, num_partitions=4).map(lambda i: (i % 5, i)).partition_by(3)
    assert rdd.partition_by(3) is rdd
    assert rdd.partition_by(2) is not rdd
    for aggregated in (rdd.reduce_by_key(add), rdd.group_by_key().map_values(sum), rdd.combine_by_key(int, add, add)):
        assert aggregated.partitioner == rdd.partitioner
        for place, keys in enumerate(aggregated.keys().glom().collect()):
            assert all(rdd.partitioner.partition_of(key) == place for key in keys)
        assert aggregated.collect_as_map() == {k: sum(range(k, 12, 5)) for k in range(5)}


@pytest.mark.parametrize("made", ["without partitions", "without elements"])
def test_every_operation_takes_an_rdd_without_elements(fc, made):
    rdd = fc.empty() if made == "without partitions" else fc.parallelize([], 3)
    pairs, one = rdd.map(lambda x: (x, x)), fc.parallelize([(1, 2)], 1)
    for result in (
        pairs.reduce_by_key(add),
        pairs.group_by_key(),
        pairs.partition_by(2),
        pairs.join(pairs),
        pairs.join(one),
        pairs.cogroup(pairs),
        pairs.left_outer_join(one),
        pairs.sort_by_key(),
        rdd.sort_by(abs, num_partitions=3),
        rdd.distinct(),
        rdd.zip_with_index(),
        rdd + rdd,
        rdd.cache(),
    ):
        assert result.collect() == []
    assert pairs.full_outer_join(one).collect() == [(1, (None, 2))]
    assert (rdd.top(2), rdd.take(2), rdd.count(), rdd.is_empty()) == ([], [], 0, True)
    rdd.unpersist()


# -- joins -------------------------------------------------------------------------------------------------------------

LEFT = [(1, "a"), (1, "b"), (2, "c"), (None, "n")]
RIGHT = [(1, "x"), (1, "y"), (3, "z"), (None, "m")]


def joined(left, right, outer_left=False, outer_right=False):
    keys = [*dict.fromkeys(k for k, _ in [*left, *right])]
    result = []
    for key in keys:
        ls = [v for k, v in left if k == key] or ([None] if outer_right else [])
        rs = [v for k, v in right if k == key] or ([None] if outer_left else [])
        result += [(key, (v, w)) for v in ls for w in rs]
    return sorted(result, key=repr)


@pytest.mark.parametrize(
    "name, left, right",
    [
        ("join", False, False),
        ("left_outer_join", True, False),
        ("right_outer_join", False, True),
        ("full_outer_join", True, True),
    ],
)
@pytest.mark.parametrize("lying", ["nowhere", "left", "right", "both"])
def test_joins_give_all_pairs_of_each_key(fc, name, left, right, lying):
    a, b = fc.parallelize(LEFT, 2), fc.parallelize(RIGHT, 3)
    a = a.partition_by(4) if lying in ("left", "both") else a
    b = b.partition_by(4) if lying in ("right", "both") else b
    result = getattr(a, name)(b)
    assert sorted(result.collect(), key=repr) == joined(LEFT, RIGHT, left, right)
    assert result.num_partitions == (5 if lying == "nowhere" else 4)


def test_a_join_has_as_many_partitions_as_both_sides_together(fc):
    a, b = fc.parallelize(LEFT, 3), fc.parallelize(RIGHT, 4)
    assert (a.join(b).num_partitions, a.cogroup(b).num_partitions, a.join(b, 2).num_partitions) == (7, 7, 2)
    assert a.join(b, 2).count() == a.join(b).count()


def test_sides_that_lie_alike_are_joined_as_others_are(fc):
    a = fc.parallelize([(i % 7, i) for i in range(40)], 3).partition_by(4)
    b = fc.parallelize([(i % 9, -i) for i in range(30)], 2).reduce_by_key(add, 4)
    assert a.partitioner == b.partitioner
    alike, shuffled = a.join(b), a.map(lambda kv: kv).join(b.map(lambda kv: kv), 4)
    assert sorted(alike.collect()) == sorted(shuffled.collect())
    assert "no shuffle" in alike.explain()


def test_a_join_with_itself(fc):
    rdd = fc.parallelize([(i % 3, i) for i in range(6)], 2)
    assert len(rdd.join(rdd).collect()) == 12
    assert rdd.join(rdd).explain().count("writes the shuffle") == 1
    assert sorted(rdd.cogroup(rdd, rdd).map_values(lambda parts: [sorted(part) for part in parts]).collect()) == [
        (k, [[k, k + 3]] * 3) for k in range(3)
    ]


def test_a_join_with_something_empty_is_empty(fc):
    rdd = fc.parallelize(LEFT, 2)
    assert rdd.join(fc.parallelize([], 2)).collect() == []
    assert len(rdd.left_outer_join(fc.empty()).collect()) == 4


def test_cogroup_of_three(fc):
    a, b, c = fc.parallelize(LEFT, 2), fc.parallelize(RIGHT, 3), fc.parallelize([(2, 0)], 1)
    grouped = a.cogroup(b, c, num_partitions=3).collect_as_map()
    assert grouped == {
        1: (["a", "b"], ["x", "y"], []),
        2: (["c"], [], [0]),
        3: ([], ["z"], []),
        None: (["n"], ["m"], []),
    }


# -- sorting -----------------------------------------------------------------------------------------------------------

NUMBERS = random.Random(7).choices(range(100), k=500)


@pytest.mark.parametrize("ascending", [True, False])
@pytest.mark.parametrize("parts", [1, 3, 8])
def test_sorting_is_stable_both_ways(fc, ascending, parts):
    rows = list(enumerate(NUMBERS))
    by_value = fc.parallelize(rows, 4).sort_by(lambda row: row[1], ascending=ascending, num_partitions=parts)
    assert by_value.collect() == sorted(rows, key=lambda row: row[1], reverse=not ascending)


def test_sort_by_key_with_a_key_function(fc):
    rows = [("b", 1), ("A", 2), ("a", 3), ("B", 4)]
    assert fc.parallelize(rows, 2).sort_by_key(key=str.lower).collect() == [("A", 2), ("a", 3), ("b", 1), ("B", 4)]


def test_sorting_nothing_and_equal_keys(fc):
    assert fc.parallelize([], 3).sort_by(lambda x: x).collect() == []
    assert fc.parallelize([1] * 50, 5).sort_by(lambda x: x, num_partitions=4).collect() == [1] * 50


def test_equal_keys_lie_in_one_partition(fc):
    parts = fc.parallelize(NUMBERS, 4).sort_by(lambda x: x, num_partitions=6).glom().collect()
    seen = [set(part) for part in parts]
    assert sum(map(len, seen)) == len(set(NUMBERS))


def test_keys_that_cannot_be_compared_are_a_type_error(fc):
    with pytest.raises(TypeError):
        fc.parallelize([1, "a", 2, "b"], 2).sort_by(lambda x: x).collect()


# -- actions -----------------------------------------------------------------------------------------------------------


def test_take_takes_from_the_front(fc):
    rdd = fc.range(100, num_partitions=10)
    assert rdd.take(3) == [0, 1, 2]
    assert rdd.take(25) == list(range(25))
    assert rdd.take(1000) == list(range(100))
    assert rdd.take(0) == rdd.take(-1) == []
    assert fc.parallelize([7], 9).take(5) == [7]


def test_take_computes_few_partitions(fc, tmp_path):
    def noted(index: int, rows):
        (tmp_path / str(index)).touch()
        return rows

    rdd = fc.range(100, num_partitions=50).map_partitions_with_index(noted)
    for count, computed in ((2, 1), (3, 2), (1, 2), (12, 9)):
        assert rdd.take(count) == list(range(count))
        assert len(list(tmp_path.iterdir())) <= computed
    assert not rdd.is_empty()
    assert rdd.first() == 0
    assert len(list(tmp_path.iterdir())) <= 9


def test_first_of_nothing_is_a_value_error(fc):
    assert fc.parallelize([5, 6], 4).first() == 5
    with pytest.raises(ValueError, match="empty"):
        fc.parallelize([], 2).first()


def test_fold_uses_zero_once_a_partition_and_once_more(fc):
    assert fc.parallelize([1, 2, 3], 3).fold(10, add) == 46
    assert fc.parallelize([1, 2, 3], 3).aggregate(10, add, add) == 46
    assert fc.parallelize([], 2).aggregate(5, add, add) == 15


def test_a_mutable_zero_is_copied(fc):
    zero: list[int] = []
    result = fc.range(6, num_partitions=3).aggregate(zero, lambda c, x: (c.append(x), c)[1], lambda c, d: (c.extend(d), c)[1])
    assert result == list(range(6))
    assert zero == []


def test_reduce_is_in_order_and_skips_empty_partitions(fc):
    assert fc.parallelize(["a", "b", "c"], 7).reduce(add) == "abc"
    with pytest.raises(EmptyRdd, match="empty"):
        fc.parallelize([], 2).reduce(add)


def test_numbers(fc):
    rdd = fc.parallelize([3, 1, 2], 2)
    assert (rdd.sum(), rdd.max(), rdd.min(), rdd.count()) == (6, 3, 1, 3)
    assert rdd.max(key=lambda x: -x) == 1
    assert fc.parallelize([], 2).sum() == 0
    with pytest.raises(ValueError, match="empty"):
        fc.parallelize([], 2).max()


def test_of_equal_extremes_the_first_counts(fc):
    rdd = fc.parallelize([("a", 1), ("b", 1)], 2)
    assert rdd.max(key=lambda row: row[1]) == rdd.min(key=lambda row: row[1]) == ("a", 1)


def test_top(fc):
    rdd = fc.parallelize(NUMBERS, 5)
    assert rdd.top(7) == sorted(NUMBERS, reverse=True)[:7]
    assert rdd.top(3, key=lambda x: -x) == sorted(NUMBERS)[:3]
    assert rdd.top(0) == rdd.top(-1) == []


def test_of_several_values_of_a_key_the_last_counts(fc):
    assert fc.parallelize([("a", 1), ("b", 2), ("a", 3)], 3).collect_as_map() == {"a": 3, "b": 2}


def test_foreach_is_called_for_every_element_and_returns_nothing(fc, tmp_path):
    def leave(row: int) -> int:
        (tmp_path / str(row)).touch()
        return row

    assert fc.range(5, num_partitions=2).foreach(leave) is None
    assert fc.range(5, 8, num_partitions=2).foreach_partition(lambda rows: [leave(row) for row in rows]) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [str(i) for i in range(8)]


def test_results_beyond_a_message_arrive_whole(fc):
    rows = fc.range(3, num_partitions=3).map(lambda i: bytes([i]) * 200_000).collect()
    assert rows == [bytes([i]) * 200_000 for i in range(3)]


# -- files -------------------------------------------------------------------------------------------------------------


def test_text_is_read_as_it_was_saved(fc, tmp_path):
    fc.parallelize(["one", "zwei", "três"], 2).save_as_text(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["_SUCCESS", "part-00000", "part-00001"]
    assert fc.text_file(tmp_path / "out").collect() == ["one", "zwei", "três"]


def test_lines_end_as_files_of_all_systems_end_them_and_nowhere_else(fc, tmp_path):
    (tmp_path / "a.txt").write_bytes("a\r\nb\n\nc\u2028\x0b\x85d".encode())
    (tmp_path / "b.txt").touch()
    for parts in (None, 1, 7):
        assert fc.text_file(tmp_path, parts).collect() == ["a", "b", "", "c\u2028\x0b\x85d"]


def test_text_whose_newline_is_two_bytes_is_read_in_one_piece(fc, tmp_path):
    lines = [f"Zeile ä {i}" for i in range(40_000)]
    (tmp_path / "a.txt").write_text("\n".join(lines), encoding="utf-16")
    for parts in (None, 4):
        rdd = fc.text_file(tmp_path / "a.txt", parts, encoding="utf-16")
        assert rdd.num_partitions == 1
        assert rdd.collect() == lines


def test_several_paths_stand_with_commas_between(fc, tmp_path):
    for name in ("a.txt", "b.txt", "c,d.txt"):
        (tmp_path / name).write_text(name)
    assert fc.text_file(f"{tmp_path}/b.txt,{tmp_path}/a.*").collect() == ["b.txt", "a.txt"]
    assert fc.text_file(tmp_path / "c,d.txt").collect() == ["c,d.txt"]
    assert sorted(fc.text_file(f"{tmp_path}/{{a,b}}.txt").collect()) == ["a.txt", "b.txt"]


def test_what_cannot_be_read_names_the_file(fc, tmp_path):
    (tmp_path / "a.gz").write_bytes(b"not compressed")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe")
    for name in ("a.gz", "b.txt"):
        with pytest.raises((OSError, UnicodeDecodeError)) as caught:
            fc.text_file(tmp_path / name).map(len).collect()
        told = "\n".join(caught.value.__notes__)
        assert name in told
        assert "In text_file at " in told


def test_an_rdd_without_elements_is_saved_as_none(fc, tmp_path):
    fc.empty().save_as_text(tmp_path / "none")
    assert [path.name for path in (tmp_path / "none").iterdir()] == ["_SUCCESS"]
    fc.parallelize([], 2).save_as_text(tmp_path / "empty")
    assert fc.text_file(tmp_path / "empty").collect() == []


def test_bytes_are_saved_as_they_are(fc, tmp_path):
    fc.parallelize([b"\xff\x00", "text", 3, None], 1).save_as_text(tmp_path / "out")
    assert (tmp_path / "out" / "part-00000").read_bytes() == b"\xff\x00\ntext\n3\nNone\n"


def test_what_is_there_is_never_overwritten(fc, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputExists, match="out"):
        fc.range(2).save_as_text(tmp_path / "out")


def test_a_job_that_fails_leaves_no_output(fc, tmp_path):
    with pytest.raises(ZeroDivisionError):
        fc.range(4, num_partitions=2).map(lambda i: 1 // (i - 3)).save_as_text(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_large_files_are_split_at_line_ends(fc, tmp_path):
    lines = [f"{i} {'x' * (i % 90)}" for i in range(60_000)]
    (tmp_path / "big.txt").write_text("\n".join(lines))
    rdd = fc.text_file(tmp_path / "big.txt", 3)
    assert rdd.num_partitions >= 3
    assert rdd.collect() == lines


def test_small_files_share_partitions_as_many_as_were_asked_for(fc, tmp_path):
    for i in range(40):
        (tmp_path / f"{i:02}.txt").write_text(f"{i:02}\n")
    for asked, made in ((None, 1), (2, 2), (8, 8)):
        rdd = fc.text_file(tmp_path, asked)
        assert rdd.num_partitions == made
        assert rdd.collect() == [f"{i:02}" for i in range(40)]


def test_compressed_files_are_known_by_their_suffix(fc, tmp_path):
    import bz2
    import gzip
    import lzma

    for module, suffix in ((gzip, "gz"), (bz2, "bz2"), (lzma, "xz")):
        with module.open(tmp_path / f"a.txt.{suffix}", "wt") as file:
            file.write(f"{suffix} 1\n{suffix} 2\n")
    assert fc.text_file(str(tmp_path / "*.txt.*")).collect() == [f"{s} {i}" for s in ("bz2", "gz", "xz") for i in (1, 2)]


def test_whole_files(fc, tmp_path):
    for name in ("b", "a", "_hidden", ".hidden"):
        (tmp_path / name).write_bytes(name.encode())
    assert fc.binary_files(tmp_path).collect() == [(str(tmp_path / "a"), b"a"), (str(tmp_path / "b"), b"b")]


# -- caching -----------------------------------------------------------------------------------------------------------


@pytest.mark.undisturbed
def test_a_cached_rdd_is_computed_once(fc, tmp_path):
    def noted(row: int) -> int:
        path = tmp_path / str(row)
        path.write_text(path.read_text() + "x" if path.exists() else "x")
        return row

    rdd = fc.range(4, num_partitions=2).map(noted).cache()
    assert rdd.sum() == rdd.map(lambda x: x).sum() == 6
    computed = {path.read_text() for path in tmp_path.iterdir()}
    rdd.unpersist(blocking=True)
    assert rdd.sum() == 6
    again = {path.read_text() for path in tmp_path.iterdir()}
    # With next to no memory nothing is kept, and everything is computed each time.
    assert (computed, again) in [({"x"}, {"xx"}), ({"xx"}, {"xxx"})]


# -- errors ------------------------------------------------------------------------------------------------------------


def test_a_users_exception_keeps_its_type(fc):
    with pytest.raises(ZeroDivisionError, match="zero"):
        fc.range(4, num_partitions=2).map(lambda x: 1 // x).collect()


def test_a_stop_iteration_never_cuts_a_partition_short(fc):
    def leak(x: int) -> int:
        if x == 3:
            raise StopIteration
        return x

    for rdd in (fc.range(6, num_partitions=1).map(leak), fc.range(6, num_partitions=1).filter(leak)):
        with pytest.raises(StopIterationInTask, match="leak"):
            rdd.collect()


def test_an_exception_says_what_was_called_where_and_with_what(fc):
    def third(x: int) -> int:
        return 1 // (x - 3)

    def merge(a: int, b: int) -> int:
        raise LookupError("merge")

    rdd = fc.range(6, num_partitions=2)
    pairs = rdd.map(lambda x: (x % 2, x))
    for act, operation, function, given in (
        (lambda: rdd.map(third).collect(), "map", "third", "for the element 3"),
        (lambda: rdd.key_by(third).collect(), "key_by", "third", "for the element 3"),
        (lambda: rdd.sort_by(third, num_partitions=1).collect(), "sort_by", "third", "for the element 3"),
        (lambda: rdd.sort_by(third).collect(), "sort_by", "third", "for the element 3"),
        (lambda: rdd.max(third), "max", "third", "for the element 3"),
        (lambda: rdd.foreach(third), "foreach", "third", "for the element 3"),
        (lambda: pairs.map_values(third).collect(), "map_values", "third", "for the element 3"),
        (lambda: pairs.reduce_by_key(merge).collect(), "reduce_by_key", "merge", "merging "),
        (lambda: pairs.aggregate_by_key(0, merge, merge).collect(), "aggregate_by_key", "merge", "merging 0 and "),
        (lambda: rdd.reduce(merge), "reduce", "merge", "merging "),
    ):
        with pytest.raises((ZeroDivisionError, LookupError)) as caught:
            act()
        told = "\n".join(caught.value.__notes__)
        assert f"In {operation} at {__file__}:" in told
        assert f"{function})" in told
        assert given in told


def test_a_context_goes_on_after_a_failed_job(fc):
    with pytest.raises(ZeroDivisionError):
        fc.range(4).map(lambda x: 1 // 0).collect()
    assert fc.range(4).sum() == 6


# -- long chains, many jobs --------------------------------------------------------------------------------------------


def test_ten_thousand_maps_are_one_stage(fc):
    rdd = fc.range(3, num_partitions=1)
    for _ in range(10_000):
        rdd = rdd.map(lambda x: x + 1)
    assert rdd.collect() == [10_000, 10_001, 10_002]


def test_iterated_joins(fc):
    links = fc.parallelize([(i, [(i + 1) % 5, (i + 2) % 5]) for i in range(5)], 2).partition_by(3).cache()
    ranks = links.map_values(lambda _: 1.0)
    for _ in range(6):
        shares = links.join(ranks).flat_map(lambda entry: [(t, entry[1][1] / 2) for t in entry[1][0]])
        ranks = shares.reduce_by_key(add, 3).map_values(lambda s: 0.15 + 0.85 * s)
    assert ranks.collect_as_map() == pytest.approx({i: 1.0 for i in range(5)})


@pytest.mark.undisturbed
def test_a_shuffle_is_reused_by_a_later_job(fc):
    counts = fc.parallelize(WORDS, 4).map(lambda w: (w, 1)).reduce_by_key(add)
    assert counts.count() == 8
    assert counts.map_values(lambda n: n * 2).values().sum() == 600
    assert isinstance(counts, fk.RDD)


@pytest.mark.parametrize(
    "call, operation",
    [
        (lambda rdd: rdd.lookup(1), "lookup"),
        (lambda rdd: rdd.count_by_key(), "count_by_key"),
        (lambda rdd: rdd.reduce_by_key_locally(add), "reduce_by_key_locally"),
        (lambda rdd: rdd.collect_as_map(), "collect_as_map"),
    ],
)
def test_actions_on_pairs_name_a_row_that_is_none(fc, call, operation):
    with pytest.raises(TypeError, match=rf"{operation} needs \(key, value\) pairs, but got \(1, 2, 3\)"):
        call(fc.parallelize([(1, 2), (1, 2, 3)], 2))
