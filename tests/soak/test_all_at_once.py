"""For two hours: every shuffle and random pipelines between two hosts, encrypted, while everything breaks that may; nothing is wrong, nothing grows.

make soak                     # SOAK_S=7200 seconds; SOAK_SEED repeats the choices, not the moments

Links are slow and lossy, fall silent one way or both; workers are killed and stopped; disks fill up or may not be written for a while; the
scheduler is killed, and the driver reconnects. A job may fail for a fault that its error names, and for nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import dask
import psutil
import pytest

import flowkit as fk
from flowkit.errors import ApplicationLost, DiskFull
from tests.certificates import Authority
from tests.network.conftest import Net
from tests.network.shuffles import SHUFFLES
from tests.network.wire import tap
from tests.soak.test_soak import one_pipeline

SOAK_S = float(os.environ.get("SOAK_S", "7200"))
SEED = int(os.environ.get("SOAK_SEED", "0")) or random.SystemRandom().getrandbits(32)
HOSTS = ("north", "south")
DISK_BYTES = 64 << 20
#: A job that takes longer hangs: no fault lasts a tenth of it.
HANGS_S = 300.0
LOOK_S = min(30.0, SOAK_S / 20)

pytestmark = [pytest.mark.soak, pytest.mark.cluster, pytest.mark.timeout(SOAK_S + 900)]


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    """Two hosts behind wires, with a small disk each, on which only encrypted connections with certificates are taken."""
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2, to make network namespaces")
    try:
        os.close(tap(f"fk{os.getpid() % 10_000}probe"))
    except OSError as error:
        pytest.skip(f"needs /dev/net/tun, to lay wires that are slow and lossy: {error}")
    ours = Authority(tmp_path / "certificates")
    disks = [tmp_path / f"files-{name}" for name in HOSTS]
    for disk in disks:
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "tmpfs", str(disk)], check=True)
    with dask.config.set(ours.settings()):
        found = Net(tmp_path, *ours.options())
        try:
            for name in HOSTS:
                found.add_host(name, wired=True)
            yield found
        finally:
            found.close()
            for disk in disks:
                subprocess.run(["umount", "-l", str(disk)], check=True)


class Faults:
    """One fault after the other, by a seed; knows which of them may have met a job."""

    def __init__(self, net: Net, directory: Path) -> None:
        self._net = net
        self._directory = directory
        self._chance = random.Random(SEED + 1)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="faults")
        self._kinds: dict[str, Callable[[], None]] = {
            "worse link": self._worse_link,
            "one-way cut": self._one_way_cut,
            "cut": self._cut,
            "killed worker": self._killed_worker,
            "stopped worker": self._stopped_worker,
            "full disk": self._full_disk,
            "read-only disk": self._read_only_disk,
            "killed scheduler": self._killed_scheduler,
        }
        self.made: Counter[str] = Counter()
        #: when a kind was last at work, begin and end
        self._last: dict[str, tuple[float, float]] = {}
        self.broken: BaseException | None = None

    def overlapped(self, kind: str, begun: float) -> bool:
        """Whether one of a kind was at work since then."""
        return self._last.get(kind, (0.0, 0.0))[1] >= begun

    def __enter__(self) -> Faults:
        for name in HOSTS:
            self._usual(name)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        kinds: list[str] = []
        try:
            while not self._over.wait(self._chance.uniform(1.0, 5.0)):
                if not kinds:  # each of them once before any comes again
                    kinds = self._chance.sample(list(self._kinds), len(self._kinds))
                kind = kinds.pop()
                begun = time.monotonic()
                self._last[kind] = begun, float("inf")
                self._kinds[kind]()
                self._last[kind] = begun, time.monotonic()
                self.made[kind] += 1
                for name in HOSTS:
                    if self._net.workers[name].poll() is not None:
                        self._net.start_worker(name)
        except BaseException as error:
            self.broken = error

    def _host(self) -> str:
        return self._chance.choice(HOSTS)

    def _pause(self, least_s: float, most_s: float) -> None:
        self._over.wait(self._chance.uniform(least_s, most_s))

    def _usual(self, name: str) -> None:
        self._net.impair(name, delay_s=0.05, loss=0.01)

    def _worse_link(self) -> None:
        name = self._host()
        self._net.impair(name, delay_s=0.3, jitter_s=0.2, loss=0.05)
        self._pause(2, 6)
        self._usual(name)

    def _one_way_cut(self) -> None:
        way = self._chance.choice((("north", "south"), ("south", "north"), ("north", ""), ("south", "")))
        self._net.silence(*way)
        self._pause(0.5, 4)
        self._net.end_silence(*way)

    def _cut(self) -> None:
        name = self._host()
        self._net.cut(name)
        self._pause(0.5, 3)
        self._net.heal(name)

    def _processes(self, name: str) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            below = psutil.Process(self._net.workers[name].pid).children(recursive=True)
            return [each for each in below if "spawn_main" in " ".join(each.cmdline())]
        return []

    def _killed_worker(self) -> None:
        for process in self._processes(self._host()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def _stopped_worker(self) -> None:
        stopped = self._processes(self._host())
        for how in (signal.SIGSTOP, signal.SIGCONT):
            for process in stopped:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(how)
            if how is signal.SIGSTOP:
                self._pause(0.5, 4)

    def _full_disk(self) -> None:
        ballast = self._directory / f"files-{self._host()}" / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        self._pause(1, 4)
        ballast.unlink()

    def _read_only_disk(self) -> None:
        disk = str(self._directory / f"files-{self._host()}")
        # Refused while a file is being written; then it is for another time.
        if subprocess.run(["mount", "-o", "remount,ro", disk], check=False, capture_output=True).returncode == 0:
            self._pause(0.5, 2)
            subprocess.run(["mount", "-o", f"remount,rw,size={DISK_BYTES}", disk], check=True)

    def _killed_scheduler(self) -> None:
        self._net.scheduler.kill()
        self._net.scheduler.wait()
        self._pause(0.1, 2)
        self._net.start_scheduler()
        # Dask's workers end with their scheduler.
        for process in self._net.workers.values():
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.terminate()
                process.wait()


@dataclass(frozen=True)
class Look:
    """What there is of what must not grow."""

    driver_bytes: int
    executor_bytes: int
    scheduler_bytes: int
    threads: int
    descriptors: int
    files: int
    disk_bytes: int

    @classmethod
    def now(cls, net: Net, directory: Path) -> Look:
        me = psutil.Process()
        sizes = []
        for process in net.workers.values():
            with contextlib.suppress(psutil.Error):
                sizes += [each.memory_full_info().uss for each in psutil.Process(process.pid).children(recursive=True)]
        scheduler_bytes = 0
        with contextlib.suppress(psutil.Error):
            scheduler_bytes = psutil.Process(net.scheduler.pid).memory_full_info().uss
        files = disk_bytes = 0
        for name in HOSTS:
            for place, _, names in os.walk(directory / f"files-{name}"):
                for each in names:
                    with contextlib.suppress(OSError):  # what is deleted meanwhile is passed over
                        if each != "ballast":
                            disk_bytes += (Path(place) / each).stat().st_size
                            files += 1
        return cls(
            me.memory_full_info().uss,
            max(sizes, default=0),
            scheduler_bytes,
            threading.active_count(),
            me.num_fds(),
            files,
            disk_bytes,
        )


def slope_per_hour(looks: list[tuple[float, Look]], name: str) -> float:
    """By least squares, over the later half."""
    later = looks[len(looks) // 2 :]
    if len(later) < 3:
        return 0.0
    return 3_600 * statistics.linear_regression([at for at, _ in later], [getattr(look, name) for _, look in later]).slope


class Tally:
    """What became of jobs."""

    def __init__(self) -> None:
        self.right: Counter[str] = Counter()
        self.failed_for_a_fault: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.unexpected: list[str] = []
        self.longest_s = 0.0

    def one(self, fc: fk.Context, chance: random.Random, faults: Faults) -> None:
        name = chance.choice([*SHUFFLES, "random pipeline"])
        begun = time.monotonic()
        try:
            with fc.job(timeout_s=HANGS_S):
                if name == "random pipeline":
                    one_pipeline(fc, chance)
                else:
                    SHUFFLES[name].check(fc)
        except AssertionError as error:
            self.wrong.append(f"{name}: {error}")
        except ApplicationLost as error:
            self._failed(faults.overlapped("killed scheduler", begun), name, error)
            fc.reconnect(timeout_s=180.0)
        except DiskFull as error:
            self._failed(faults.overlapped("full disk", begun), name, error)
        except OSError as error:
            denied = error.errno == errno.EROFS or "Read-only" in str(error)
            self._failed(denied and faults.overlapped("read-only disk", begun), name, error)
        except Exception as error:
            self._failed(False, name, error)
        else:
            self.right[name] += 1
        self.longest_s = max(self.longest_s, time.monotonic() - begun)

    def _failed(self, expected: bool, name: str, error: Exception) -> None:
        if expected:
            self.failed_for_a_fault[type(error).__name__] += 1
        else:
            self.unexpected.append(f"{name}: {type(error).__name__}: {str(error)[:1_000]}")


def test_nothing_is_wrong_nothing_hangs_and_nothing_grows_whatever_breaks(
    net: Net, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(SEED)
    tally = Tally()
    looks: list[tuple[float, Look]] = []
    settings = {
        "progress": "off",
        "heartbeat_s": 0.5,
        "executor_timeout_s": 15.0,
        "no_executor_timeout_s": 200.0,
        "lease_s": 20.0,
    }
    net.client().close()
    with fk.Context(net.address, **settings) as fc:
        for name in SHUFFLES:  # once in peace: what is imported and kept is there, and the suite itself is right
            SHUFFLES[name].check(fc)
        begun = time.monotonic()
        with Faults(net, tmp_path) as faults:
            while time.monotonic() - begun < SOAK_S and faults.broken is None:
                tally.one(fc, chance, faults)
                if time.monotonic() - begun >= LOOK_S * (len(looks) + 1):
                    looks.append((time.monotonic() - begun, Look.now(net, tmp_path)))
                    with capsys.disabled():
                        done = tally.right.total(), tally.failed_for_a_fault.total(), len(tally.wrong), len(tally.unexpected)
                        print(f"{looks[-1][0]:.0f} s: right, failed for a fault, wrong, unexpected: {done}; {looks[-1][1]}")
        with contextlib.suppress(ApplicationLost):
            fc.range(4).count()
        fc.reconnect(timeout_s=180.0)
        for name in SHUFFLES:  # once more: whatever was broken is well again
            SHUFFLES[name].check(fc)
    figures = {
        "seed": SEED,
        "seconds": round(time.monotonic() - begun),
        "jobs right": tally.right.total(),
        "jobs failed for a fault they name": dict(tally.failed_for_a_fault),
        "wrong answers": len(tally.wrong),
        "unexpected errors": len(tally.unexpected),
        "longest job s": round(tally.longest_s, 1),
        "faults": dict(faults.made),
        "first": asdict(looks[0][1]) if looks else {},
        "last": asdict(looks[-1][1]) if looks else {},
        "slope per hour": {each.name: round(slope_per_hour(looks, each.name)) for each in fields(Look)},
    }
    with capsys.disabled():
        print(f"\n{json.dumps(figures, indent=1)}")
    if faults.broken is not None:
        raise faults.broken
    assert not tally.wrong
    assert not tally.unexpected
    assert looks
    third = max(1, len(looks) // 3)
    for name, slack in (
        ("driver_bytes", 30 << 20),
        ("executor_bytes", 40 << 20),
        ("scheduler_bytes", 40 << 20),
        ("threads", 10),
        ("descriptors", 30),
        ("files", 200),
        ("disk_bytes", 20 << 20),
    ):
        early = statistics.median(getattr(look, name) for _, look in looks[:third])
        late = statistics.median(getattr(look, name) for _, look in looks[-third:])
        assert late <= early * 1.1 + slack, f"{name} grew from {early:,} to {late:,} (seed {SEED})"
