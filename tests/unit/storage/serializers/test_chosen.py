"""Rows of types that somebody chose a serialiser for are written by it, and read by whoever has it; all others as ever."""

from __future__ import annotations

import datetime as dt
import threading

import pytest

from flowkit.errors import BadRow
from flowkit.storage.serializers import chosen, decode_batch, encode_batch
from flowkit.storage.serializers.chosen import ArrowSerializer, CloudpickleSerializer, MsgpackSerializer, PickleSerializer
from flowkit.testing.serializers import check_serializer

MAPPINGS = [[{"a": 1, "b": "x"}, {"a": 2, "b": None}], [{"n": number, "text": f"text {number}"} for number in range(500)]]
OBJECTS = [["a", 1, None, (2, 3)], [object, len], [{1, 2}, frozenset()]]


@pytest.mark.parametrize(
    ("serializer", "samples"),
    [
        (MsgpackSerializer(), [*MAPPINGS, [{"deep": {"er": [1, [2.5]]}}]]),
        (ArrowSerializer(), MAPPINGS),
        (PickleSerializer(), [*MAPPINGS, *OBJECTS]),
        (CloudpickleSerializer(), [*MAPPINGS, *OBJECTS]),
    ],
    ids=lambda each: type(each).__name__,
)
def test_those_of_flowkit_pass_the_tests_for_all(serializer, samples):
    check_serializer(serializer, samples)


@pytest.mark.parametrize(
    "rows",
    [
        [{"v": "x"}, {"v": b"x"}],
        [{"v": True}, {"v": 1}],
        [{"v": 2**53 + 1}, {"v": 0.5}],
        [{"v": dt.date(2020, 1, 1)}, {"v": dt.datetime(2020, 1, 1, 5, tzinfo=dt.UTC)}],
        [{"v": {1}}],
        [{"v": {}}],
        [{}],
    ],
    ids=str,
)
def test_arrow_refuses_rows_that_it_would_change_or_lose(rows):
    with pytest.raises(BadRow):
        ArrowSerializer().dumps(rows)


def test_arrow_gives_back_values_equal_to_what_they_were():
    rows = [{"v": 1, "w": [{"x": 1}]}, {"v": 2.5, "w": [{"y": "z"}]}, {"w": None}]
    back = ArrowSerializer().loads(memoryview(ArrowSerializer().dumps(rows)))
    assert back == [{"v": 1.0, "w": [{"x": 1, "y": None}]}, {"v": 2.5, "w": [{"x": None, "y": "z"}]}, {"v": None, "w": None}]


class Broken(PickleSerializer):
    def loads(self, data):
        return super().loads(data)[:-1]


class Listless(PickleSerializer):
    def loads(self, data):
        return tuple(super().loads(data))


@pytest.mark.parametrize(
    ("broken", "told"), [(Broken(), "came back as"), (Listless(), "not a list"), (MsgpackSerializer(), "accept")]
)
def test_the_tests_for_all_can_fail(broken, told):
    with pytest.raises(AssertionError, match=told):
        check_serializer(broken, [["a", "b"]])


def test_the_first_that_accepts_writes_and_others_keep_their_form():
    rows = {"mappings": [{"a": 1}] * 3, "texts": ["a", "b"], "numbers": [1, 2], "pairs": [("k", {"a": 1}), ("l", {"a": 2})]}
    plain = {name: encode_batch(each) for name, each in rows.items()}
    with chosen.using({"first": MsgpackSerializer(), "second": PickleSerializer()}):
        encoded = {name: encode_batch(each) for name, each in rows.items()}
        assert {name: decode_batch(data) for name, data in encoded.items()} == rows
        assert {name: decode_batch(data) for name, data in plain.items()} == rows
    assert b"first" in encoded["mappings"]
    assert b"first" in encoded["pairs"]
    assert b"second" in encoded["texts"]
    assert encoded["numbers"] == plain["numbers"]


def test_rows_of_an_unknown_serializer_are_named():
    with chosen.using({"mine": MsgpackSerializer()}):
        data = encode_batch([{"a": 1}])
    with pytest.raises(ValueError, match="serializer 'mine', which is not among the settings' serializers"):
        decode_batch(data)


def test_what_one_thread_uses_no_other_does():
    found = []
    with chosen.using({"mine": MsgpackSerializer()}):
        thread = threading.Thread(target=lambda: found.append(encode_batch([{"a": 1}])))
        thread.start()
        thread.join()
    assert b"mine" not in found[0]
    assert chosen.current() == {}
