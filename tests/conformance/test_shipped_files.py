"""Files and modules that travel with jobs, however tasks are run."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import flowkit as fk
from flowkit import files
from flowkit.errors import ClusterError, InvalidArgument
from flowkit.testing.inline import InlineLink, inline_context


@pytest.fixture(autouse=True)
def _same_path():
    """What a test put on this process's path, and imported from there, goes with it."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("shipped_"):
            del sys.modules[name]


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_file_is_found_by_its_name_in_tasks_and_here(fc, tmp_path, size):
    name = f"data-{size}-{fc.app}.txt"
    (tmp_path / name).write_text("x" * size)
    assert fc.add_file(tmp_path / name) == name
    assert name in fc.list_files()
    sizes = fc.range(4, num_partitions=4).map(lambda _: len(Path(files.get(name)).read_text())).collect()
    assert sizes == [size] * 4
    assert Path(files.get(name)).read_text() == "x" * size


def test_what_was_not_added_is_named(fc):
    with pytest.raises(FileNotFoundError, match=r"no file 'nowhere\.txt' was added"):
        fc.range(1).map(lambda _: files.get("nowhere.txt")).collect()
    with pytest.raises(FileNotFoundError, match="nothing is at"):
        fc.add_file("/nowhere/at/all")


def test_a_module_is_imported_before_functions_that_need_it(fc, tmp_path):
    module = f"shipped_{fc.app.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text("def triple(x):\n    return 3 * x\n")
    fc.add_py_file(tmp_path / f"{module}.py")
    triple = __import__(module).triple
    (tmp_path / f"{module}.py").unlink()  # executors have their own
    sums = fc.range(6, num_partitions=3).map(triple).map(lambda x: (x % 2, x)).reduce_by_key(lambda a, b: a + b, 2)
    assert sums.collect_as_map() == {0: 18, 1: 27}


def test_a_package_and_a_zip_of_modules_are_imported(fc, tmp_path):
    name = fc.app.replace("-", "_")
    package = tmp_path / f"shipped_package_{name}"
    package.mkdir()
    (package / "__init__.py").write_text("from .inner import plus\n")
    (package / "inner.py").write_text("def plus(x):\n    return x + 1\n")
    fc.add_py_file(package)
    with zipfile.ZipFile(tmp_path / "modules.zip", "w") as archive:
        archive.writestr(f"shipped_zipped_{name}.py", "def minus(x):\n    return x - 1\n")
    fc.add_py_file(tmp_path / "modules.zip")
    plus, minus = __import__(package.name).plus, __import__(f"shipped_zipped_{name}").minus
    assert fc.range(3).map(plus).map(minus).collect() == [0, 1, 2]
    with pytest.raises(InvalidArgument, match="neither a module"):
        fc.add_py_file(__file__ + "x" if Path(__file__ + "x").exists() else _text(tmp_path))


