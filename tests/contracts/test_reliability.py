"""docs/reliability.md promises nothing without a test that is there, and no bound that is not the setting's default."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from flowkit.config import Config

ROOT = Path(__file__).parents[2]
TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")
SETTING = re.compile(r"`(\w+)` \(([\d_.]+)(?: s)?\)")


def promises() -> list[tuple[str, str, str]]:
    """The rows of the table: promise, bound, tests."""
    text = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    section = text.split("\n## Promises\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|") and not line.startswith("|--")]
    assert all(len(row) == 3 for row in rows), "a promise, its bound, its tests"
    return [(promise, bound, tests) for promise, bound, tests in rows[1:]]


@cache
def functions(path: Path) -> frozenset[str]:
    return frozenset(
        node.name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)
    )


def test_there_are_promises():
    assert len(promises()) > 20


@pytest.mark.parametrize(("promise", "bound", "tests"), promises(), ids=lambda each: each[:40])
def test_each_promise_has_a_bound_and_tests_that_are_there(promise: str, bound: str, tests: str):
    assert bound.strip()
    named = TEST.findall(tests)
    assert named, "no test"
    assert tests.count("`") == 2 * len(named), "something in backticks that is no test"
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / "tests" / file).exists() or name not in functions(ROOT / "tests" / file)
    ]
    assert not missing


def test_bounds_are_what_the_settings_are():
    text = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    told = SETTING.findall(text)
    assert told
    defaults = Config()
    wrong = [(name, value) for name, value in told if not hasattr(defaults, name) or getattr(defaults, name) != float(value)]
    assert not wrong
