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


def pairs(names: fk.RDD[tuple[int, str]], sizes: fk.RDD[tuple[int, float]]) -> None:
    assert_type(names.keys(), fk.RDD[int])
    assert_type(names.values(), fk.RDD[str])
    assert_type(names.map_values(len), fk.RDD[tuple[int, int]])
    assert_type(names.join(sizes), fk.RDD[tuple[int, tuple[str, float]]])
    assert_type(names.left_outer_join(sizes), fk.RDD[tuple[int, tuple[str, float | None]]])
    assert_type(names.collect_as_map(), dict[int, str])


def only_pairs_have_keys(words: fk.RDD[str]) -> None:
    words.reduce_by_key(add)  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