def _text(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").touch()
    return tmp_path / "a.txt"


@pytest.mark.parametrize("kind", ["zip", "gztar", "directory"])
def test_an_archive_lies_unpacked(fc, tmp_path, kind):
    inner = tmp_path / f"inner-{kind}"
    (inner / "deep").mkdir(parents=True)
    (inner / "deep" / "a.txt").write_text(kind)
    source = inner if kind == "directory" else Path(shutil.make_archive(str(tmp_path / f"packed-{kind}"), kind, inner))
    name = fc.add_archive(source, f"data-{kind}-{fc.app}")
    assert fc.range(2).map(lambda _: (Path(files.get(name)) / "deep" / "a.txt").read_text()).collect() == [kind, kind]
    with pytest.raises(InvalidArgument, match="is no archive"):
        fc.add_archive(_text(tmp_path))


@pytest.fixture
def neighbour(fc):
    """Another Context on the same cluster, and so in the same processes."""
    with inline_context() if isinstance(fc._link, InlineLink) else fk.Context(fc.client, progress="off") as context:
        yield context


def _read(name):
    return lambda _: Path(files.get(name)).read_text()


def test_driver_and_tasks_read_what_was_there_when_it_was_added(fc, tmp_path):
    name = f"changing-{fc.app}.txt"
    (tmp_path / name).write_text("then")
    fc.add_file(tmp_path / name)
    (tmp_path / name).write_text("now")
    assert fc.range(2).map(_read(name)).collect() == ["then", "then"]
    assert Path(files.get(name)).read_text() == "then"
    (tmp_path / name).unlink()
    assert Path(files.get(name)).read_text() == "then"


def test_other_content_under_a_name_that_is_taken_is_refused(fc, tmp_path):
    name = f"taken-{fc.app}.txt"
    (tmp_path / name).write_text("one")
    fc.add_file(tmp_path / name)
    assert fc.add_file(tmp_path / name) == name  # again as it is: nothing happens
    assert fc.list_files().count(name) == 1
    (tmp_path / name).write_text("two")
    with pytest.raises(InvalidArgument, match="another file was added as 'taken-.*give this one another name="):
        fc.add_file(tmp_path / name)
    assert fc.add_file(tmp_path / name, f"second-{name}") == f"second-{name}"
    assert fc.range(1).map(_read(name)).collect() + fc.range(1).map(_read(f"second-{name}")).collect() == ["one", "two"]
    (tmp_path / "directory").mkdir()
    with pytest.raises(InvalidArgument, match="another file was added as"):
        fc.add_archive(tmp_path / "directory", name)


def test_a_module_that_changed_is_refused_and_one_that_was_touched_is_not(fc, tmp_path):
    package = tmp_path / f"shipped_changed_{fc.app.replace('-', '_')}"
    package.mkdir()
    (package / "__init__.py").write_text("x = 1\n")
    name = fc.add_py_file(package)
    os.utime(package / "__init__.py", (0, 0))
    assert fc.add_py_file(package) == name
    (package / "__init__.py").write_text("x = 2\n")
    with pytest.raises(InvalidArgument, match="a process imports a module once, so a changed one needs a new Context"):
        fc.add_py_file(package)


def test_each_of_two_contexts_has_its_own_file_of_one_name(fc, neighbour, tmp_path):
    name = f"both-{fc.app}.txt"
    for context, text in ((fc, "mine"), (neighbour, "theirs")):
        (tmp_path / name).write_text(text)
        context.add_file(tmp_path / name)
    for _ in range(2):
        assert fc.range(4, num_partitions=4).map(_read(name)).collect() == ["mine"] * 4
        assert neighbour.range(4, num_partitions=4).map(_read(name)).collect() == ["theirs"] * 4
    with pytest.raises(InvalidArgument, match="2 Contexts of this process have a file"):
        files.get(name)
    assert [Path(files.get(name, context)).read_text() for context in (fc, neighbour)] == ["mine", "theirs"]
    neighbour.close()
    assert Path(files.get(name)).read_text() == "mine"
    assert fc.range(1).map(_read(name)).collect() == ["mine"]


def test_files_are_gone_when_their_context_is_closed(fc, neighbour, tmp_path):
    module = f"shipped_gone_{neighbour.app.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text("")
    name = f"gone-{neighbour.app}.txt"
    (tmp_path / name).write_text("x")
    neighbour.add_file(tmp_path / name)
    neighbour.add_py_file(tmp_path / f"{module}.py")
    place = Path(files.get(name))
    assert neighbour.range(1).map(_read(name)).collect() == ["x"]
    assert str(tmp_path) in sys.path
    neighbour.close()
    assert not place.exists()
    assert not [entry for entry in sys.path if entry == str(tmp_path) or neighbour.app in entry]
    with pytest.raises(FileNotFoundError, match=f"no file '{name}' was added to the Context; there are"):
        files.get(name)
    with pytest.raises(ClusterError, match="closed"):
        neighbour.add_file(tmp_path / name)


def test_an_archive_is_unpacked_on_the_driver_as_in_tasks(fc, tmp_path):
    inner = tmp_path / "inner"
    (inner / "empty").mkdir(parents=True)
    (inner / "run.sh").write_text("#!/bin/sh\necho hi\n")
    (inner / "run.sh").chmod(0o755)
    name = fc.add_archive(inner, f"tools-{fc.app}")

    def look(_=None):
        place = Path(files.get(name))
        return (place / "empty").is_dir(), os.access(place / "run.sh", os.X_OK), sorted(each.name for each in place.iterdir())

    assert look() == (True, True, ["empty", "run.sh"])
    assert fc.range(1).map(look).collect() == [look()]


def test_an_archive_that_cannot_be_unpacked_is_refused_at_the_call(fc, tmp_path):
    for name in ("broken.zip", "broken.tar.gz", "broken.tar"):
        (tmp_path / name).write_bytes(b"no archive at all")
        with pytest.raises(InvalidArgument, match=f"{name} cannot be unpacked"):
            fc.add_archive(tmp_path / name)
        assert name not in fc.list_files()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", None.__class__, 5])
def test_a_name_of_a_file_has_no_directories(fc, tmp_path, name):
    with pytest.raises(InvalidArgument, match="must be the name of a file, without directories"):
        fc.add_file(_text(tmp_path), name)
    with pytest.raises(InvalidArgument, match="must be the name of a file, without directories"):
        fc.add_archive(tmp_path, name)


def test_a_thread_that_a_task_starts_finds_its_files(fc, tmp_path):
    name = f"thread-{fc.app}.txt"
    (tmp_path / name).write_text("x")
    fc.add_file(tmp_path / name)

    def in_thread(_):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: Path(files.get(name)).read_text()).result()

    assert fc.range(1).map(in_thread).collect() == ["x"]
