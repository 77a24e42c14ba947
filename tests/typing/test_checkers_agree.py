"""mypy and pyright both infer what chains.py says, and both refuse what it says they must."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CASES = "tests/typing/chains.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    "checker",
    [
        ["mypy", "--strict", "--warn-unused-ignores", "--follow-imports=silent", CASES],
        ["pyright", "--warnings", CASES],
    ],
    ids=lambda each: each[0],
)
def test_a_checker_infers_what_the_cases_say(checker):
    done = subprocess.run([sys.executable, "-m", *checker], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
