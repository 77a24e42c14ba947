"""Collections and ranges as the first step of a stage."""

from __future__ import annotations

import pickle
import zlib

import pytest

from flowkit.errors import InternalError
from flowkit.execution.sources import range_slice
from flowkit.lineage.kernels import Collection, IntegerRange
from flowkit.model.ids import ContentId
from flowkit.model.job_spec import Content
from tests.unit.execution.surroundings import Surroundings, chain_of

SLICES = [[1, "a"], [], [None, (2, 3)]]


def spans_of(pickles: list[bytes]) -> tuple[tuple[int, int, int], ...]:
    ends = [0]
    for each in pickles:
        ends.append(ends[-1] + len(each))
    return tuple((first, len(each), zlib.crc32(each)) for first, each in zip(ends, pickles, strict=False))


@pytest.mark.parametrize("inline", [True, False])
def test_each_partition_unpickles_its_own_span(surroundings: Surroundings, inline: bool) -> None:
    pickles = [pickle.dumps(each) for each in SLICES]
    data = b"".join(pickles)
    path = surroundings.directory / "content"
    path.write_bytes(data)
    surroundings.content["c"] = path
    content = Content(ContentId("c"), len(data), data if inline else None)
    program = chain_of(Collection(content, spans_of(pickles)), num_partitions=3)
    assert [surroundings.run(program, p) for p in range(3)] == SLICES
    assert surroundings.metrics.input_rows == 2
    assert surroundings.metrics.input_bytes == len(pickles[2])


def test_a_content_that_is_too_short_is_our_bug(surroundings: Surroundings) -> None:
    content = Content(ContentId("c"), 3, b"abc")
    with pytest.raises(InternalError, match="ends before byte 10"):
        surroundings.run(chain_of(Collection(content, ((2, 8, 0),))))


@pytest.mark.parametrize(
    ("start", "stop", "step"), [(0, 10, 1), (10, 0, -3), (5, 5, 1), (3, 1, 1), (-7, 20, 4), (0, 10**30, 10**29)]
)
@pytest.mark.parametrize("partitions", [1, 3, 20])
def test_slices_of_a_range_make_up_the_range(start: int, stop: int, step: int, partitions: int) -> None:
    slices = [range_slice(IntegerRange(start, stop, step, partitions), p) for p in range(partitions)]
    assert [x for each in slices for x in each] == list(range(start, stop, step))


def test_a_range_counts_its_rows_without_making_them(surroundings: Surroundings) -> None:
    program = chain_of(IntegerRange(0, 10**12, 1, 1), fn=lambda _, it: next(it))
    assert surroundings.run(program) == 0
    assert surroundings.metrics.input_rows == 10**12
