"""docs/threads.md lists each thread that flowkit starts, and all of flowkit logs by loggers that raise nothing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: a thread of a suite that users run, not of flowkit's
NOT_OURS = {"flowkit/testing/serializers.py"}


def trees() -> Iterator[tuple[str, ast.AST]]:
    for path in sorted((ROOT / "flowkit").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name not in NOT_OURS:
            yield name, ast.parse(path.read_text())


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    for file, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield file, ast.unparse(node.func), node


def started() -> Iterator[tuple[str, str]]:
    for file, called, node in calls():
        if called.rpartition(".")[2] in {"Thread", "ThreadPoolExecutor"}:
            said = {word.arg: word.value for word in node.keywords}
            yield file, ast.unparse(said["name"] if "name" in said else said["thread_name_prefix"])


def test_the_page_has_each_thread():
    page = (ROOT / "docs" / "threads.md").read_text()
    found = list(started())
    assert len(found) > 15
    for file, name in found:
        if name in {"self._name", "name"}:  # given by who makes it: ``flowkit reaper``, ``flowkit-fetch-...``
            assert f"{file.removeprefix('flowkit/')}`" in page, file
            continue
        fixed = re.split(r"[{']", name.removeprefix("f").strip("'\""))[0]
        assert f"`{fixed}" in page, f"{file} starts {name}, which docs/threads.md lacks"


def test_the_page_names_files_that_are_there():
    page = (ROOT / "docs" / "threads.md").read_text()
    named = set(re.findall(r"`((?:flowkit|tests)?/?[a-z_/]+\.py)`", page))
    assert len(named) > 20
    for each in named:
        assert (ROOT / each).exists() or (ROOT / "flowkit" / each).exists(), each


def test_loggers_raise_nothing():
    made = [
        (file, ast.unparse(node))
        for file, called, node in calls()
        if called == "logging.getLogger" and file not in {"flowkit/logs.py", "flowkit/cluster/quiet_logs.py"}
    ]
    assert [each for each in made if "distributed" not in each[1]] == []
