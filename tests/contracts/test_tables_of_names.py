"""The pages for people who come from elsewhere: every name of ours that they tell exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import flowkit as fk

DOCS = Path(__file__).parents[2] / "docs"
OURS = re.compile(r"`(RDD|Context)\.(\w+)`")
ROOTS = {"RDD": fk.RDD, "Context": fk.Context}


@pytest.mark.parametrize("page", ["from-pyspark.md", "from-dask-bag.md"])
def test_every_name_of_ours_exists(page: str) -> None:
    names = OURS.findall((DOCS / page).read_text(encoding="utf-8"))
    assert len(names) > 20
    missing = [f"{owner}.{name}" for owner, name in names if not hasattr(ROOTS[owner], name)]
    assert not missing


def test_every_operation_of_ours_is_told_to_people_from_pyspark() -> None:
    told = {name for _, name in OURS.findall((DOCS / "from-pyspark.md").read_text(encoding="utf-8"))}
    own = {name for name in dir(fk.RDD) if not name.startswith("_") and callable(getattr(fk.RDD, name))}
    assert own - told == set()
