"""Whoever prints, logs or draws texts of users does so by one module."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import flowkit

SOURCES = sorted(Path(flowkit.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize(
    ("pattern", "allowed"),
    [
        # A filter of a logger is asked for the records of that very logger alone.
        (r"^(?:_?logger|log)\b.*= logging\.getLogger\(", ()),
        (r"\bhtml\.escape\(|from html import", ("visible.py",)),
        (r"\bdef \w*escape\w*\(", ()),
    ],
    ids=["logger_of", "as_html", "no second one"],
)
def test_texts_of_users_are_made_visible_in_one_place(pattern, allowed):
    found = [
        f"{path.name}:{number}"
        for path in SOURCES
        if path.name not in allowed
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert found == []
