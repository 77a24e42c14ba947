"""An ordinary user whose directories may not be written, read or entered: each time an error that names the place, and nothing is left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(400),
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="becoming another user needs root"),
]

_SCRIPT = Path(__file__).with_name("ordinary_user.py")
#: nobody's on any machine
_UID = 65_533


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Below the system's temporary directory, since pytest's own may be entered by one user only."""
    with tempfile.TemporaryDirectory(prefix="flowkit-rights-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def outcomes(place: Path) -> dict[str, dict[str, Any]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLOWKIT_")}
    ran = subprocess.run(
        ["unshare", "--mount", sys.executable, str(_SCRIPT), str(_UID), str(place)],
        env=environment | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    if "Operation not permitted" in ran.stderr and not ran.stdout:
        pytest.skip("no mount namespaces here")
    assert ran.returncode == 0, ran.stderr[-4_000:]
    return {each["scenario"]: each for each in map(json.loads, ran.stdout.splitlines())}


def test_where_nothing_is_forbidden_all_goes_well_and_nothing_is_left(outcomes):
    found = outcomes["its own"]
    assert (found["error"], found["value"], found["left"]) == (None, 10, [])
    assert outcomes["what is left"]["value"] == []


def test_a_directory_of_another_is_refused_at_the_call_and_named(outcomes, place: Path):
    found = outcomes["local_directory of another"]
    assert "ClusterError" in found["bases"] or "ConfigError" in found["bases"]
    assert str(place / "of another") in found["text"]
    assert "ermission" in found["text"] or f"not to {_UID}" in found["text"]
    assert found["took_s"] < 30


@pytest.mark.parametrize(
    ("scenario", "named"),
    [
        ("reading a file", "secret.txt"),
        ("reading in a closed directory", "closed/file.txt"),
        ("reading a directory with one such file", "some/secret.txt"),
        ("saving", "unwritable/"),
        ("saving into a closed directory", "closed/"),
        ("a checkpoint", "unwritable/kept"),
        ("a shuffle while its directory may not be written", "own/jobs/"),
    ],
)
def test_what_may_not_be_read_or_written_is_a_permission_error_that_names_it(outcomes, place: Path, scenario: str, named: str):
    found = outcomes[scenario]
    assert "PermissionError" in found["bases"]
    assert f"{place}/{named}" in found["text"]
    assert found["took_s"] < 30


def test_a_save_that_was_refused_leaves_nothing(outcomes):
    assert outcomes["saving"]["left"] == []


def test_the_next_job_works_when_the_right_is_back(outcomes):
    found = outcomes["a shuffle when it may be again"]
    assert (found["error"], found["value"]) == (None, 2)


def test_directories_for_blocks_that_may_not_be_made_are_passed_over_and_nothing_is_left_elsewhere(outcomes):
    found = outcomes["block_directories that may not be made"]
    assert (found["error"], found["value"], found["left"]) == (None, 2_000, [])


@pytest.mark.parametrize(
    ("scenario", "named"),
    [
        ("local_directory that may not be made", "unwritable/files"),
        ("local_directory in one that may not be entered", "closed/files"),
    ],
)
def test_a_local_directory_that_may_not_be_made_is_refused_at_the_call(outcomes, place: Path, scenario: str, named: str):
    found = outcomes[scenario]
    assert found["error"] is not None
    assert "local_directory" in found["text"]
    assert f"{place}/{named}" in found["text"]
    assert "ermission" in found["text"]
    assert found["took_s"] < 20


def test_an_event_log_that_may_not_be_made_is_refused_at_the_call(outcomes, place: Path):
    found = outcomes["event_log that may not be made"]
    assert found["error"] is not None
    assert "event_log" in found["text"]
    assert f"{place}/unwritable/logs" in found["text"]
    assert found["took_s"] < 20
