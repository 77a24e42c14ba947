"""What type checkers must infer for chains of operations; read by mypy and pyright, never run."""

from __future__ import annotations

from operator import add
from typing import assert_type

import flowkit as fk


def word_count(fc: fk.Context) -> list[tuple[str, int]]:
    lines = fc.text_file("a.txt")
    assert_type(lines, fk.RDD[str])
    words = lines.flat_map(str.split)
    assert_type(words, fk.RDD[str])
    counts = words.map(lambda word: (word, 1)).reduce_by_key(add)
    return counts.collect()


def elements(fc: fk.Context) -> None:
    numbers = fc.range(10)
    assert_type(numbers, fk.RDD[int])
    assert_type(numbers.map(str), fk.RDD[str])
    assert_type(numbers.filter(lambda n: n > 2), fk.RDD[int])
    assert_type(numbers.collect(), list[int])
    assert_type(numbers.count(), int)
    assert_type(numbers.take(3), list[int])
    assert_type(numbers.first(), int)
    assert_type(fc.parallelize(["a", "b"]), fk.RDD[str])


def shapes(fc: fk.Context) -> None:
    numbers = fc.range(10)
    assert_type(numbers.glom(), fk.RDD[list[int]])
    assert_type(numbers.zip_with_index(), fk.RDD[tuple[int, int]])
    assert_type(numbers.key_by(str), fk.RDD[tuple[str, int]])
    assert_type(numbers.sort_by(lambda n: -n), fk.RDD[int])
    assert_type(numbers.distinct(), fk.RDD[int])
    assert_type(numbers.cache(), fk.RDD[int])
    assert_type(numbers.cache().map(str), fk.RDD[str])
    assert_type(numbers + numbers, fk.RDD[int])
    assert_type(fc.union([numbers, numbers]), fk.RDD[int])
    assert_type(fc.binary_files("a"), fk.RDD[tuple[str, bytes]])
    assert_type(numbers.aggregate("", lambda text, n: text + str(n), lambda a, b: a + b), str)
    assert_type(numbers.top(2), list[int])
    assert_type(numbers.max(), int)


def pairs(names: fk.RDD[tuple[int, str]], sizes: fk.RDD[tuple[int, float]]) -> None:
    assert_type(names.keys(), fk.RDD[int])
    assert_type(names.values(), fk.RDD[str])
    assert_type(names.map_values(len), fk.RDD[tuple[int, int]])
    assert_type(names.join(sizes), fk.RDD[tuple[int, tuple[str, float]]])
    assert_type(names.left_outer_join(sizes), fk.RDD[tuple[int, tuple[str, float | None]]])
    assert_type(names.collect_as_map(), dict[int, str])
    assert_type(names.group_by_key(), fk.RDD[tuple[int, list[str]]])
    assert_type(names.sort_by_key(), fk.RDD[tuple[int, str]])
    assert_type(names.partition_by(4), fk.RDD[tuple[int, str]])
    assert_type(names.full_outer_join(sizes), fk.RDD[tuple[int, tuple[str | None, float | None]]])
    assert_type(sizes.aggregate_by_key(0.0, lambda a, b: a + b, lambda a, b: a + b), fk.RDD[tuple[int, float]])


def only_pairs_have_keys(words: fk.RDD[str]) -> None:
    words.reduce_by_key(add)  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def numbers_have_no_keys_either(numbers: fk.RDD[int], words: fk.RDD[str]) -> None:
    numbers.reduce_by_key(add)  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    numbers.keys()  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    words.join(words)  # type: ignore[misc, arg-type]  # pyright: ignore[reportAttributeAccessIssue]


def more_shapes(fc: fk.Context) -> None:
    numbers = fc.range(10)
    assert_type(numbers.zip(numbers.map(str)), fk.RDD[tuple[int, str]])
    assert_type(numbers.cartesian(numbers.map(str)), fk.RDD[tuple[int, str]])
    assert_type(numbers.coalesce(2).repartition(3), fk.RDD[int])
    assert_type(numbers.zip_with_unique_id(), fk.RDD[tuple[int, int]])
    assert_type(numbers.pipe("cat"), fk.RDD[str])
    assert_type(numbers.sample(0.5), fk.RDD[int])
    assert_type(numbers.random_split([1, 2]), list[fk.RDD[int]])
    assert_type(numbers.take_sample(3), list[int])
    assert_type(numbers.intersection(numbers).subtract(numbers), fk.RDD[int])
    assert_type(numbers.group_by(str), fk.RDD[tuple[str, list[int]]])
    assert_type(numbers.count_by_value(), dict[int, int])
    assert_type(numbers.tree_aggregate("", lambda text, n: text, lambda a, b: a), str)
    assert_type(numbers.mean(), float)
    assert_type(numbers.indeterminate(), fk.RDD[int])


def more_pairs(names: fk.RDD[tuple[int, str]]) -> None:
    assert_type(names.count_by_key(), dict[int, int])
    assert_type(names.lookup(3), list[str])
    assert_type(names.reduce_by_key_locally(add), dict[int, str])
    assert_type(names.subtract_by_key(names), fk.RDD[tuple[int, str]])
    assert_type(names.sample_by_key({1: 0.5}), fk.RDD[tuple[int, str]])
    assert_type(names.repartition_and_sort_within_partitions(2), fk.RDD[tuple[int, str]])


def beside_the_rows(fc: fk.Context) -> None:
    table = fc.broadcast({1: "one"})
    assert_type(table.value, dict[int, str])
    bad = fc.accumulator(0)
    assert_type(bad.value, int)
    assert_type(fc.range(3).count_async().result(), int)
    assert_type(fc.range(3).collect_async().result(), list[int])
    for row in fc.range(3).to_local_iterator():
        assert_type(row, int)
