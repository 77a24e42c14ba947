"""Files and modules that travel with jobs, however tasks are run."""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from flowkit import files
from flowkit.errors import InvalidArgument


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
    assert Path(files.get(name)) == tmp_path / name


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
