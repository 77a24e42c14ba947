"""Text, tables and pickles on a real S3 server: listed, split, read and written, whole or not at all, whatever is killed meanwhile."""

from __future__ import annotations

import gzip
import os
import pickle
import signal
import threading

import pytest

import flowkit as fk
from flowkit.errors import InvalidArgument, OutputExists
from flowkit.storage.objects.stores import Stores
from tests.stores.conftest import SECRET

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(120)]


def lines_in(bucket, name, count=1_000):
    path = bucket / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{name} line {number} {'x' * (number % 50)}" for number in range(count)]
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return lines


def test_texts_are_read_whole_split_compressed_and_by_globs(server, bucket, start):
    fc = start()
    big = lines_in(bucket, "logs/a.txt", 60_000)
    small = lines_in(bucket, "logs/b.txt")
    packed = lines_in(bucket, "logs/deep/c.txt.gz")
    lines_in(bucket, "logs/_hidden.txt")
    rows = fc.text_file("s3://bucket/logs/a.txt", 9)
    assert rows.num_partitions >= 9
    assert rows.collect() == big
    assert fc.text_file("s3://bucket/logs").collect() == big + small
    assert fc.text_file("s3://bucket/logs/*.txt").count() == len(big) + len(small)
    assert fc.text_file("s3://bucket/logs/**/*.gz").collect() == packed
    assert fc.text_file("s3://bucket/logs/b.txt,s3://bucket/logs/deep/c.txt.gz").collect() == small + packed
    assert fc.text_file("s3://bucket/logs/{a}.txt".replace("{a}", "[ab]")).take(1) == big[:1]
    fc.wait_for_listeners()
    assert fc.status.summary().input_bytes > (bucket / "logs/a.txt").stat().st_size
    with pytest.raises(FileNotFoundError, match="nothing is at s3://bucket/none"):
        fc.text_file("s3://bucket/none")
    with pytest.raises(FileNotFoundError):
        fc.text_file("s3://bucket/logs/*.csv")


def test_ten_thousand_keys_are_listed_in_order(server, bucket, start):
    fc = start(workers=1)
    place = bucket / "many"
    place.mkdir()
    for number in range(10_000):
        (place / f"part-{number:05d}").write_bytes(b"%d\n" % number)
    files = fc.binary_files("s3://bucket/many", 4)
    assert files.num_partitions == 4
    paths = [path for part in files._node.kernel.paths for path in part]
    assert paths == [f"s3://bucket/many/part-{number:05d}" for number in range(10_000)]


@pytest.mark.written
def test_what_is_written_is_read_in_every_format(server, start):
    fc = start()
    rows = [{"n": number, "half": number % 2, "text": f"row {number}"} for number in range(500)]
    data = fc.parallelize(rows, 3)
    data.save_as_parquet("s3://bucket/out/parquet")
    data.save_as_json_lines("s3://bucket/out/json", compression="gzip")
    data.save_as_csv("s3://bucket/out/csv")
    data.save_as_pickle("s3://bucket/out/pickle")
    data.map(lambda row: row["text"]).save_as_text("s3://bucket/out/text")
    assert fc.read_json_lines("s3://bucket/out/json").collect() == rows
    assert fc.pickle_file("s3://bucket/out/pickle").collect() == rows
    assert fc.read_csv("s3://bucket/out/csv", types={"n": int, "half": int}).collect() == rows
    assert fc.text_file("s3://bucket/out/text").count() == 500
    found = fc.read_parquet("s3://bucket/out/parquet", columns=["n"], filters=[("n", ">=", 490)]).collect()
    assert sorted(row["n"] for row in found) == list(range(490, 500))
    data.save_as_parquet("s3://bucket/out/by", partition_by=["half"])
    assert sorted(row["n"] for row in fc.read_parquet("s3://bucket/out/by", filters=[("half", "=", 1)]).collect()) == list(
        range(1, 500, 2)
    )
    for kind in ("parquet", "json", "csv", "pickle", "text", "by"):
        files = server.files(f"s3://bucket/out/{kind}")
        assert "_SUCCESS" in files
        # Nothing but, on this server, the marker of a directory that was.
        assert not [each for each in files if "_temporary" in each and "/" in each]


@pytest.mark.written
def test_modes_are_as_on_disks(server, start):
    fc = start(workers=1)
    place = "s3://bucket/modes"
    fc.range(10, num_partitions=3).save_as_text(place)
    with pytest.raises(OutputExists, match="exists already"):
        fc.range(3).save_as_text(place)
    fc.range(3).save_as_text(place, mode="ignore")
    assert fc.text_file(place).count() == 10
    fc.range(5, num_partitions=1).save_as_text(place, mode="append")
    assert fc.text_file(place).count() == 15
    fc.range(4, num_partitions=2).save_as_text(place, mode="overwrite")
    assert sorted(fc.text_file(place).collect()) == ["0", "1", "2", "3"]


