"""Where a user's code called flowkit: a file and line, or a cell of a notebook and its line."""

from __future__ import annotations

import pytest

from flowkit.lineage.call_site import find_call_site, name_cells, short_call_site
from flowkit.testing.inline import inline_context

CELL = "/tmp/ipykernel_77/716518321.py"


@pytest.fixture
def cells():
    name_cells(lambda file, line: f"In[5] line {line}" if file == CELL else "")
    yield
    name_cells(None)


def run_in_a_cell(code, **names):
    exec(compile(code, CELL, "exec"), names)
    return names


def test_code_of_a_cell_has_its_number_and_line(cells):
    assert run_in_a_cell("\n\nfound = find()", find=find_call_site)["found"] == "In[5] line 3"
    assert find_call_site().endswith(f"{__file__.rpartition('/')[2]}:{find_call_site().rpartition(':')[2]}")


def test_operations_jobs_and_stages_are_named_by_cells(cells):
    with inline_context() as fc:
        run_in_a_cell("rows = fc.range(4)\ndone = rows.map(str).count()", fc=fc)
        fc.wait_for_listeners()
        assert fc.status.jobs()[-1].name == "count at In[5] line 2"
        assert fc.status.stages()[-1].name == "map at In[5] line 2"


def test_file_names_that_come_from_executors_are_named_by_cells_too(cells):
    assert short_call_site(f"{CELL}:7") == "In[5] line 7"
    assert short_call_site("/home/ann/words.py:7") == "words.py:7"


def test_without_a_shell_a_cell_is_a_cell():
    assert short_call_site(f"{CELL}:7") == "cell, line 7"
