"""What a reader says of outputs that it cannot read: of its own host all of them, so that they are made again at once."""

from __future__ import annotations

import zlib

import pytest

from flowkit.errors import FetchFailed
from flowkit.model.ids import AppId, AttemptId, HostToken, PartitionIndex, ShuffleId
from flowkit.model.map_status import MapStatus, ShuffleSources, encode_size
from flowkit.model.metrics import TaskMetrics
from flowkit.storage.frames import frame
from flowkit.storage.serializers import encode_batch
from flowkit.storage.shuffle import reader
from flowkit.storage.shuffle.files import ShuffleFiles
from flowkit.storage.shuffle.index import encode_index
from flowkit.storage.shuffle.range_reads import RangeReads
from flowkit.storage.shuffle.reader import read_shuffle
from flowkit.storage.shuffle.server import read_blocks

HERE, THERE = HostToken("here"), HostToken("there")
SHUFFLE, ATTEMPT = ShuffleId(1), AttemptId(7)
MAPS = 6


class Neighbour:
    """Answers for the other host, from files here."""

    def __init__(self, files: ShuffleFiles) -> None:
        self.files = files

    def fetch_shuffle(self, address, app, shuffle, reducer, outputs, *, timeout_s):
        return read_blocks(self.files, shuffle, reducer, outputs)


@pytest.fixture
def files(tmp_path):
    files = ShuffleFiles(tmp_path / "app")
    yield files
    files.close()


def write(files, partition, rows=3, reducers=2, empty=()):
    """An output with rows of each reducer, none for those that are ``empty``."""
    blocks = [
        b"" if reducer in empty else frame(encode_batch([(reducer, row) for row in range(rows)])) for reducer in range(reducers)
    ]
    temporary = files.temporary(SHUFFLE, partition, ATTEMPT)
    temporary.write_bytes(b"".join(blocks) + encode_index([len(b) for b in blocks], [zlib.crc32(b) for b in blocks]))
    files.commit(temporary, SHUFFLE, partition, ATTEMPT)
    return MapStatus(
        PartitionIndex(partition), ATTEMPT, HERE, zlib.compress(bytes(encode_size(len(each)) for each in blocks)), 1, rows
    )


def sources(statuses):
    return ShuffleSources(SHUFFLE, 3, tuple(statuses), {HERE: ("tcp://here:1",), THERE: ("tcp://there:1",)})


def read(files, found, reducer=0, *, reads=None, host=HERE):
    return list(
        read_shuffle(
            found,
            reducer,
            app=AppId("app"),
            files=reads or files,
            host=host,
            transport=Neighbour(files),
            in_flight_bytes=1 << 20,
            metrics=TaskMetrics(),
            check_killed=lambda: None,
        )
    )


def failure_of(*arguments, **options):
    with pytest.raises(FetchFailed) as caught:
        read(*arguments, **options)
    found = caught.value.data["failure"]
    return found, [found.map_partition, *(partition for partition, _ in found.others)]


def flip(path):
    data = bytearray(path.read_bytes())
    data[2] ^= 0xFF
    path.write_bytes(data)


def test_all_outputs_of_the_host_that_are_gone_are_named(files):
    found = sources(write(files, partition) for partition in range(MAPS))
    for partition in (1, 3, 4):
        files.path(SHUFFLE, partition, ATTEMPT).unlink()
    failure, lost = failure_of(files, found)
    assert lost == [1, 3, 4]
    assert failure.reason == "missing"
    assert failure.others == ((3, ATTEMPT), (4, ATTEMPT))
    assert "(and 2 more of its host)" in failure.message


def test_also_those_that_have_nothing_for_this_reader(files):
    found = sources(write(files, partition, empty=(0,) if partition == 4 else ()) for partition in range(MAPS))
    for partition in (1, 4):
        files.path(SHUFFLE, partition, ATTEMPT).unlink()
    assert failure_of(files, found)[1] == [1, 4]


def test_all_damaged_blocks_that_this_reader_needs_are_named_with_what_is_gone(files):
    found = sources(write(files, partition) for partition in range(MAPS))
    for partition in (2, 5):
        flip(files.path(SHUFFLE, partition, ATTEMPT))
    files.path(SHUFFLE, 3, ATTEMPT).unlink()
    failure, lost = failure_of(files, found)
    assert failure.reason == "corrupt"
    assert sorted(lost) == [2, 3, 5]
    assert lost[0] == 2


def test_damaged_blocks_that_are_read_in_pieces_are_named_too(files, monkeypatch):
    monkeypatch.setattr(reader, "_STREAM_ABOVE_BYTES", 1)
    found = sources(write(files, partition) for partition in range(MAPS))
    for partition in (2, 5):
        flip(files.path(SHUFFLE, partition, ATTEMPT))
    assert failure_of(files, found)[1] == [2, 5]


def test_one_lost_output_is_named_alone(files):
    found = sources(write(files, partition) for partition in range(MAPS))
    files.path(SHUFFLE, 2, ATTEMPT).unlink()
    failure, _ = failure_of(files, found)
    assert failure.others == ()
    assert "more of its host" not in failure.message


def test_a_reader_of_several_partitions_names_all_too(files):
    found = sources(write(files, partition) for partition in range(MAPS))
    for partition in (0, 5):
        files.path(SHUFFLE, partition, ATTEMPT).unlink()
    assert failure_of(files, found, reads=RangeReads(files, 0, 2))[1] == [0, 5]


def test_the_whole_directory_may_be_gone(files):
    found = sources(write(files, partition) for partition in range(MAPS))
    for path in (files.directory / "shuffle-1").iterdir():
        path.unlink()
    (files.directory / "shuffle-1").rmdir()
    assert failure_of(files, found)[1] == list(range(MAPS))


def test_of_another_host_all_that_its_answer_lacks_are_named(files):
    statuses = [write(files, partition) for partition in range(MAPS)]
    found = sources(MapStatus(each.map_partition, ATTEMPT, THERE, each.sizes, 1, each.rows) for each in statuses)
    for partition in (1, 3):
        files.path(SHUFFLE, partition, ATTEMPT).unlink()
    failure, lost = failure_of(files, found)
    assert lost == [1, 3]
    assert failure.host == THERE


def test_what_is_there_is_read_in_the_order_of_maps(files):
    found = sources(write(files, partition) for partition in range(MAPS))
    assert read(files, found, 1) == [[(1, row) for _ in range(MAPS) for row in range(3)]]
