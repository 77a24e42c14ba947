"""Every method of an RDD that runs jobs is marked as an action, so that what it raises after its job is its job's failure."""

from __future__ import annotations

import ast
import inspect
import textwrap

from flowkit.rdd.base import is_action
from flowkit.rdd.rdd import RDD

#: what runs a job, wherever it is called
RUNS = {"_run", "run_job", "run_job_partially"}
#: start a thread that calls an action, or a private method that runs one job and does nothing with its result
ELSEWHERE = {"_started", "to_local_iterator", "_partition_by_partition", "_collect_partition"}


def called(method) -> set[str]:
    """Names of the methods that it calls of RDDs and of their runner; preparations get theirs as an argument, and run in an action."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    return {each.attr for each in calls if not (isinstance(each.value, ast.Name) and each.value.id == "runner")}


def methods() -> dict[str, object]:
    found = {}
    for name, value in inspect.getmembers(RDD, inspect.isfunction):
        if inspect.unwrap(value).__module__.startswith("flowkit.rdd") and name not in ELSEWHERE and not name.endswith("_async"):
            found[name] = inspect.unwrap(value)
    return found


def those_that_run_jobs() -> set[str]:
    calls = {name: called(method) for name, method in methods().items()}
    running = {name for name, names in calls.items() if names & RUNS}
    while more := {name for name, names in calls.items() if names & running} - running:
        running |= more
    return running


def test_whatever_runs_jobs_is_marked_as_an_action():
    public = {name for name in those_that_run_jobs() if not name.startswith("_")}
    assert {"count", "reduce", "first", "save_as_text", "take_sample", "checkpoint", "histogram"} <= public
    assert not [name for name in sorted(public) if not is_action(getattr(RDD, name))]
