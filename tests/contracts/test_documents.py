"""What documents point at is there: links between pages, and files named in backticks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "tests/README.md", "extensions/README.md")),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "changelog.d").glob("*.md"),
]
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
#: `flowkit/scheduling/core.py`, and in the architecture also `scheduling/core.py` or `rdd/`
NAMED = re.compile(r"`((?:[a-z_]+/)+(?:[a-z_]+\.[a-z]+)?)`")
#: written by `make bench`, made by `make docs` or another tool, or not there yet and said to be so
LATER = {"benchmarks/RESULTS.md", "flowkit/notebook/static"}


@pytest.mark.parametrize("page", PAGES, ids=lambda each: str(each.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    targets = [target for target in LINK.findall(page.read_text(encoding="utf-8")) if target not in LATER]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda each: str(each.relative_to(ROOT)))
def test_every_file_that_is_named_exists(page):
    named = [name for name in NAMED.findall(page.read_text(encoding="utf-8")) if name.rstrip("/") not in LATER]
    bases = (ROOT, ROOT / "flowkit", page.parent, ROOT / "tests")
    missing = [name for name in named if not any((base / name).exists() for base in bases)]
    assert not missing
