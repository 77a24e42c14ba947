"""Files of flowkit's own, flipped, cut and grown behind its back, one format after the other.

Oracles: an answer is right or there is an error of flowkit's own; never other rows, never a hang, and no number in a file is believed that
asks for more memory than the file can hold.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from contextlib import suppress
from operator import add
from pathlib import Path
from random import Random

import pytest

from flowkit import StorageLevel, open_capsule
from flowkit.errors import FlowkitError, InvalidArgument, NotReplayable
from flowkit.model.events import Event
from flowkit.observe.event_log import EventLog, read_event_log
from flowkit.observe.status import StatusStore
from flowkit.storage.content import ContentStore
from flowkit.storage.runs import RunWriter
from flowkit.storage.shuffle.index import BadIndex, decode_end, encode_index
from flowkit.testing.inline import inline_context
from tests.attack.mutations import damaged


@pytest.fixture
def fc(tmp_path, monkeypatch):
    """A Context whose files lie below ``tmp_path``."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with inline_context(shuffle_codec="none", max_task_failures=2, local_directory=str(tmp_path)) as context:
        yield context


def damage(rng: Random, files: list[Path]) -> None:
    """Some of the files are others now."""
    for path in rng.sample(files, rng.randrange(1, len(files) + 1)):
        with suppress(FileNotFoundError):  # of an RDD of the round before, which goes just now
            path.write_bytes(damaged(rng, path.read_bytes()))


def _map_outputs(place: Path) -> list[Path]:
    """Return those there are; a shuffle of the round before may go meanwhile."""
    found = (Path(directory) / name for directory, _, names in os.walk(place) for name in names)
    return sorted(path for path in found if path.parent.name.startswith("shuffle-") and path.suffix == ".data")


@pytest.mark.parametrize("rows", ["numbers", "objects"])
def test_damaged_map_outputs_are_made_again(fc, tmp_path, attack, rows):
    value = (lambda x: (x % 7, x)) if rows == "numbers" else (lambda x: (str(x % 7), frozenset({x})))
    merge = add if rows == "numbers" else frozenset.union

    def one(rng: Random) -> None:
        sums = fc.range(200, num_partitions=3).map(value).reduce_by_key(merge, 3)
        right = sorted(sums.collect())
        for _ in range(4):
            damage(rng, _map_outputs(tmp_path))
            assert sorted(sums.collect()) == right

    attack(one)


@pytest.mark.parametrize("level", ["DISK_ONLY", "OFF_HEAP"])
def test_damaged_cached_partitions_are_computed_again(fc, tmp_path, attack, level):
    shared = Path("/dev/shm")

    def one(rng: Random) -> None:
        rows = fc.range(300, num_partitions=2).map(lambda x: {"x": x}).persist(getattr(StorageLevel, level))
        right = rows.collect()
        places = (
            [tmp_path] if level == "DISK_ONLY" else [each for each in shared.glob("flowkit-*") if list(each.glob(f"{fc.app}*"))]
        )
        for _ in range(4):
            damage(rng, [path for place in places for path in place.glob(f"**/{fc.app}/**/rdd-*") if path.is_file()])
            assert rows.collect() == right
        rows.unpersist()

    attack(one)


def test_damaged_checkpoints_are_named(fc, tmp_path, attack):
    numbers = iter(range(1_000_000))

    def one(rng: Random) -> None:
        place = tmp_path / f"checkpoint-{next(numbers)}"
        rows = fc.range(100, num_partitions=2).map(lambda x: ("row", x)).checkpoint(place, eager=True)
        right = rows.collect()
        damage(rng, [path for path in place.iterdir() if path.is_file()])
        for read in (rows.collect, lambda: fc.checkpoint_file(place).collect()):
            try:
                assert read() == right
            except FlowkitError as error:
                assert str(place) in str(error), error

    attack(one)


def test_damaged_content_is_not_taken(tmp_path, attack):
    store = ContentStore(tmp_path / "content")

    def one(rng: Random) -> None:
        data = rng.randbytes(rng.choice((1, 1_000, (4 << 20) + 5)))
        name = store.put(data)
        manifest = store.manifest(name)
        path = store.path(name)
        assert path is not None
        path.write_bytes(changed := damaged(rng, data))
        assert store.manifest(name).is_of(name) == (changed == data)
        for piece in range(manifest.piece_count):
            try:
                assert store.piece(name, piece, manifest.digest(piece)) == data[piece * (4 << 20) : (piece + 1) * (4 << 20)]
            except KeyError:
                pass
        store.drop(name)

    attack(one)


