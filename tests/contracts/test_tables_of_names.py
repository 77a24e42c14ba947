"""The page for people from dask.bag: every name on it exists, theirs and ours, and what it says is the same is."""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import add
from pathlib import Path
from typing import Any

import dask.bag
import pytest

import flowkit as fk
from flowkit.testing.inline import inline_context

DOCS = Path(__file__).parents[2] / "docs"
OURS = re.compile(r"`(RDD|Context)\.(\w+)`")
ROOTS = {"RDD": fk.RDD, "Context": fk.Context}


def test_every_name_of_ours_exists() -> None:
    names = OURS.findall((DOCS / "from-dask-bag.md").read_text(encoding="utf-8"))
    assert len(names) > 20
    missing = [f"{owner}.{name}" for owner, name in names if not hasattr(ROOTS[owner], name)]
    assert not missing


# -- dask.bag --------------------------------------------------------------------------------------------------------------

#: names of dask's, a row of the table each
ROWS = [
    re.findall(r"`([\w.]+)`", line.split("|")[1])
    for line in (DOCS / "from-dask-bag.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| `")
]


def test_every_name_of_dask_bags_exists():
    missing = []
    for names in ROWS:
        of_bags = names[0].startswith("Bag.")
        for name in names:
            plain = name.removeprefix("Bag.")
            home = dask.bag.Bag if of_bags else dask.bag
            if not hasattr(home, plain) and plain != "Client":
                missing.append(name)
    assert not missing


def test_every_public_method_of_a_bag_is_told():
    told = {name.removeprefix("Bag.") for names in ROWS for name in names}
    own = {name for name, member in vars(dask.bag.Bag).items() if not name.startswith("_") and callable(member)}
    assert own - told == set()


@pytest.fixture(scope="module")
def fc():
    with inline_context() as context:
        yield context


def _bag(rows: list[Any], parts: int) -> Any:
    return dask.bag.from_sequence(rows, npartitions=parts)


#: an expression on a bag, and what the table says is the same of an RDD
ALIKE: list[tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = [
    (
        "starmap",
        lambda bag: bag.map(lambda x: (x, x)).starmap(add),
        lambda rdd: rdd.map(lambda x: (x, x)).map(lambda args: add(*args)),
    ),
    ("remove", lambda bag: bag.remove(lambda x: x % 2), lambda rdd: rdd.filter(lambda x: not x % 2)),
    (
        "map_partitions",
        lambda bag: bag.map_partitions(lambda rows: [-x for x in rows]),
        lambda rdd: rdd.map_partitions(lambda rows: [-x for x in rows]),
    ),
    ("flatten", lambda bag: bag.map(range).flatten(), lambda rdd: rdd.map(range).flat_map(list)),
    (
        "pluck",
        lambda bag: bag.map(lambda x: {"x": x}).pluck("x"),
        lambda rdd: rdd.map(lambda x: {"x": x}).map(lambda row: row["x"]),
    ),
    ("product", lambda bag: bag.product(bag), lambda rdd: rdd.cartesian(rdd)),
    ("distinct", lambda bag: bag.distinct(), lambda rdd: rdd.distinct()),
    ("frequencies", lambda bag: bag.frequencies(), lambda rdd: rdd.map(lambda x: (x, 1)).reduce_by_key(add)),
    (
        "foldby",
        lambda bag: bag.foldby(lambda x: x % 2, add, 0, add, 0),
        lambda rdd: rdd.key_by(lambda x: x % 2).aggregate_by_key(0, add, add),
    ),
    ("topk", lambda bag: bag.topk(2), lambda rdd: rdd.context.parallelize(rdd.top(2))),
    ("zip", lambda bag: dask.bag.zip(bag, bag), lambda rdd: rdd.zip(rdd)),
]


@pytest.mark.parametrize("bag, rdd", [each[1:] for each in ALIKE], ids=[each[0] for each in ALIKE])
def test_what_the_table_of_bags_says_is_the_same_is_so(fc, bag, rdd):
    rows = [3, 1, 2, 2, 5]
    with dask.config.set(scheduler="synchronous"):
        expected = bag(_bag(rows, 2)).compute()
    assert sorted(map(repr, rdd(fc.parallelize(rows, 2)).collect())) == sorted(map(repr, expected))


def test_numbers_of_bags_and_of_rdds_are_the_same(fc):
    rows = [3.0, 1.0, 2.0, 2.0, 5.0]
    rdd, bag = fc.parallelize(rows, 2), _bag(rows, 2)
    with dask.config.set(scheduler="synchronous"):
        theirs = [getattr(bag, name)().compute() for name in ("count", "sum", "max", "min", "mean", "std", "var")]
        some = bag.any().compute(), bag.all().compute(), bag.distinct().count().compute()
    assert theirs == pytest.approx([rdd.count(), rdd.sum(), rdd.max(), rdd.min(), rdd.mean(), rdd.stdev(), rdd.variance()])
    assert some == (not rdd.filter(bool).is_empty(), rdd.filter(lambda x: not x).is_empty(), rdd.distinct().count())
    assert rdd.take(4) == [3.0, 1.0, 2.0, 2.0]  # of more partitions than the first, as the table says
