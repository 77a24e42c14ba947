"""Names of cells: as the shell's tracebacks have them, and bodies of magics by the cell that they are part of."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from flowkit.notebook.cell_names import CellNames


class Compiler:
    """As much of IPython's as names need: file names of what was compiled, with the shell's count."""

    def __init__(self):
        self.counts = {}

    def format_code_name(self, file):
        return ("Cell", f"In[{self.counts[file]}]") if file in self.counts else None


@pytest.fixture
def shell():
    return SimpleNamespace(compile=Compiler(), execution_count=5)


def run_in(shell, file, count, act):
    """Run a function from code of a cell."""
    shell.compile.counts[file] = count
    exec(compile("act()", file, "exec"), {"act": act})


def test_a_cell_has_its_number_and_a_file_has_none(shell):
    names = CellNames(shell)
    shell.compile.counts["/tmp/a.py"] = 4
    assert names.place("/tmp/a.py", 7) == "In[4] line 7"
    assert names.place("/home/ann/words.py", 7) == ""


def test_a_shell_that_names_nothing_is_none_either():
    assert CellNames(SimpleNamespace(compile=object())).place("/tmp/a.py", 1) == ""


def test_the_body_of_a_magic_is_a_part_of_its_cell_also_later(shell):
    names = CellNames(shell)
    run_in(shell, "outer", 4, lambda: names.begin_body("\n\nfirst\n"))
    shell.compile.counts["body"] = 5  # the shell takes it for the next cell
    assert names.place("body", 1) == "In[4] line 4"
    names.end_body()
    shell.compile.counts["next"] = 5
    assert names.place("next", 1) == "In[5] line 1"
    assert names.place("body", 2) == "In[4] line 5", "a function that was defined there"
    shell.compile.counts["body"] = 9  # the same text, as a cell of its own
    assert names.place("body", 1) == "In[9] line 1"


def test_a_body_that_no_cell_runs_has_the_shells_name(shell):
    names = CellNames(shell)
    names.begin_body("first")
    shell.compile.counts["body"] = 5
    assert names.place("body", 1) == "In[5] line 1"