def test_an_upload_that_is_not_what_it_is_called_is_not_kept(tmp_path, attack):
    store = ContentStore(tmp_path / "content")

    def one(rng: Random) -> None:
        data = rng.randbytes(rng.choice((1, 1_000, (4 << 20) + 5)))
        name = ContentStore(tmp_path / "other").put(data)
        sent = damaged(rng, data)
        upload = store.upload(name)
        half = rng.randrange(len(sent) + 1)
        upload.append(sent[:half])
        assert upload.finish(sent[half:]) == (sent == data)
        assert (store.path(name) is not None) == (sent == data)
        store.drop(name)
        assert not list(store.directory.iterdir())

    attack(one)


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_damaged_spill_runs_are_noticed(tmp_path, attack, codec):
    numbers = iter(range(1_000_000))
    right = [("key", x, float(x)) for x in range(120)]
    rows = [[("key", x, float(x)) for x in range(start, start + 40)] for start in (0, 40, 80)]

    def one(rng: Random) -> None:
        with RunWriter(tmp_path, f"run-{next(numbers)}", codec=codec) as writer:
            for batch in rows:
                writer.write(batch)
            run = writer.close()
        whole = run.path.read_bytes()
        for _ in range(50):
            run.path.write_bytes(damaged(rng, whole))
            read = []
            try:
                for batch in run.batches():
                    read += batch
            except Exception:  # the task fails, and is tried again
                assert read == right[: len(read)]
            else:
                assert read == right
        run.delete()

    attack(one)


def test_a_damaged_index_is_no_index(attack):
    def one(rng: Random) -> None:
        lengths = [rng.randrange(50) for _ in range(rng.randrange(1, 9))]
        body = bytes(sum(lengths)) + encode_index(lengths, [7] * len(lengths))
        for _ in range(200):
            changed = damaged(rng, body)
            try:
                footer, index = decode_end(changed[-min(len(changed), len(body) - sum(lengths)) :], len(changed))
            except BadIndex:
                continue
            assert [index.entry(each).length for each in range(footer.count)] == lengths

    attack(one)


def test_a_damaged_event_log_is_read_as_far_as_it_can_be(fc, tmp_path, attack):
    heard: list[Event] = []

    class Ear:
        def on_event(self, event: Event) -> None:
            heard.append(event)

    fc.add_listener(Ear())
    fc.range(10).map(lambda x: (x, 1)).reduce_by_key(add, 2).collect()
    fc.wait_for_listeners()
    log = EventLog(tmp_path / "log", "app-1", version="1")
    for event in heard:
        log.on_event(event)
        if len(heard) % 5 == 0:
            log.flush()
    log.close()
    (file,) = log.directory.iterdir()
    whole = file.read_bytes()

    def one(rng: Random) -> None:
        file.write_bytes(damaged(rng, whole))
        status = StatusStore()
        try:
            for event in read_event_log(log.directory):
                assert isinstance(event, Event)
                status.on_event(event)
        except InvalidArgument as error:
            assert str(file) in str(error)

    attack(one)


def test_a_damaged_capsule_says_so(fc, tmp_path, attack):
    def refuse(x: int) -> int:
        raise LookupError(x)

    with pytest.raises(LookupError) as raised:
        fc.range(3, num_partitions=1).map(refuse).collect()
    path = Path(raised.value.replay.save(tmp_path / "failed.capsule"))
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1

    def one(rng: Random) -> None:
        for _ in range(20):
            # Behind its header is a pickle, and a pickle is a program: flipping one is not harmless, and nothing here says it were.
            header = damaged(rng, whole[:start])
            path.write_bytes(header + whole[start : rng.choice((start, len(whole) - 1, len(whole)))])
            try:
                capsule = open_capsule(path)
                repr(capsule), capsule._repr_html_()
                with warnings.catch_warnings(action="ignore"):
                    capsule(debug=False)
            except (InvalidArgument, NotReplayable) as error:
                assert str(path) in str(error)

    attack(one)
