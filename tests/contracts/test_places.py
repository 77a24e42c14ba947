"""Every way to the file system is one that the threat model tells of."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import flowkit

PACKAGE = Path(flowkit.__file__).parent
ROOT = PACKAGE.parent
#: calls that take a path for what its name says
BY_NAME = {
    *("mkdir", "makedirs", "read_bytes", "read_text", "write_bytes", "write_text"),
    *("rmtree", "mkdtemp", "mkstemp", "NamedTemporaryFile", "TemporaryDirectory", "touch", "glob", "rglob"),
}
#: modules that may, and why: everything else goes through ``storage.private_files``
ALLOWED = {
    "storage/private_files.py": "the one place",
    "storage/host_directory.py": "makes the place that the user named; what it opens it opens by descriptor",
    "storage/objects/compressed.py": "writes a draft of a save, in a directory that was made for it",
    "storage/objects/local.py": "input files, and output directories to be looked at: the user named them",
    "storage/objects/stores.py": "sends a draft of a save",
    "storage/memory/process.py": "/proc",
    "cluster/vital_signs.py": "/proc",
    "cluster/encryption.py": "a certificate that the user named, to see whether it can be read",
    "cluster/machine.py": "a file without a future, in the host's directory, to see whether files can be had there",
    "observe/log_directory.py": "the log's directory, which the user named",
    "execution/faults.py": "chosen faults of tests",
    "execution/shipped.py": "unpacks an archive beside its place, in a directory of the application's",
    "execution/sinks.py": "drafts of saves, in a directory that was made for them",
    "execution/parquet_writing.py": "drafts of saves, in a directory that was made for them",
    "execution/spilled_values.py": "a file without a name, in the task's directory",
    "execution/task_runner.py": "removes the task's directory",
    "execution/stage_programs.py": "content, by a path that was looked at",
    "execution/broadcast.py": "content, by a path that was looked at",
    "execution/sources.py": "content, by a path that was looked at; input files",
    "storage/shuffle/files.py": "removes a shuffle's directory",
    "config/config.py": "a file of settings that the user named",
    "cli.py": "what the user named on the command line",
    "files.py": "files that the user sends",
    "notebook/faces.py": "the package's own files",
    "observe/event_log.py": "the log's directory, which the user named",
    "rdd/capsules.py": "a capsule that the user opens",
    "rdd/checkpoints.py": "a directory that the user named",
    "rdd/sinks.py": "a directory that was made for a save",
}


def _calls(module: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(module.read_text())):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Name(id="open"):
                yield node.lineno, "open"
            case ast.Attribute(attr="open", value=ast.Name(id="os")):
                yield node.lineno, "os.open"
            case ast.Attribute(attr="open") if node.args and _is_mode(node.args[0]):
                yield node.lineno, "Path.open"
            case ast.Attribute(attr=name) if name in BY_NAME:
                yield node.lineno, name


def _is_mode(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and re.fullmatch(r"[rwax]\+?[bt]?\+?", str(node.value)) is not None


def test_only_these_modules_take_a_path_by_its_name():
    found = {str(module.relative_to(PACKAGE)): list(_calls(module)) for module in PACKAGE.rglob("*.py")}
    new = {name: calls for name, calls in found.items() if calls and name not in ALLOWED}
    assert not new, f"use storage.private_files, or say here and in docs/threat-model.md why not: {new}"


def test_the_threat_model_names_tests_that_exist():
    rows = [line for line in (ROOT / "docs" / "threat-model.md").read_text().splitlines() if line.startswith("|")]
    named = {path for row in rows for path in re.findall(r"`((?:unit|chaos|stores|conformance|cluster)/[^`]*)`", row)}
    assert len(named) > 8
    assert not [path for path in named if not (ROOT / "tests" / path).exists()]
