"""Every notebook runs from top to bottom, says nothing on standard error, and shows what it was stored with.

A cell tagged ``varies`` (times, ids) must show something of the same kind; every other must show the same text. They run in their own folder, as
JupyterLab starts them, and show things in the same order each time.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def shown(cell):
    """What a code cell shows, as (kind, text)."""
    result = []
    for output in cell.get("outputs", []):
        if output["output_type"] == "stream":
            result.append((output["name"], output["text"]))
        elif output["output_type"] == "error":
            result.append(("error", output["evalue"]))
        else:
            result.append((output["output_type"], output["data"].get("text/plain", "")))
    return result


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda each: each.stem)
def test_a_notebook_shows_what_it_was_stored_with(path):
    stored = nbformat.read(path, as_version=4)
    executed = NotebookClient(nbformat.from_dict(stored), timeout=120, resources={"metadata": {"path": str(FOLDER)}}).execute()
    for before, after in zip(nbformat.read(path, as_version=4).cells, executed.cells, strict=True):
        if before.cell_type != "code":
            continue
        was, now = shown(before), shown(after)
        assert "stderr" not in dict(now), now
        assert [kind for kind, _ in now] == [kind for kind, _ in was], before.source
        if "varies" not in before.metadata.get("tags", []):
            assert now == was, before.source


def test_there_are_notebooks():
    assert NOTEBOOKS
