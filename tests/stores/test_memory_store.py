"""Any store will do: fsspec's in this process's memory, with threads for executors."""

from __future__ import annotations

import fsspec
import pytest

import flowkit as fk
from flowkit.errors import ConfigError, InvalidArgument
from flowkit.storage.objects.stores import Stores, listed
from flowkit.testing.inline import inline_context


def test_a_store_of_ones_own_under_a_scheme_of_ones_own():
    store = fsspec.filesystem("memory")
    config = fk.Config.builder().with_object_store("mem2", lambda: store).build()
    with inline_context(config=config) as fc:
        fc.range(100, num_partitions=4).save_as_text("mem2://place/out")
        assert sorted(map(int, fc.text_file("mem2://place/out").collect())) == list(range(100))
        assert fc.text_file("mem2://place/out/part-0000*", 1).count() == 100
        assert dict(fc.binary_files("mem2://place/out").collect())["mem2://place/out/part-00000"].startswith(b"0\n")
        assert fc.text_file("memory://place/out").count() == 100, "the very same, by its built-in name"
        fc.range(3).map(lambda n: {"n": n}).save_as_parquet("mem2://place/parquet")
        assert fc.read_parquet("mem2://place/parquet", filters=[("n", ">", 1)]).collect() == [{"n": 2}]
    store.rm("/place", recursive=True)


def test_a_parquet_table_in_a_store_has_one_schema_as_on_disks():
    store = fsspec.filesystem("memory")
    rows = [{"n": 1, "day": "01"}, {"n": 2.5, "day": "2", "text": "x"}]
    with inline_context() as fc:
        fc.parallelize(rows, 2).save_as_parquet("memory://table/out", partition_by=["day"])
        expected = [{"n": 1.0, "text": None, "day": "01"}, {"n": 2.5, "text": "x", "day": "2"}]
        assert fc.read_parquet("memory://table/out").collect() == expected
        assert fc.read_parquet("memory://table/out/day=*/*.parquet").collect() == expected
        assert fc.read_parquet("memory://table/o*").collect() == expected
        assert fc.read_parquet(["memory://table/out/day=2"], columns=["n"]).collect() == [{"n": 2.5}]
        files = store.find("/table")
        with pytest.raises(TypeError, match=r"column 'n' is double in memory://table/out/day=01/.* and string in partition 0"):
            fc.parallelize([{"n": "x", "day": "3"}], 1).save_as_parquet("memory://table/out", partition_by=["day"], mode="append")
        with pytest.raises(TypeError, match=r"9007199254740993 .* does not fit double"):
            fc.parallelize([{"n": 2**53 + 1, "day": "3"}], 1).save_as_parquet(
                "memory://table/out", partition_by=["day"], mode="append"
            )
        assert store.find("/table") == files
        with pytest.raises(FileNotFoundError, match="nothing is at memory://table/no"):
            fc.read_parquet("memory://table/no*")
    store.rm("/table", recursive=True)


@pytest.mark.parametrize("stores", [7, {"S3": 1}, {"s 3": 1}, {"s3": None}, {"s3": "s3://key:secret@host"}, {"file": dict}])
def test_what_is_no_store_is_refused_when_the_configuration_is_built(stores):
    with pytest.raises(ConfigError, match="object_stores") as raised:
        fk.Config(object_stores=stores)
    assert "secret" not in str(raised.value)


def test_what_turns_out_to_be_none_is_named():
    with (
        inline_context(config=fk.Config(object_stores={"odd": object()})) as fc,
        pytest.raises(InvalidArgument, match="is a object"),
    ):
        fc.text_file("odd://place")


def test_addresses_name_files_by_the_rules_of_paths():
    store = fsspec.filesystem("memory")
    for name in ("day=1/a.txt", "day=2/b.txt", "_logs/c.txt", "d.txt", ".hidden"):
        store.pipe(f"/lake/{name}", b"")
    stores = Stores()

    def names(path, **options):
        return [file.path.removeprefix("memory://lake/") for file in listed(path, stores, **options)[0]]

    assert names("memory://lake") == ["d.txt"]
    assert names("memory://lake", recursive=True) == ["d.txt", "day=1/a.txt", "day=2/b.txt"]
    assert names("memory://lake/day=*") == names("memory://lake/day=*/*") == ["day=1/a.txt", "day=2/b.txt"]
    assert names("memory://lake/day={1,2}/?.txt") == ["day=1/a.txt", "day=2/b.txt"]
    assert names(["memory://lake/d.txt", "memory://lake/day=2"]) == ["d.txt", "day=2/b.txt"]
    assert {file.base for file in stores.list_files("memory://lake/day=*")} == {"memory://lake"}
    for missing in ("memory://lake/none", "memory://lake/*.csv"):
        with pytest.raises(FileNotFoundError, match="nothing is at memory://lake"):
            names(missing)
    store.rm("/lake/d.txt")
    with pytest.raises(FileNotFoundError, match=r"memory://lake holds directories \(day=1, day=2\) and no files"):
        names("memory://lake")
    store.rm("/lake", recursive=True)
