"""Who may import whom, what `import flowkit` costs, and what each process loads."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Best of several, since a busy machine can only make it slower.
IMPORT_LIMIT_S = 0.15
IMPORT_TRIES = 10


def run_python(code: str) -> str:
    """Run code in a fresh interpreter that knows nothing of this one; its standard output."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_imports_point_downward():
    """The contracts of pyproject.toml: layers, a core without IO, Dask in one package, three sides that meet in wire."""
    command = shutil.which("lint-imports", path=sysconfig.get_path("scripts"))
    assert command is not None, "import-linter is not installed beside this Python"
    done = subprocess.run(
        [command, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("heavy", ["distributed", "dask", "tornado", "pyarrow", "numpy", "IPython", "rich"])
def test_importing_flowkit_loads_no_heavy_library(heavy):
    loaded = json.loads(run_python("import flowkit, json, sys; print(json.dumps(sorted(sys.modules)))"))
    assert heavy not in loaded


def test_importing_flowkit_is_fast():
    code = "import time; t = time.perf_counter(); import flowkit; print(time.perf_counter() - t)"
    best = min(float(run_python(code)) for _ in range(IMPORT_TRIES))
    assert best < IMPORT_LIMIT_S


@pytest.mark.parametrize(
    "process, entry, never",
    [
        (
            "scheduler",
            "flowkit.cluster.scheduler_plugin",
            ("flowkit.rdd", "flowkit.context", "flowkit.lineage", "flowkit.storage", "flowkit.execution"),
        ),
        (
            "executor",
            "flowkit.cluster.worker_plugin",
            ("flowkit.rdd", "flowkit.context", "flowkit.scheduling.core", "flowkit.observe", "IPython", "rich"),
        ),
    ],
)
def test_a_process_loads_only_its_own_side(process, entry, never):
    loaded = json.loads(run_python(f"import {entry}, json, sys; print(json.dumps(sorted(sys.modules)))"))
    strays = [name for name in loaded if any(name == each or name.startswith(f"{each}.") for each in never)]
    assert not strays, f"the {process} process loads {strays}"


def test_contributors_are_told_the_layers_that_are_checked():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each["type"] == "layers")
    told = (
        (ROOT / "CONTRIBUTING.md")
        .read_text(encoding="utf-8")
        .partition("downward only:")[2]
        .partition("\n\n")[2]
        .partition("\n\n")[0]
    )

    def plain(text):
        return {name.strip(" ()\n") for name in text.split("|")}

    assert [plain(layer) for layer in told.split(">")] == [plain(layer) for layer in layers]
