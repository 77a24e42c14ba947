"""The command line, as somebody types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import flowkit as fk
from flowkit import __version__
from flowkit.cli import main
from flowkit.model.events import ApplicationEnd, ApplicationStart, JobEnd, JobStart
from flowkit.observe.event_log import EventLog, read_event_log
from flowkit.rdd.capsules import CapsuleRunsCode
from flowkit.testing.inline import inline_context

pytestmark = pytest.mark.cluster


def flowkit(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-W", "error", "-m", "flowkit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=cwd, env=environment, check=False)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A pipeline that uses a module beside it, and its arguments."""
    (tmp_path / "helpers.py").write_text("def double(x):\n    return 2 * x\n")
    path = tmp_path / "pipeline.py"
    path.write_text(
        "import sys\n"
        "import flowkit as fk\n"
        "from helpers import double\n"
        "def main():\n"
        "    fc = fk.Context.get_or_create()\n"
        "    assert fk.Context.get_or_create() is fc\n"
        "    print(fc.name, fc.config.max_task_failures, fc.config.progress, fc.default_parallelism, sys.argv[1:])\n"
        "    divisor = int(sys.argv[1])\n"
        "    print(fc.range(10).map(lambda x: x // divisor).sum(), double(21))\n"
        "if __name__ == '__main__':\n"
        "    main()\n"
    )
    return path


def test_a_script_runs_with_what_the_command_line_says(script: Path, tmp_path: Path):
    logs = tmp_path / "logs"
    done = flowkit(
        "run", "--workers", "2", "--name", "nightly", "--conf", "max_task_failures=2", "--event-log", str(logs), "--quiet",
        str(script), "1", "--flag",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "nightly 2 off 2 ['1', '--flag']\n45 42\n"
    (log,) = logs.iterdir()
    assert [type(event).__name__ for event in read_event_log(log)].count("JobEnd") == 1


def test_a_script_that_fails_says_so_in_one_line_or_whole(script: Path):
    done = flowkit("run", "--workers", "1", str(script), "0")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("flowkit: ZeroDivisionError: ")
    assert "pipeline.py:9" in line
    whole = flowkit("run", "--workers", "1", "--traceback", str(script), "0")
    assert whole.returncode == 1
    assert "Traceback (most recent call last)" in whole.stderr


def test_a_context_that_does_not_heed_the_command_line_is_named(tmp_path: Path):
    script = tmp_path / "own.py"
    script.write_text(
        "import flowkit as fk\nwith fk.Context(workers=1, processes=False) as fc:\n    print(fc.default_parallelism)\n"
    )
    done = flowkit("run", "--workers", "2", "--quiet", str(script))
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert done.stderr == f"flowkit: {script}:2: Context() does not heed --workers, --quiet; Context.get_or_create() does\n"
    assert flowkit("run", str(script)).stderr == ""


def test_a_scripts_own_exit_code_is_passed_on(tmp_path: Path):
    script = tmp_path / "leave.py"
    script.write_text("raise SystemExit(7)\n")
    assert flowkit("run", str(script)).returncode == 7


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 2, ""),
        (("run", "nowhere.py"), 2, "there is no script nowhere.py"),
        (("run", "--conf", "max_task_failure=2", "SCRIPT"), 4, "did you mean 'max_task_failures'"),
        (("run", "--conf", "max_task_failures", "SCRIPT"), 4, "must be KEY=VALUE"),
        (("run", "--conf", "max_task_failures=0", "SCRIPT"), 4, "must be above 0"),
        (("run", "--cluster", "tcp://127.0.0.1:9", "SCRIPT", "1"), 3, "127.0.0.1:9"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_a_code_that_means_it(script: Path, tmp_path, arguments, code, told):
    done = flowkit(*(str(script) if each == "SCRIPT" else each for each in arguments), cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert len(done.stderr.splitlines()) <= 1


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("jbos", "pipeline.py"), 2, "there is no command 'jbos'; did you mean jobs?"),
        (("submit", "pipeline.py"), 2, "did you mean run?"),
        (("pipeline.py", "1"), 2, "runs a script"),
        (("banana",), 2, "those there are: run, replay, simulate, jobs, doctor"),
        (("jobs", "nowhere"), 2, "no event log in nowhere, for there is nothing"),
        (("run", "--conf", "task_retries=3", "pipeline.py"), 4, "did you mean 'max_task_failures'?"),
        (("run", "--conf", "executors=3", "pipeline.py"), 4, "did you mean Context(workers=...)?"),
        (("run", "--conf", "max_result_bytes=2x", "pipeline.py"), 4, "must be a size, as 1048576 or 1MiB"),
    ],
)
def test_what_was_probably_meant_is_said(script: Path, monkeypatch, capsys, arguments, code, told):
    monkeypatch.chdir(script.parent)
    assert main(arguments) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_the_version_is_told():
    assert flowkit("--version").stdout == f"flowkit {__version__}\n"


