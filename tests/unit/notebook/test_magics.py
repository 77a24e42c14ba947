"""``%flowkit``: commands, their help, their complaints in one line, and what completes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from IPython.core.error import UsageError

from flowkit.notebook import magics
from flowkit.notebook.magics import completions, run_line
from flowkit.testing.inline import inline_context


@pytest.fixture
def shell():
    with inline_context() as context:
        space = {"fc": context, "numbers": context.range(3), "other": 5}
        yield SimpleNamespace(user_ns=space, push=space.update, execution_count=1)


def test_every_command_has_help(shell, capsys):
    run_line(shell, "")
    told = capsys.readouterr().out
    for name, each in magics._commands.items():
        assert name in told
        assert each.parser.description
        run_line(shell, f"{name} --help")
        assert each.parser.description.split()[0] in capsys.readouterr().out


@pytest.mark.parametrize(
    "line, complaint",
    [
        ("nonsense", "no command 'nonsense'"),
        ("explain", "required"),
        ("explain other", "other is no RDD"),
        ("explain missing", "no variable missing"),
        ("job 77", "no job 77"),
        ("cancel", "which one"),
        ("jobs -n many", "invalid int"),
        ("start --conf nonsense=1", "no setting 'nonsense'"),
        ("conf max_task_failures=0", "must be above 0"),
        ("scale 3", "guest"),
        ("jobs 'unclosed", "No closing quotation"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(shell, line, complaint):
    shell.user_ns.pop("fc") if line.startswith("start") else None
    with pytest.raises(UsageError, match=complaint) as raised:
        run_line(shell, line)
    assert "\n" not in str(raised.value)


def test_rdds_are_explained_and_kept(shell):
    assert "range at" in str(run_line(shell, "lineage numbers"))
    run_line(shell, "persist numbers")
    assert shell.user_ns["numbers"].is_cached
    assert run_line(shell, "storage").rows[0][0] == "numbers"
    run_line(shell, "unpersist numbers")
    assert not shell.user_ns["numbers"].is_cached


def test_jobs_and_stages_are_tables(shell):
    shell.user_ns["numbers"].count()
    shell.user_ns["fc"].wait_for_listeners()
    assert run_line(shell, "jobs").rows[-1][1].startswith("count")
    assert run_line(shell, "job 0").rows
    assert run_line(shell, "stages").rows
    assert dict(run_line(shell, "status").rows)["jobs"] == 1
    assert "<table>" in run_line(shell, "jobs")._repr_html_()


def test_commands_options_variables_complete(shell):
    assert set(completions(shell, "%flowkit ")) == set(magics._commands)
    assert "numbers" in completions(shell, "%flowkit explain ")
    assert "other" not in completions(shell, "%flowkit explain ")
    assert "--workers" in completions(shell, "%flowkit start ")
    assert list(completions(shell, "%flowkit nonsense ")) == []


def test_a_cell_is_profiled(shell):
    ran = []

    def run(cell, store_history):
        ran.append(shell.user_ns["numbers"].map(lambda x: x).count())

    shell.run_cell = run
    found = magics.run_cell(shell, "profile -o kept", "numbers.count()")
    assert ran == [3]
    assert found.tasks > 0
    assert shell.user_ns["kept"] is found


def test_what_happened_is_told_line_by_line(shell):
    def fail(x):
        raise ValueError("no")

    with pytest.raises(ValueError):
        shell.user_ns["numbers"].map(fail).count()
    shell.user_ns["fc"].wait_for_listeners()
    told = str(run_line(shell, "log"))
    assert "job 0 starts: count at" in told
    assert "ValueError: no" in told
    assert "job 0 failed after" in told
    assert len(run_line(shell, "log -n 2")) == 2
    assert "color" in run_line(shell, "log")._repr_html_()


def test_a_failure_is_saved_and_replayed_from_its_file(shell, tmp_path, monkeypatch):
    def fail(x):
        raise ValueError(f"no {x}")

    with pytest.raises(ValueError) as raised:
        shell.user_ns["numbers"].map(fail).count()
    monkeypatch.setattr("sys.last_value", raised.value, raising=False)
    saved = run_line(shell, f"replay --save {tmp_path}/failed.capsule")
    with pytest.warns(UserWarning, match="runs code"):
        replayed = run_line(shell, f"replay {saved} --no-debug --element bad")
    assert shell.user_ns["bad"] == 0
    assert "no 0" in replayed._repr_html_()