@pytest.mark.written
def test_a_job_that_fails_leaves_nothing_and_a_killed_attempt_no_doubles(server, start, tmp_path):
    fc = start(max_task_failures=2)

    def fail(x):
        if x == 7:
            raise ValueError("seven")
        return x

    with pytest.raises(ValueError, match="seven"):
        fc.range(9, num_partitions=3).map(fail).save_as_text("s3://bucket/failed")
    assert server.files("s3://bucket/failed") == []
    marker = tmp_path / "killed"

    def die_once(partition, rows):
        yield from rows
        if partition == 1:
            try:
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)

    fc.range(900, num_partitions=3).map_partitions_with_index(die_once).save_as_text("s3://bucket/killed")
    assert sorted(map(int, fc.text_file("s3://bucket/killed").collect())) == list(range(900))


def test_a_server_that_is_away_for_a_moment_costs_time_and_nothing_else(server, bucket, start):
    from pyarrow.fs import AwsDefaultS3RetryStrategy

    lines = lines_in(bucket, "away/a.txt", 40_000)
    fc = start(workers=1, store=server.file_system(retry_strategy=AwsDefaultS3RetryStrategy(max_attempts=12)))
    rows = fc.text_file("s3://bucket/away", 8)
    assert rows.count() == len(lines)
    server.stop()
    back = threading.Timer(2.0, server.start)
    back.start()
    assert rows.count() == len(lines)
    back.join()


def test_a_server_that_is_gone_is_a_clear_error(server, bucket, start):
    from pyarrow.fs import AwsDefaultS3RetryStrategy

    lines_in(bucket, "gone/a.txt")
    fc = start(workers=1, store=server.file_system(retry_strategy=AwsDefaultS3RetryStrategy(max_attempts=1)), max_task_failures=1)
    rows = fc.text_file("s3://bucket/gone")
    server.stop()
    with pytest.raises(OSError) as raised:
        rows.count()
    assert "s3://bucket/gone/a.txt" in "\n".join([str(raised.value), *raised.value.__notes__])


def test_a_wrong_secret_is_refused_and_secrets_are_shown_nowhere(server, bucket, start, tmp_path):
    lines_in(bucket, "secret/a.txt")
    wrong = fk.Config(object_stores={"s3": server.file_system("not-it")})
    with pytest.raises((OSError, PermissionError)), fk.Context(workers=1, config=wrong, progress="off") as fc:
        fc.text_file("s3://bucket/secret").count()
    fc = start(workers=1, event_log=str(tmp_path / "log"))
    rows = fc.text_file("s3://bucket/secret").map(lambda line: 1 / (len(line) - len(line)))
    with pytest.raises(ZeroDivisionError) as raised:
        rows.count()
    shown = [
        repr(fc.config),
        str(fc.config.explain()),
        fc.config._repr_html_(),
        rows.explain(),
        str(raised.value.__notes__),
        repr(fc),
    ]
    shown += [str(event) for event in fk_events(tmp_path / "log")]
    assert not [each for each in shown if SECRET in each]
    assert "object_stores={s3}" in repr(fc.config)


def fk_events(directory):
    from flowkit.observe.event_log import read_event_log

    for each in directory.iterdir():
        yield from read_event_log(each)


def test_an_unknown_scheme_lists_those_that_are_known(start):
    fc = start(workers=1)
    with pytest.raises(
        InvalidArgument, match=r"ftp://...: no such store is known \(abfs, .*s3.*with_object_store\('ftp', store\)"
    ):
        fc.text_file("ftp://host/file")
    with pytest.raises(InvalidArgument, match="ftp://...: no such store"):
        fc.range(3).save_as_text("ftp://host/out")


def test_stores_travel_without_those_that_are_not_needed(server):
    stores = Stores({"s3": server.file_system(), "other": dict})
    needed = stores.only(["s3://bucket/a", "/local"])
    assert repr(needed) == "<Stores s3>"
    assert pickle.loads(pickle.dumps(needed)).exists("s3://bucket/none") is False


@pytest.mark.written
def test_a_checkpoint_lies_there_and_is_read_in_another_session(server, start):
    fc = start()
    pairs = fc.range(300, num_partitions=3).map(lambda x: (x % 7, x)).partition_by(4).checkpoint("s3://bucket/kept", eager=True)
    expected = sorted(pairs.collect())
    fc.close()
    again = start(workers=1)
    kept = again.checkpoint_file("s3://bucket/kept")
    assert sorted(kept.collect()) == expected
    assert kept.num_partitions == 4
    assert again.range(2).map(lambda x: (x, x)).join(kept).explain().count("writes the shuffle") == 1
    with pytest.raises(OutputExists):
        kept.map(str).checkpoint("s3://bucket/kept")
