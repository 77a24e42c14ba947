"""Policies that the documents show are twenty lines at most, and keep the rules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import flowkit as fk
from flowkit.testing import (
    check_allocation_policy,
    check_health_policy,
    check_placement_policy,
    check_scheduling_policy,
    check_speculation_policy,
)

DOCS = Path(__file__).parents[2] / "docs"
SHOWN = [
    ("scheduling.md", "ShortestFirst", check_scheduling_policy),
    ("placement.md", "Labelled", check_placement_policy),
    ("slow-and-sick.md", "Budget", check_speculation_policy),
    ("slow-and-sick.md", "FullDisks", check_health_policy),
    ("elasticity.md", "OfficeHours", check_allocation_policy),
]


def code_with(page: str, name: str) -> str:
    """The block of a page that defines a class, without what makes a Context of it."""
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (block,) = (each for each in blocks if f"class {name}" in each)
    return "\n".join(line for line in block.splitlines() if not line.startswith("fc = "))


@pytest.mark.parametrize(("page", "name", "check"), SHOWN, ids=[name for _, name, _ in SHOWN])
def test_a_policy_that_is_shown_keeps_the_rules(page, name, check):
    space = {"fk": fk}
    exec(compile(code_with(page, name), page, "exec"), space)
    check(space[name]())


@pytest.mark.parametrize(("page", "name"), [shown[:2] for shown in SHOWN])
def test_a_policy_that_is_shown_takes_twenty_lines_at_most(page, name):
    code = code_with(page, name)
    lines = re.split(r"\n(?=class )", code)
    (own,) = (each for each in lines if f"class {name}" in each)
    assert len([line for line in own.splitlines() if line.strip()]) <= 20