def test_doctor_finds_a_healthy_installation_healthy(tmp_path: Path):
    bundle = tmp_path / "bundle.json"
    done = flowkit("doctor", "--bundle", str(bundle))
    assert done.returncode == 0, done.stdout
    found = {each["what"]: each["state"] for each in json.loads(bundle.read_text())}
    assert found["hashing"] == found["ports"] == found["python"] == "ok"
    assert "FAILURE" not in done.stdout


def test_doctor_tells_of_a_cluster_that_is_not_there():
    done = flowkit("doctor", "--cluster", "tcp://127.0.0.1:9")
    assert done.returncode == 1
    assert "FAILURE  cluster: tcp://127.0.0.1:9" in done.stdout


def test_a_saved_failure_is_shown_and_replayed(tmp_path, capsys):
    with inline_context() as fc:
        with pytest.raises(ZeroDivisionError) as raised:
            fc.range(4, num_partitions=1).map(lambda x: 1 / (x - 2)).collect()
        saved = str(raised.value.replay.save(tmp_path / "failed.capsule"))
    assert main(["replay", saved, "--show"]) == 0
    assert "ZeroDivisionError: division by zero" in capsys.readouterr().out
    with pytest.warns(CapsuleRunsCode):
        assert main(["replay", saved, "--no-debug"]) == 0
    assert "failed again at 2" in capsys.readouterr().out
    assert main(["replay", str(tmp_path / "nothing")]) == 2


def test_jobs_of_a_log_are_listed_and_those_without_an_end_are_lost(tmp_path, capsys):
    with inline_context(event_log=str(tmp_path / "whole")) as fc:
        fc.range(4).count()
        with pytest.raises(ZeroDivisionError):
            fc.range(4).map(lambda x: 1 / x).sum()
        fc.range(5).count()
        whole = tmp_path / "whole" / fc.app
    log = EventLog(tmp_path / "short", fc.app, version=__version__)
    for event in read_event_log(whole):
        if isinstance(event, JobEnd) and event.job == 2:
            break  # here its driver died
        log.on_event(event)
    log.close()
    assert main(["jobs", str(tmp_path / "short" / fc.app)]) == 0
    title, names, *lines = capsys.readouterr().out.splitlines()
    assert title == "3 jobs"
    assert names.split() == ["job", "state", "time", "name", "reason"]
    told = [line.split() for line in lines]
    assert [line[:2] for line in told] == [["0", "succeeded"], ["1", "failed"], ["2", "lost"]]
    assert "ZeroDivisionError:" in told[1]
    assert main(["jobs", str(tmp_path / "nothing")]) == 2


def test_recorded_jobs_are_simulated_on_other_clusters(tmp_path):
    with fk.Context(workers=2, progress="off", event_log=str(tmp_path)) as fc:
        fc.range(24, num_partitions=24).map_partitions(slowly).count()
        log = str(tmp_path / fc.app)
    ran = flowkit("simulate", log, "--executors", "8", "--policy", "fair", "--jobs")
    told = ran.stdout.splitlines()
    assert ran.returncode == 0
    assert told[0].startswith("recorded   2 executors of 1 slot")
    assert told[1].startswith("simulated  2 executors of 1 slot, fair")
    assert "job 0" in told[2]
    assert told[3].startswith("simulated  8 executors of 1 slot, fair")
    for arguments, code in (([str(tmp_path / "no")], 2), ([log, "--policy", "lottery"], 4), ([log, "--executors", "0"], 2)):
        assert flowkit("simulate", *arguments).returncode == code


