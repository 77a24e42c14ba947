"""What is wrong is said at the call, before anything runs: the argument, its value, what is allowed."""

from __future__ import annotations

import pytest

import flowkit as fk
from flowkit.errors import ClusterError, ConfigError, InvalidArgument
from flowkit.testing.inline import InlineLink, inline_context


@pytest.fixture
def fc(monkeypatch):
    with inline_context() as context:
        monkeypatch.setattr(InlineLink, "submit", lambda *_: pytest.fail("a job was run"))
        yield context


@pytest.mark.parametrize(
    "call, name",
    [
        (lambda fc: fc.parallelize([1], 0), "num_partitions"),
        (lambda fc: fc.parallelize([1], -1), "num_partitions"),
        (lambda fc: fc.parallelize([1], 1.5), "num_partitions"),
        (lambda fc: fc.parallelize([1], True), "num_partitions"),
        (lambda fc: fc.parallelize(fc.range(3)), "elements"),
        (lambda fc: fc.range(0, 5, 0), "step"),
        (lambda fc: fc.range(2.5), "stop"),
        (lambda fc: fc.range("5"), "stop"),
        (lambda fc: fc.text_file(5), "path"),
        (lambda fc: fc.text_file("ftp://host/key"), "path"),
        (lambda fc: fc.text_file(__file__, encoding="klingon"), "encoding"),
        (lambda fc: fc.text_file(__file__, encoding=8), "encoding"),
        (lambda fc: fc.text_file(__file__, errors="forgive"), "errors"),
        (lambda fc: fc.text_file(__file__, 0), "min_partitions"),
        (lambda fc: fc.union([]), "rdds"),
        (lambda fc: fc.range(3).map(3), "fn"),
        (lambda fc: fc.range(3).flat_map(None), "fn"),
        (lambda fc: fc.range(3).filter("x"), "fn"),
        (lambda fc: fc.range(3).map_partitions(3), "fn"),
        (lambda fc: fc.range(3).sort_by("name"), "key"),
        (lambda fc: fc.range(3).sort_by(abs, num_partitions=0), "num_partitions"),
        (lambda fc: fc.range(3).distinct(0), "num_partitions"),
        (lambda fc: fc.range(3).key_by(1), "fn"),
        (lambda fc: fc.range(3).key_by(abs).map_values(1), "fn"),
        (lambda fc: fc.range(3).key_by(abs).reduce_by_key(1), "fn"),
        (lambda fc: fc.range(3).key_by(abs).reduce_by_key(max, 0), "num_partitions"),
        (lambda fc: fc.range(3).key_by(abs).combine_by_key(abs, 3, max), "merge_value"),
        (lambda fc: fc.range(3).key_by(abs).partition_by("4"), "num_partitions"),
        (lambda fc: fc.range(3).key_by(abs).partition_by(4, "x"), "fn"),
        (lambda fc: fc.range(3).key_by(abs).join(fc.range(3).key_by(abs), 0), "num_partitions"),
        (lambda fc: fc.range(3).take("3"), "num"),
        (lambda fc: fc.range(3).take(2.0), "num"),
        (lambda fc: fc.range(3).top(None), "num"),
        (lambda fc: fc.range(3).top(2, key="size"), "key"),
        (lambda fc: fc.range(3).max("size"), "key"),
        (lambda fc: fc.range(3).reduce(None), "fn"),
        (lambda fc: fc.range(3).fold(0, None), "fn"),
        (lambda fc: fc.range(3).foreach(None), "fn"),
        (lambda fc: fc.range(3).save_as_text("/nowhere/there", encoding="klingon"), "encoding"),
    ],
)
def test_a_bad_argument_is_named(fc, call, name):
    with pytest.raises(InvalidArgument) as caught:
        call(fc)
    assert caught.value.name == name
    assert str(caught.value).startswith(f"{name} ")
    assert isinstance(caught.value, ValueError)


def test_a_missing_file_is_found_missing_at_the_call(fc, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        fc.text_file(tmp_path / "nothing-here.txt")
    with pytest.raises(FileNotFoundError, match=r"\*\.csv"):
        fc.text_file(str(tmp_path / "*.csv"))


@pytest.mark.parametrize(
    "use, instead",
    [
        (bool, "is_empty"),
        (list, "collect"),
        (len, "count"),
        (lambda rdd: rdd == rdd, "collect"),
        (lambda rdd: 3 in rdd, "collect"),
    ],
)
def test_what_looks_like_a_collection_and_is_none_names_the_right_call(fc, use, instead):
    with pytest.raises(TypeError, match=instead):
        use(fc.range(3))


def test_only_rdds_can_be_added_or_joined(fc):
    with pytest.raises(TypeError):
        fc.range(3) + [1, 2]
    with pytest.raises(TypeError, match="other must be an RDD, not list"):
        fc.range(3).union([1, 2])
    with pytest.raises(TypeError, match="other must be an RDD, not dict"):
        fc.range(3).key_by(abs).join({})


def test_rdds_of_two_contexts_do_not_meet(fc):
    with inline_context() as other, pytest.raises(InvalidArgument, match="another Context"):
        fc.range(3).union(other.range(3))


def test_a_closed_context_says_so():
    context = inline_context()
    rdd = context.range(3)
    context.close()
    context.close()
    for use in (lambda: context.range(3), rdd.count):
        with pytest.raises(ClusterError, match="closed"):
            use()


def test_an_rdd_shows_what_it_is_and_where_it_was_made(fc):
    rdd = fc.range(3, num_partitions=2).map(abs)
    assert repr(rdd).startswith(f"<RDD {rdd.id}: map at test_validation.py:")
    assert rdd.call_site.startswith(f"{__file__}:")
    assert rdd.set_name("sizes").name == "sizes"
    assert "'sizes'" in repr(rdd)
    assert {rdd: 1}[rdd] == 1


def test_a_setting_can_be_given_alone_or_in_a_config():
    with inline_context(config=fk.Config(max_task_failures=2), default_parallelism=5) as fc:
        assert (fc.config.max_task_failures, fc.default_parallelism) == (2, 5)
        assert fc.range(3).num_partitions == 5
    with pytest.raises(ConfigError, match="did you mean"):
        inline_context(max_task_failure=2)


@pytest.mark.parametrize(
    "name, value", [("workers", 8), ("threads_per_worker", 8), ("processes", False), ("memory_limit", "1GiB")]
)
@pytest.mark.parametrize("cluster", ["tcp://127.0.0.1:9", InlineLink])
def test_what_describes_a_cluster_of_its_own_is_refused_beside_one_that_is_given(cluster, name, value):
    given = cluster() if isinstance(cluster, type) else cluster
    try:
        with pytest.raises(InvalidArgument, match=rf"{name} = .*: describes a cluster of the Context's own") as caught:
            fk.Context(given, **{name: value})
        assert (caught.value.name, caught.value.value) == (name, value)
    finally:
        if isinstance(cluster, type):
            given.close()


@pytest.mark.parametrize(
    "name, value",
    [
        ("workers", "2"), ("workers", 0), ("workers", True), ("workers", 1.5), ("threads_per_worker", 0), ("threads_per_worker", "1"),
        ("processes", "no"), ("processes", None), ("memory_limit", "lots"), ("memory_limit", -5), ("memory_limit", True),
        ("memory_limit", 0.5), ("memory_limit", ""),
    ],
)  # fmt: skip
def test_a_cluster_of_its_own_that_cannot_be_is_refused_before_it_starts(name, value):
    with pytest.raises(InvalidArgument, match=f"^{name} = ") as caught:
        fk.Context(**{name: value})
    assert caught.value.name == name
