"""Whatever is handed to a public operation: what its annotation does not allow is refused at the call, by name and with the value.

Every argument of every operation is tried, by the annotations; a new operation takes its place by a right call in ``calls.py``.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

import flowkit as fk
from flowkit.errors import InvalidArgument, WrongType
from flowkit.jobs import Jobs
from flowkit.testing.inline import InlineLink, inline_context
from tests.unit.rdd.calls import BY_KEY, of_contexts, of_jobs, of_rdds, public_methods

#: read or run what is not made here; or for RDDs and collaborators
NOT_TRIED = {
    "close", "get_or_create", "reconnect", "live", "prepare", "cancellable", "drop_with", "facts", "new_rdd_id", "new_shuffle_id", "ran",
    "run_job", "run_job_partially", "unpersist", "wait", "disown", "action", "changing", "keep_last_failure", "read_parquet", "from_arrow", "from_pandas", "from_dask_bag",
}  # fmt: skip
#: what is called otherwise in the error, since several calls say it
ALSO = {"name": {"pool", "another file"}, "tags": {"tag"}, "columns": {"types of"}, "path": {"/", "nothing", "no file"}}


class JobRan(BaseException):
    """No complaint came before."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    place = tmp_path_factory.mktemp("calls")
    with pytest.MonkeyPatch.context() as patch, inline_context() as fc:

        def run(*_: object) -> None:
            raise JobRan

        patch.setattr(InlineLink, "submit", run)
        patch.chdir(place)
        rdd = fc.range(4, num_partitions=2)
        pairs = rdd.map(lambda x: (x % 3, x))
        yield {
            "RDD": (fk.RDD, rdd, pairs, of_rdds(rdd, pairs, place)),
            "Context": (fk.Context, fc, fc, of_contexts(rdd, place)),
            "Jobs": (Jobs, fc.jobs, fc.jobs, of_jobs()),
        }


def odd_values(rdd: Any) -> list[Any]:
    return [
        None, True, 0, -1, 2.5, math.nan, math.inf, "", " ", "3", "a\0b", b"x", [], [None], {}, object(), abs, rdd, 10**30, Path("nowhere"), int,
    ]  # fmt: skip


def _is_path(value: object) -> bool:
    return isinstance(value, str | os.PathLike) and bool(os.fspath(value).strip()) and "\0" not in os.fspath(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


#: by how an annotation begins: what it allows
ALLOWED: dict[str, Callable[[Any], bool]] = {
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": _is_number,
    "str | Path": _is_path,
    "str | Sequence": lambda value: isinstance(value, str | list),
    "str": lambda value: isinstance(value, str),
    "OnError": lambda value: isinstance(value, str),
    "Callable": callable,
    "RDD": lambda value: isinstance(value, fk.RDD),
    "Sequence[RDD": lambda value: isinstance(value, list | tuple) and all(isinstance(each, fk.RDD) for each in value),
    "Sequence[str": lambda value: isinstance(value, list | tuple | dict) and all(isinstance(each, str) for each in value),
    "Iterable[str": lambda value: isinstance(value, list | tuple | dict) and all(isinstance(each, str) for each in value),
    "Iterable": lambda value: hasattr(value, "__iter__") and not isinstance(value, fk.RDD),
    "Sequence[float": lambda value: isinstance(value, list | tuple) and all(map(_is_number, value)),
    "Mapping": lambda value: isinstance(value, Mapping),
    "StorageLevel": lambda value: isinstance(value, fk.StorageLevel),
    "Listener": lambda value: hasattr(value, "on_event"),
}


def is_allowed(annotation: str, value: Any) -> bool:
    """Whether an annotation has room for a value, as far as its type goes."""
    parts = annotation.replace("str | Path", "path").replace("str | Sequence", "words").split(" | ")
    if value is None:
        return "None" in parts or _of(annotation) is None
    judge = _of(annotation)
    return judge is None or bool(judge(value))


def _of(annotation: str) -> Callable[[Any], bool] | None:
    return next((ALLOWED[each] for each in sorted(ALLOWED, key=len, reverse=True) if annotation.startswith(each)), None)


def outcome(call: Callable[[], object]) -> BaseException | None:
    """What a call raises, at once."""
    try:
        found = call()
        if isinstance(found, AbstractContextManager) and not isinstance(found, fk.Context):
            with found:
                pass
        if isinstance(found, Future):
            found.exception(timeout=10)
    except BaseException as error:
        return error
    return None


def complaint(label: str, name: str, argument: str, annotation: str, value: Any, error: BaseException | None) -> str | None:
    """What is wrong with an answer."""
    shown = f"{label}.{name}({argument}={value!r:.40}), of {annotation}: {error!r:.150}"
    if isinstance(error, InvalidArgument):
        named = str(error).startswith((argument, *ALSO.get(argument, ())))
        return None if named else f"{shown}: does not name it"
    if not is_allowed(annotation, value):
        return f"{shown}: let through"
    if isinstance(error, TypeError | AttributeError | KeyError | IndexError) and not isinstance(error, fk.FlowkitError):
        return f"{shown}: from inside"
    return None


@pytest.mark.parametrize("label", ["RDD", "Context", "Jobs"])
def test_what_an_annotation_does_not_allow_is_refused_at_the_call_by_its_name(world, label):
    kind, thing, pairs, table = world[label]
    assert public_methods(kind) - NOT_TRIED - set(table) == set(), "has no right call in calls.py"
    rdd, fc = world["RDD"][1], world["Context"][1]
    wrong = []
    for name, arguments in table.items():
        if name in NOT_TRIED:
            continue
        annotations = inspect.get_annotations(inspect.unwrap(getattr(kind, name)))
        for argument in arguments:
            for value in odd_values(rdd):
                # A fresh one: those that were persisted once refuse another level.
                owner = pairs if name in BY_KEY else fc.range(4, num_partitions=2) if label == "RDD" else thing
                call = getattr(owner, name)
                error = outcome(lambda call=call, given={**arguments, argument: value}: call(**given))
                wrong.append(complaint(label, name, argument, annotations[argument], value, error))
    found = [each for each in wrong if each]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda fc: fc.parallelize(5), "elements = 5: must be an iterable, not int"),
        (lambda fc: fc.range(3).take("3"), "num = '3': must be a whole number"),
        (lambda fc: fc.range(3).map(None), "fn = None: must be callable, not NoneType"),
        (lambda fc: fc.range(3).repartition(2.5), "num_partitions = 2.5: must be a whole number of 1 or more"),
        (lambda fc: fc.range(3).sort_by(abs, ascending="no"), "ascending = 'no': must be True or False"),
        (lambda fc: fc.range(3).save_as_text(b"out"), "path = b'out': must be a path, a str or Path, not bytes"),
        (lambda fc: fc.range(3).save_as_csv("out", columns="id"), "columns = 'id': must be "),
        (lambda fc: fc.range(3).sample(math.nan), "fraction = nan: must be a number of 0 or more"),
        (lambda fc: fc.range(3).union([1]), "other must be an RDD, not list"),
    ],
)
def test_an_error_says_the_value_and_what_is_allowed(world, call, text):
    with pytest.raises(InvalidArgument) as caught:
        call(world["Context"][1])
    assert str(caught.value).startswith(text)
    assert isinstance(caught.value, WrongType) == ("nan" not in text)
    assert caught.value.allowed


def test_flags_of_numpy_are_flags(world):
    import numpy as np

    assert world["Context"][1].range(3).sort_by(abs, ascending=np.True_).num_partitions
