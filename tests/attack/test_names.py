"""Names chosen by others (RDDs, applications, descriptions, groups, files, functions), wherever they are shown, stored or made a path.

Oracles: the job is right; nothing appears outside the places that were named; what is shown to a browser holds no tag of theirs.
"""

from __future__ import annotations

import tempfile
from operator import add
from pathlib import Path
from random import Random

import pytest

from flowkit.errors import FlowkitError
from flowkit.testing.inline import inline_context
from tests.attack.mutations import TEXTS

NAMES = (
    *TEXTS,
    "a\nb",
    "\r\x08\x07",
    "</script><script>",
    "\ud800",
    "x" * 100_000,
    "{0}",
    "%(name)s",
    "日本",
    "\u2028",
    "'\"`$(touch evil)",
)


@pytest.fixture
def fc(tmp_path, monkeypatch):
    """A Context whose files lie below ``tmp_path``, with a log of its events."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with inline_context(event_log=str(tmp_path / "log")) as context:
        yield context


def test_names_are_texts_and_nothing_else(fc, tmp_path, attack):
    def one(rng: Random) -> None:
        name, description, group, value = (rng.choice(NAMES) for _ in range(4))

        def function(x: int) -> tuple[int, int]:
            return x % 3, x

        function.__name__ = function.__qualname__ = rng.choice(NAMES)
        with fc.job(description=description, group=group or "none", properties={rng.choice(NAMES) or "none": value}):
            rows = fc.range(20, num_partitions=2).map(function).set_name(name).cache()
            try:
                assert rows.reduce_by_key(add, 2).collect_as_map() == {0: 63, 1: 70, 2: 57}
            except FlowkitError as error:
                assert len(str(error)) < 10_000
        for shown in (each._repr_html_() for each in (fc, rows) if hasattr(each, "_repr_html_")):
            assert not any(tag in shown for tag in ("<script>alert", "</script><script>"))
        assert repr(rows) and rows.explain()
        rows.unpersist()
        assert {path.name for path in tmp_path.iterdir()} <= {"work", "log", *(each.name for each in tmp_path.glob("flowkit-*"))}
        assert not list((tmp_path / "work").iterdir())
        assert not Path("/tmp/evil").exists()

    attack(one)


def test_files_with_hostile_names_are_read_and_written(fc, tmp_path, attack):
    numbers = iter(range(1_000_000))

    def one(rng: Random) -> None:
        place = tmp_path / "work" / str(next(numbers))
        place.mkdir()
        name = rng.choice(NAMES).replace("/", "_").replace("\x00", "_")[:200] or "_"
        if name in {".", ".."} or "\ud800" in name:
            return
        path = place / f"a{name}"
        path.write_text("one\ntwo\n")
        literal = str(path)
        for character in "[*?{":
            if character in literal:  # a pattern: read by its directory instead
                literal = str(place)
        assert fc.text_file(literal, 1).collect() == ["one", "two"]
        target = place / f"out{name}"
        fc.parallelize(["one", "two"], 1).save_as_text(target)
        assert (target / "part-00000.txt").exists() or list(target.glob("part-00000*"))
        assert {each.name for each in place.iterdir()} == {path.name, target.name}

    attack(one)
