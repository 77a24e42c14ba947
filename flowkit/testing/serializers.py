"""Tests that every serialiser of rows must pass: yours too.

Runs in tests. Raises ``AssertionError`` that says which rule was broken, and by which values.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Sequence
from typing import Any

from flowkit.abc import Serializer
from flowkit.storage.serializers import chosen, decode_batch, encode_batch


def check_serializer(serializer: Serializer, samples: Sequence[Sequence[Any]]) -> None:
    """Hold a serialiser to what ``abc.Serializer`` asks.

    Parameters
    ----------
    samples
        Columns of values that it is to accept, each of one kind; the more different, the better.

    Raises
    ------
    AssertionError
        Which rule is broken.

    Examples
    --------
    >>> from flowkit.storage.serializers.chosen import MsgpackSerializer
    >>> check_serializer(MsgpackSerializer(), [[{"a": 1}, {}], [{"b": [1.5, None, "x"]}]])
    """
    copied = pickle.loads(pickle.dumps(serializer))
    for sample in samples:
        values = list(sample)
        kinds = frozenset(map(type, values))
        assert serializer.accepts(kinds), f"it does not accept {sorted(kind.__name__ for kind in kinds)}"
        assert copied.accepts(kinds), "pickled, it accepts other types than before"
        data = serializer.dumps(list(values))
        assert isinstance(data, bytes), f"dumps gave {type(data).__name__}, not bytes"
        for reader in (serializer, copied):
            found = reader.loads(memoryview(data))
            assert type(found) is list, f"loads gave {type(found).__name__}, not a list"
            assert found == values, f"{values!r} came back as {found!r}"
        assert serializer.loads(memoryview(b"before" + data)[6:]) == values, "loads wants its bytes at the beginning of a buffer"
        with chosen.using({"under test": serializer}):
            assert decode_batch(encode_batch([(number, value) for number, value in enumerate(values)])) == list(enumerate(values))
    assert serializer.loads(memoryview(serializer.dumps([]))) == [], "no values came back as some"
    _check_threads(serializer, [list(sample) for sample in samples])


def _check_threads(serializer: Serializer, samples: list[list[Any]]) -> None:
    wrong: list[object] = []

    def work() -> None:
        for _ in range(20):
            for values in samples:
                try:
                    if serializer.loads(memoryview(serializer.dumps(values))) != values:
                        wrong.append(values)
                except Exception as error:
                    wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, f"used by several threads at once: {wrong[0]!r}"
