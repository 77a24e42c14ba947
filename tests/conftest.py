"""What every test gets: seeds that are printed, and a look at what it left behind.

Runs in the test session's process. Folder-specific rules (no sockets in tests/unit) stand in that folder's conftest.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, Phase, settings

# -- hypothesis ---------------------------------------------------------------------------------------------------------
# `fast` is for the edit loop, `ci` for `make test` under CI=true, `soak` for a night. Deadlines are off: two cores shared
# with a compiler or another test say nothing about the code.

settings.register_profile("fast", max_examples=50, stateful_step_count=30, deadline=None, print_blob=True)
settings.register_profile(
    "ci", max_examples=200, stateful_step_count=50, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "soak",
    max_examples=20_000,
    stateful_step_count=200,
    deadline=None,
    print_blob=True,
    phases=tuple(Phase),
    suppress_health_check=list(HealthCheck),
)
_PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "fast")
settings.load_profile(_PROFILE)

# A shell's background job ignores Ctrl-C, and so would all that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Fix hypothesis' seed before collection, once for all xdist workers, so that a run can be repeated as it was."""
    if config.getoption("hypothesis_seed", None) is None:
        shared = getattr(config, "workerinput", {}).get("flowkit_seed")
        seed = shared if shared is not None else int.from_bytes(os.urandom(4), "big")
        config.option.hypothesis_seed = str(seed)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    """Hand the session's seed to an xdist worker."""
    node.workerinput["flowkit_seed"] = int(node.config.option.hypothesis_seed)


def pytest_report_header(config: pytest.Config) -> str:
    """Say how to repeat this very run."""
    return f"hypothesis profile {_PROFILE}, repeat with: --hypothesis-seed={config.option.hypothesis_seed}"


# -- leaks --------------------------------------------------------------------------------------------------------------

#: Threads that live as long as their process by intention, by the start of their name.
_LASTING_THREADS = (
    "MainThread",
    "pytest_timeout",
    "execnet",
    "Dask-Offload",  # distributed's pool for (de)serialising, one per process
    "asyncio_",  # the default executor of an event loop that is kept
    "IO loop",  # distributed's loop for synchronous clients, one per process
    "Profile",  # distributed's sampler, one per process
    "TCP-Executor",
    "ThreadPoolExecutor",
    "fsspecIO",
    "GC Timer",
)

#: Child processes that are the interpreter's own helpers.
_LASTING_PROCESSES = ("resource_tracker", "forkserver")

#: How long what is closing may take to be gone: a nanny's process is reaped by its parent's loop, not by `close()`.
_GRACE_S = 5.0


@dataclass(frozen=True)
class Leftovers:
    """What exists besides the test itself."""

    processes: frozenset[tuple[int, str]]
    threads: frozenset[tuple[int, str]]
    files: frozenset[str]

    def __sub__(self, other: Leftovers) -> Leftovers:
        return Leftovers(self.processes - other.processes, self.threads - other.threads, self.files - other.files)

    def __bool__(self) -> bool:
        return bool(self.processes or self.threads or self.files)

    def __str__(self) -> str:
        lines = [f"process {pid}: {command}" for pid, command in sorted(self.processes)]
        lines += [f"thread {name}" for _, name in sorted(self.threads, key=lambda each: each[1])]
        lines += [f"file {path}" for path in sorted(self.files)]
        return "\n".join(lines)


def _processes() -> Iterator[tuple[int, str]]:
    for child in psutil.Process().children(recursive=True):
        try:
            command = " ".join(child.cmdline())
            if child.status() == psutil.STATUS_ZOMBIE or any(helper in command for helper in _LASTING_PROCESSES):
                continue
        except psutil.NoSuchProcess:
            continue
        yield child.pid, command[:200]


def _threads() -> Iterator[tuple[int, str]]:
    for thread in threading.enumerate():
        if thread.is_alive() and not thread.name.startswith(_LASTING_THREADS):
            yield thread.ident or 0, thread.name


def _files(directory: Path) -> Iterator[str]:
    """Applications' files: ``<directory>/<application>/…``; the directory itself and its token stay."""
    if not directory.is_dir():
        return
    for path in directory.rglob("*"):
        if path.is_file() and any(part.startswith("app-") for part in path.relative_to(directory).parts):
            yield str(path)


def leftovers(directory: Path) -> Leftovers:
    """What lives now: child processes, threads, files of applications below ``directory``."""
    return Leftovers(frozenset(_processes()), frozenset(_threads()), frozenset(_files(directory)))


@pytest.fixture(scope="session", autouse=True)
def flowkit_directory() -> Iterator[Path]:
    """Where this session's clusters keep files: its own place, so that parallel sessions do not see one another."""
    with tempfile.TemporaryDirectory(prefix="flowkit-tests-") as name:
        before = os.environ.get("FLOWKIT_LOCAL_DIRECTORY")
        os.environ["FLOWKIT_LOCAL_DIRECTORY"] = name
        yield Path(name)
        if before is None:
            del os.environ["FLOWKIT_LOCAL_DIRECTORY"]
        else:
            os.environ["FLOWKIT_LOCAL_DIRECTORY"] = before


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left(request: pytest.FixtureRequest, flowkit_directory: Path) -> Iterator[None]:
    """Fail a module that leaves processes, threads or files behind, naming them.

    Per module, since clusters are shared within one. Whatever a module starts at import time counts as its own.
    """
    before = leftovers(flowkit_directory)
    yield
    deadline = time.monotonic() + _GRACE_S
    while (left := leftovers(flowkit_directory) - before) and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    if left:
        pytest.fail(f"{request.node.nodeid} left behind, {_GRACE_S:.0f} s after its end:\n{left}", pytrace=False)
