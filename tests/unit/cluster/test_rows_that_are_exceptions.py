"""Exceptions as rows: collected, cached and shuffled like any other, by Python's own pickling."""

from __future__ import annotations

import pickle

import pytest

import flowkit.cluster.dask_internals  # noqa: F401 - imports Dask, which has a pickling of its own for all exceptions


def _raised(source: str) -> BaseException:
    try:
        eval(source, {})
    except Exception as error:
        return error
    raise AssertionError(source)


@pytest.mark.parametrize(
    "error",
    [
        _raised("b'a\\xff'.decode()"),
        _raised("'a\\u00e9'.encode('ascii')"),
        UnicodeTranslateError("a\u00e9", 1, 2, "bad character"),
        _raised("a b"),
        IndentationError("unexpected indent", ("x.py", 3, 5, " a", 3, 6)),
        SystemExit(3),
        StopIteration(4),
        OSError(2, "none", "from", None, "to"),
        KeyError("k"),
        ExceptionGroup("several", [_raised("b'a\\xff'.decode()")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_that_is_a_row_keeps_its_text(error: BaseException) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), repr(copy)) == (type(error), str(error), repr(error))
    for name in ("reason", "lineno", "filename", "code", "value"):
        assert getattr(copy, name, None) == getattr(error, name, None)
