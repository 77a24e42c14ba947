"""Content by digest."""

import errno
import random
from pathlib import Path

import pytest

from flowkit.errors import DiskFull, InvalidArgument
from flowkit.storage import private_files
from flowkit.storage.content import PIECE_BYTES, ContentStore, Manifest, content_id, manifest_of


def test_content_is_found_by_its_digest(tmp_path):
    store = ContentStore(tmp_path / "content")
    name = store.put(b"0123456789")
    assert name == content_id(b"0123456789")
    assert store.put(b"0123456789") == name
    assert store.path(name).read_bytes() == b"0123456789"
    assert [path.name for path in (tmp_path / "content").iterdir()] == [name]


def test_what_is_not_there_is_none_or_a_key_error(tmp_path):
    store = ContentStore(tmp_path)
    assert store.path(content_id(b"x")) is None
    with pytest.raises(KeyError):
        store.manifest(content_id(b"x"))
    with pytest.raises(KeyError):
        store.piece(content_id(b"x"), 0, b"")
    name = store.put(b"x")
    store.drop(name)
    store.drop(name)
    assert store.path(name) is None


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_an_id_that_is_no_digest_is_refused(tmp_path, name):
    with pytest.raises(InvalidArgument, match="64 hex digits"):
        ContentStore(tmp_path).path(name)


def test_a_full_disk_is_named_and_nothing_is_left(tmp_path, monkeypatch):
    def fail(path, data):
        Path.touch(path)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(private_files, "write_file", fail)
    with pytest.raises(DiskFull, match="no space left for 3 bytes"):
        ContentStore(tmp_path).put(b"abc")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def data():
    return random.Random(3).randbytes(2 * PIECE_BYTES + 5)


def test_a_manifest_says_what_content_is_made_of_and_can_be_checked(tmp_path, data):
    store = ContentStore(tmp_path)
    name = store.put(data)
    manifest = store.manifest(name)
    assert manifest == manifest_of(data)
    assert (manifest.size_bytes, manifest.piece_count) == (len(data), 3)
    assert manifest.is_of(name)
    assert not manifest.is_of(content_id(b"other"))
    assert not Manifest(5, manifest.digests).is_of(name)
    assert b"".join(store.piece(name, piece, manifest.digest(piece)) for piece in range(3)) == data


def test_a_damaged_piece_is_not_given(tmp_path, data):
    store = ContentStore(tmp_path)
    name = store.put(data)
    manifest = store.manifest(name)
    with store.path(name).open("r+b") as file:
        file.seek(PIECE_BYTES + 7)
        file.write(b"damage")
    assert len(store.piece(name, 0, manifest.digest(0))) == PIECE_BYTES
    with pytest.raises(KeyError):
        store.piece(name, 1, manifest.digest(1))


def test_pieces_can_be_read_while_the_others_are_still_to_come(tmp_path, data):
    manifest, name = manifest_of(data), content_id(data)
    store = ContentStore(tmp_path)
    with store.drafting(name) as draft:
        draft.write(2, data[2 * PIECE_BYTES :])
        assert store.path(name) is None
        assert store.piece(name, 2, manifest.digest(2)) == data[2 * PIECE_BYTES :]
        with pytest.raises(KeyError):
            store.piece(name, 0, manifest.digest(0))
        draft.write(0, data[:PIECE_BYTES])
        draft.write(1, data[PIECE_BYTES : 2 * PIECE_BYTES])
        draft.finish()
    assert store.path(name).read_bytes() == data
    with store.drafting(name) as draft:
        assert draft is None
    store.drop(name)
    assert list(tmp_path.iterdir()) == []


def test_a_draft_that_is_not_finished_is_deleted(tmp_path, data):
    store, name = ContentStore(tmp_path), content_id(data)
    with pytest.raises(RuntimeError), store.drafting(name) as draft:
        draft.write(0, data[:PIECE_BYTES])
        raise RuntimeError
    assert store.path(name) is None
    assert not list(tmp_path.glob(".*.part"))


def test_a_disk_that_takes_a_part_only_is_asked_again_and_then_named(tmp_path, data):
    class NearlyFull:
        """Takes half of what it is given, until it is full."""

        def __init__(self, file, room):
            self.file, self.room = file, room

        def seek(self, place):
            self.file.seek(place)

        def write(self, rest):
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            taken = self.file.write(rest[: min(self.room, -(-len(rest) // 2))])
            self.room -= taken
            return taken

        def close(self):
            self.file.close()

    store, name = ContentStore(tmp_path), content_id(data)
    with store.drafting(name) as draft:
        draft._file = NearlyFull(draft._file, len(data))
        for piece in range(3):
            draft.write(piece, data[piece * PIECE_BYTES : (piece + 1) * PIECE_BYTES])
        draft.finish()
    assert store.path(name).read_bytes() == data
    store.drop(name)
    with pytest.raises(DiskFull), store.drafting(name) as draft:
        draft._file = NearlyFull(draft._file, 100)
        draft.write(0, data[:PIECE_BYTES])
    assert store.path(name) is None
