"""``%flowkit``: commands, their help, their complaints in one line, and what completes."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import pytest
from IPython.core.error import UsageError

from flowkit.notebook import magics
from flowkit.notebook.commands import COMMANDS
from flowkit.notebook.magics import completions, run_line
from flowkit.testing.inline import inline_context


@pytest.fixture
def shell():
    with inline_context() as context:
        context.keep_last_failure()
        space = {"fc": context, "numbers": context.range(3), "other": 5}
        yield SimpleNamespace(user_ns=space, push=space.update, execution_count=1)


def test_every_command_has_help(shell, capsys):
    run_line(shell, "")
    told = capsys.readouterr().out
    for name, each in COMMANDS.items():
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
        ("stauts", "did you mean status?"),
        ("kill 3", "did you mean cancel?"),
        ("stages 77", "no stage 77"),
        ("cancel 77", "no job 77"),
        ("jobs -n many", "'many' must be a whole number of 1 or more"),
        ("jobs -n 0", "must be a whole number of 1 or more"),
        ("log -n -1", "must be a whole number of 1 or more|expected one argument"),
        ("scale 0", "must be a whole number of 1 or more"),
        ("persist numbers NOWHERE", "no storage level"),
        ("persist other", "other is no RDD"),
        ("conf task_retries", "did you mean 'max_task_failures'"),
        ("conf cores=2", r"did you mean Context\(workers=...\)"),
        ("replay", "no task has failed yet"),
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


def test_rdds_are_explained_and_kept(shell, capsys):
    def told(line):
        assert run_line(shell, line) is None
        return capsys.readouterr().out

    numbers = shell.user_ns["numbers"]
    assert "range at" in str(run_line(shell, "lineage numbers"))
    assert told("persist numbers") == "numbers is kept (MEMORY_ONLY) as its partitions are computed; nothing is stored\n"
    assert numbers.is_cached
    assert run_line(shell, "storage").rows[0][:3] == ("numbers", "MEMORY_ONLY", "0 of 2")
    numbers.count()
    shell.user_ns["fc"].wait_for_listeners()
    stored = dict(zip((table := run_line(shell, "storage")).names, table.rows[0], strict=True))
    assert stored["partitions"] == "2 of 2"
    assert stored["in memory"].endswith("B")
    assert stored["executors"] == "this-thread"
    assert stored["made at"].startswith("test_magics.py:")
    assert "2 of 2 partitions are stored" in told("persist numbers")
    assert told("unpersist numbers") == "numbers is not kept any more; 2 partitions of it dropped\n"
    assert not numbers.is_cached
    assert told("unpersist numbers") == "numbers was not kept\n"
    assert repr(run_line(shell, "storage")).startswith("0 cached RDDs")


def test_jobs_and_stages_are_tables(shell):
    pairs = shell.user_ns["numbers"].map(lambda x: (x % 2, x)).group_by_key(2)
    with shell.user_ns["fc"].job(description="warm up"):
        pairs.count()
    pairs.count()
    shell.user_ns["fc"].wait_for_listeners()
    table = run_line(shell, "jobs")
    assert table.title == "2 jobs"
    assert table.names == ("job", "name", "description", "state", "time")
    assert table.rows[0][2:4] == ("warm up", "succeeded")
    assert run_line(shell, "jobs -n 1").title == "2 jobs, the last 1"
    first, second = run_line(shell, "job 0"), run_line(shell, "job 1")
    assert first.title.endswith(", 2 stages")
    assert [row[2] for row in first.rows] == ["✔ done", "✔ done"]
    assert [row[2] for row in second.rows] == ["↷ skipped", "✔ done"]
    assert first.names == ("stage", "name", "state", "tasks", "rows", "in", "shuffle", "time", "least", "median", "most")
    assert first.rows[0][3] == "2/2"
    stages = run_line(shell, "stages")
    assert (stages.title, len(stages.rows)) == ("3 stages", 3)
    assert run_line(shell, f"stages {stages.rows[0][0]}").title == f"stage {stages.rows[0][0]}"
    assert dict(run_line(shell, "status").rows)["jobs"] == 2
    assert "<table>" in run_line(shell, "jobs")._repr_html_()


def test_stages_that_failed_were_cancelled_or_did_not_run_are_three_things(shell):
    numbers = shell.user_ns["numbers"]
    with pytest.raises(ZeroDivisionError):
        numbers.map(lambda x: (x % 2, 1 / 0)).group_by_key(2).count()
    shell.user_ns["fc"].wait_for_listeners()
    assert [row[2] for row in run_line(shell, "job 0").rows] == ["✘ failed", "⊘ not run"]
    assert [row[2] for row in run_line(shell, "stages").rows] == ["✘ failed", "⊘ not run"]
    assert [row[2] for row in run_line(shell, "stages 1").rows] == ["⊘ not run"]


def test_a_count_of_one_is_one(shell):
    shell.user_ns["numbers"].count()
    shell.user_ns["fc"].wait_for_listeners()
    assert run_line(shell, "jobs").title == "1 job"
    assert run_line(shell, "stages").title == "1 stage"
    assert run_line(shell, "job 0").title.endswith(", 1 stage")
    assert run_line(shell, "executors").title == "1 executor with 2 task slots"
    assert run_line(shell, "contexts").title == "1 open Context"


def test_what_is_over_is_told_when_it_is_to_be_cancelled(shell, capsys):
    shell.user_ns["numbers"].count()
    shell.user_ns["fc"].wait_for_listeners()
    for line, told in (
        ("cancel 0", "job 0 is over: succeeded after "),
        ("cancel --all", "no job runs; nothing to cancel"),
        ("cancel --group g", "there is no group 'g'; nothing to cancel"),
    ):
        run_line(shell, line)
        assert capsys.readouterr().out.startswith(told)


def test_settings_show_changed_ones_first_in_words(monkeypatch):
    with inline_context(max_task_failures=2) as context:
        shell = SimpleNamespace(user_ns={"fc": context}, push=None)
        table = run_line(shell, "conf")
        rows = {row[0]: row for row in table.rows}
        changed = [row[0] for row in table.rows if row[2]]
        assert changed == [row[0] for row in table.rows][: len(changed)]
        assert "max_task_failures" in changed
        assert rows["max_result_bytes"][1] == "1 GiB"
        assert rows["lease_s"][1] == "60 s"
        assert rows["max_task_failures"][1:] == ("2", "given", "Failures of one task that end its job")
        assert f"{len(changed)} changed (first)" in table.title


def test_a_setting_for_later_says_what_is_so_now(shell, capsys, monkeypatch):
    monkeypatch.setenv("FLOWKIT_MAX_RESULT_BYTES", "1")  # to be put back
    run_line(shell, "conf max_result_bytes=2GiB")
    told = capsys.readouterr().out
    assert told.startswith("max_result_bytes is 2147483648 for Contexts made from now on; fc has 1073741824 until ")
    assert run_line(shell, "conf max_result_bytes") == 1 << 30


def test_a_closed_context_is_made_again_as_it_was(shell, capsys, monkeypatch):
    made = []
    monkeypatch.setattr(type(shell.user_ns["fc"]), "_like_this", lambda self: made.append(self) or inline_context())
    old = shell.user_ns["fc"]
    run_line(shell, "stop")
    assert capsys.readouterr().out.startswith("fc is closed")
    with pytest.raises(UsageError, match="no open Context"):
        run_line(shell, "status")
    run_line(shell, "restart")
    assert made == [old]
    assert capsys.readouterr().out.startswith("fc is a new Context on this thread: 1 executor with 2 task slots")
    shell.user_ns["fc"].close()


def test_the_log_ends_with_the_last_job_and_says_so(shell, capsys):
    shell.user_ns["numbers"].count()
    shell.user_ns["fc"].wait_for_listeners()
    run_line(shell, "log --tail")
    lines = capsys.readouterr().out.splitlines()
    assert "job 0 succeeded" in lines[-2]
    assert lines[-1] == "no job runs"


def test_commands_options_variables_complete(shell):
    def names(line):
        return [name for name, _ in completions(shell, line)]

    assert set(names("%flowkit ")) == set(COMMANDS)
    assert names("%flowkit explain ")[0] == "numbers"
    assert "other" not in names("%flowkit explain ")
    assert "--workers" in names("%flowkit start ")
    assert "max_task_failures" in names("%flowkit conf ")
    assert names("%flowkit nonsense ") == []


def test_a_failure_is_replayed_though_its_error_was_caught_and_is_not_kept(shell):
    class Huge:
        pass

    huge = Huge()
    gone = weakref.ref(huge)

    def fail(x):
        raise ValueError(f"no {x}")

    def attempt(held):
        try:
            shell.user_ns["numbers"].map(fail).count()
        except ValueError as error:
            error.held = held

    attempt(huge)
    del huge
    gc.collect()
    assert gone() is None
    run_line(shell, "replay --no-debug --element bad")
    assert shell.user_ns["bad"] == 0
    shell.user_ns["numbers"].count()
    run_line(shell, "replay --no-debug --element bad")


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
    assert str(raised.value)
    saved = run_line(shell, f"replay --save {tmp_path}/failed.capsule")
    with pytest.warns(UserWarning, match="runs code"):
        replayed = run_line(shell, f"replay {saved} --no-debug --element bad")
    assert shell.user_ns["bad"] == 0
    assert "no 0" in replayed._repr_html_()
