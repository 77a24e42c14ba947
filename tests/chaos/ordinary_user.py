"""What an ordinary user meets where rights are missing; started by ``test_missing_rights.py``, as root, with a place and a mount namespace
of its own.

    python ordinary_user.py UID PLACE

Becomes that user, runs every scenario in one Context, and prints a line of JSON for each: what was raised, how long it took, what is left.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flowkit as fk
from flowkit.storage.host_directory import HostDirectory


def prepare(place: Path) -> None:
    """As root: what the user may not write, read or enter."""
    for name, mode in (("unwritable", 0o755), ("closed", 0o700), ("of everybody", 0o777)):
        (place / name).mkdir()
        (place / name).chmod(mode)
    (place / "closed" / "file.txt").write_text("a\nb\n")
    (place / "secret.txt").write_text("a\nb\n")
    (place / "secret.txt").chmod(0o600)
    (place / "some").mkdir()
    for name, mode in (("good.txt", 0o644), ("secret.txt", 0o600)):
        (place / "some" / name).write_text("a\nb\n")
        (place / "some" / name).chmod(mode)
    (place / "of another").mkdir()
    (place / "of another").chmod(0o755)


def told(name: str, action: Callable[[], Any], left: Callable[[], Any] = lambda: None) -> None:
    begun = time.monotonic()
    found: dict[str, Any] = {"scenario": name, "error": None, "text": "", "value": None}
    try:
        found["value"] = action()
    except BaseException as error:
        found |= {"error": type(error).__name__, "bases": [each.__name__ for each in type(error).__mro__], "text": str(error)}
    print(json.dumps(found | {"took_s": time.monotonic() - begun, "left": left()}), flush=True)


def run(place: Path) -> None:
    own = place / "own"
    options: dict[str, Any] = {"workers": 2, "processes": False, "progress": "off"}

    def context(**more: Any) -> int:
        with fk.Context(**{**options, "local_directory": str(own / "files"), **more}) as fc:
            return fc.range(10, num_partitions=2).map(lambda i: (i, i)).group_by_key(2).count()

    told("its own", context, lambda: sorted(path.name for path in (own / "files").rglob("app-*")))
    told("local_directory that may not be made", lambda: context(local_directory=str(place / "unwritable" / "files")))
    told("local_directory in one that may not be entered", lambda: context(local_directory=str(place / "closed" / "files")))
    told("local_directory of another", lambda: context(local_directory=str(place / "of another")))
    told("event_log that may not be made", lambda: context(event_log=str(place / "unwritable" / "logs")))

    def cached_on_disk() -> int:
        directories = os.pathsep.join(str(place / name / "blocks") for name in ("unwritable", "closed"))
        with fk.Context(**options, local_directory=str(own / "files"), block_directories=directories) as fc:
            rows = fc.range(1_000, num_partitions=2).map(str).persist(fk.StorageLevel.DISK_ONLY)
            return rows.count() + rows.count()

    told(
        "block_directories that may not be made",
        cached_on_disk,
        lambda: sorted(path.name for path in (own / "files").rglob("app-*")),
    )
    with fk.Context(**options, local_directory=str(own / "jobs")) as fc:
        lines = fc.parallelize(["a", "b"], 2)
        told("reading a file", lambda: fc.text_file(str(place / "secret.txt")).count())
        told("reading in a closed directory", lambda: fc.text_file(str(place / "closed" / "file.txt")).count())
        told("reading a directory with one such file", lambda: fc.text_file(str(place / "some")).count())
        told(
            "saving",
            lambda: lines.save_as_text(str(place / "unwritable" / "out")),
            lambda: sorted(path.name for path in (place / "unwritable").iterdir()),
        )
        told("saving into a closed directory", lambda: lines.save_as_text(str(place / "closed" / "out")))
        kept = fc.parallelize(["a"])
        told("a checkpoint", lambda: kept.checkpoint(str(place / "unwritable" / "kept")).count())
        (application,) = [path for path in HostDirectory.open(str(own / "jobs")).base.glob("app-*") if path.is_dir()]
        application.chmod(0o500)
        told("a shuffle while its directory may not be written", lambda: lines.key_by(len).partition_by(2).count())
        application.chmod(0o700)
        told("a shuffle when it may be again", lambda: lines.key_by(len).partition_by(2).count())
    told("what is left", lambda: sorted(path.name for path in (own / "jobs").rglob("app-*")))


def reveal(*trees: Path) -> None:
    """In this mount namespace alone: have everybody reach directories that lie below one only root may enter, as ``/root``."""
    closed: dict[Path, list[Path]] = {}
    for tree in trees:
        for above in reversed(tree.parents):
            if not above.stat().st_mode & 0o001:
                closed.setdefault(above, []).append(tree)
                break
    for above, below in closed.items():
        with tempfile.TemporaryDirectory() as aside:
            for number, tree in enumerate(below):
                (Path(aside) / str(number)).mkdir()
                mount("--bind", str(tree), f"{aside}/{number}")
            mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(above))
            for number, tree in enumerate(below):
                tree.mkdir(parents=True)
                mount("--bind", f"{aside}/{number}", str(tree))
                subprocess.run(["umount", f"{aside}/{number}"], check=True)


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def main(uid: int, place: Path) -> None:
    reveal(*{Path(each).resolve() for each in (sys.base_prefix, sys.prefix, Path(fk.__file__).parents[1])})
    prepare(place)
    (place / "own").mkdir()
    os.chown(place / "own", uid, uid)
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    assert not os.access(place / "secret.txt", os.R_OK), "it is no ordinary user"
    os.environ["HOME"] = str(place / "own")
    os.chdir(place / "own")
    run(place)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
