"""What flowkit exports exists, is sorted, is documented, and nothing else is public by accident."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import flowkit

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "names.md"

#: Their own documentation stands where they are defined; a type alias has no room for any.
_WITHOUT_DOCSTRING = {"__version__"}


def test_all_is_sorted_and_says_each_name_once():
    assert list(flowkit.__all__) == sorted(set(flowkit.__all__))


@pytest.mark.parametrize("name", flowkit.__all__)
def test_every_exported_name_can_be_had(name):
    assert getattr(flowkit, name) is not None
    assert name in dir(flowkit)


@pytest.mark.parametrize("name", [each for each in flowkit.__all__ if each not in _WITHOUT_DOCSTRING])
def test_every_exported_name_is_documented(name):
    assert inspect.getdoc(getattr(flowkit, name)), f"flowkit.{name} has no docstring"


@pytest.mark.parametrize("name", flowkit.__all__)
def test_every_exported_name_stands_in_the_reference(name):
    assert f"`{name}`" in REFERENCE.read_text(encoding="utf-8"), f"docs/reference/names.md does not name {name}"


def test_an_unknown_name_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match="no_such_name"):
        flowkit.no_such_name


def test_every_public_operation_of_an_rdd_says_what_it_costs():
    """Laziness is only bearable when one can read what an operation will do: narrow or shuffle, how many jobs."""
    undocumented = [
        name
        for name, member in inspect.getmembers(flowkit.RDD)
        if not name.startswith("_") and inspect.isfunction(member) and "Cost:" not in (inspect.getdoc(member) or "")
    ]
    assert not undocumented


def test_every_public_operation_of_an_rdd_is_annotated():
    bare = [
        name
        for name, member in inspect.getmembers(flowkit.RDD, inspect.isfunction)
        if not name.startswith("_") and "return" not in member.__annotations__
    ]
    assert not bare


#: what RDDs and collaborators ask of a Context, through `abc.JobRunner`
_OF_THE_RUNNER = {
    "action", "cancellable", "changing", "drop_with", "facts", "new_rdd_id", "new_shuffle_id", "prepare", "ran", "run_job", "run_job_partially",
    "unpersist",
}  # fmt: skip


@pytest.mark.parametrize("kind", [flowkit.RDD, flowkit.Context])
def test_every_public_operation_shows_itself_at_work(kind):
    bare = [
        name
        for name, member in inspect.getmembers(kind, inspect.isroutine)
        if not name.startswith("_") and name not in _OF_THE_RUNNER and ">>>" not in (inspect.getdoc(member) or "")
    ]
    assert not bare