@pytest.fixture
def log(tmp_path) -> Path:
    with inline_context(event_log=str(tmp_path / "logs")) as fc:
        fc.range(24, num_partitions=24).count()
        return tmp_path / "logs" / fc.app


@pytest.mark.parametrize("count", ["four", "1.5", "0", "100001"])
def test_how_many_executors_are_simulated_is_a_number_that_can_be(log, capsys, count):
    with pytest.raises(SystemExit):
        main(["simulate", str(log), "--executors", count])
    assert f"argument --executors: {count}: must be a whole number from 1 to 100,000" in capsys.readouterr().err


def test_a_directory_of_logs_names_those_in_it(log, capsys):
    assert main(["simulate", str(log.parent)]) == 2
    assert f"no event log in {log.parent}, but of these applications in it: {log.name}; name one" in capsys.readouterr().err


def test_settings_can_be_tried_in_a_simulation(log, capsys):
    pools = '{"adhoc": 2}'
    assert main(["simulate", str(log), "--conf", "scheduling_policy=fair", "--conf", f"pools={pools}"]) == 0
    assert "1 slot, fair: " in capsys.readouterr().out
    for wrong, told in (
        ("speculation_quantile=2", "must be above 0"),
        ('pools={"adhoc": 0}', "pools['adhoc']: weight = 0"),
        ("nothing=1", "no setting 'nothing'"),
        ("serializers={}", "cannot be given as text"),
    ):
        assert main(["simulate", str(log), "--policy", "fair", "--conf", wrong]) == 4
        assert told in capsys.readouterr().err


def slowly(rows):
    time.sleep(0.02)
    return list(rows)


def test_the_applications_of_a_directory_are_listed_as_they_are(tmp_path, capsys):
    logs = {name: EventLog(tmp_path, name, version=__version__) for name in ("app-closed", "app-lost")}
    for name, log in logs.items():
        at = 1e9 if name == "app-lost" else 2e9
        log.on_event(ApplicationStart(app=name, name=f"nightly {name}", flowkit_version=__version__, time=at))
        for number, outcome in enumerate(["succeeded", "failed"]):
            log.on_event(JobStart(name, number, "count", (), (), {}, time=at + 1))
            if name == "app-closed" or number == 0:
                log.on_event(JobEnd(name, number, outcome, time=at + 2))
    logs["app-closed"].on_event(ApplicationEnd(app="app-closed", reason="closed", time=2e9 + 3))
    logs["app-closed"].close()
    logs["app-lost"].flush()  # and here its driver died
    torn = tmp_path / "app-torn"
    torn.mkdir()
    (torn / "events-000001.jsonl.zst").write_bytes(b"nothing of ours")
    assert main(["jobs", str(tmp_path)]) == 0
    title, names, *rows = capsys.readouterr().out.splitlines()
    assert title.startswith("3 applications; flowkit jobs ")
    assert names.split() == ["application", "name", "started", "time", "jobs", "failed", "state"]
    assert [row.split()[0] for row in rows] == ["app-torn", "app-lost", "app-closed"]
    assert "is not an event log" in rows[0]
    assert rows[1].endswith("runs, or was lost, with 1 job that did not end")
    assert rows[2].split()[1:3] == ["nightly", "app-closed"]
    assert rows[2].split()[-5:] == ["3.0", "s", "2", "1", "closed"]
    logs["app-lost"].close()


def test_an_application_that_was_closed_is_told_so_by_its_log(log, capsys):
    assert main(["jobs", str(log.parent)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(" closed by its driver")


def test_a_simulation_counts_one_as_one(log, capsys):
    assert main(["simulate", str(log), "--executors", "1"]) == 0
    recorded, simulated = capsys.readouterr().out.splitlines()
    assert "(1 job, 24 tasks of " in recorded
    assert simulated.startswith("simulated  1 executor of 1 slot, fifo: ")
