"""Which modules does your Python lean on most? PageRank over the imports of everything installed beside it.

python examples/import_graph.py [--path DIRECTORY ...] [--rounds 10] [--workers 2]
"""

from __future__ import annotations

import argparse
import ast
import keyword
import re
import sys
import sysconfig
import time
import warnings
from collections.abc import Iterator
from operator import add, itemgetter
from pathlib import Path

from rich.console import Console
from rich.table import Table

import flowkit as fk
from flowkit.observe.status import RunSummary, StatusStore

#: Strings and comments match first and are dropped, so that what remains are names.
NAME = re.compile(
    r"""'{3}.*?'{3}|"{3}.*?"{3}|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|\#[^\n]*|\b([^\W\d]\w*)\b(?!['"])""",
    re.DOTALL,
)
NOT_INTERESTING = {"", *keyword.kwlist, *keyword.softkwlist}


def modules_below(directories: list[Path]) -> dict[str, Path]:
    """Every module with a source file: its dotted name, and where it is."""
    files = {}
    for directory in directories:
        for path in directory.rglob("*.py"):
            parts = path.relative_to(directory).with_suffix("").parts
            if "site-packages" not in parts:
                files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def names(source: bytes) -> Iterator[str]:
    """The identifiers of a source, as often as they occur."""
    return (name for name in NAME.findall(source.decode("utf-8", "replace")) if name not in NOT_INTERESTING)


def imports(module: str, path: str, source: bytes) -> set[str]:
    """What a module asks for, as it is written there; relative imports made absolute."""
    package = module.split(".") if path.endswith("__init__.py") else module.split(".")[:-1]
    wanted = set()
    with warnings.catch_warnings(action="ignore"):  # other people's invalid escapes
        tree = ast.parse(source, path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            wanted.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            wanted.update(f"{origin}.{alias.name}" for alias in node.names)
    return wanted


def parse(file: tuple[str, str]) -> tuple[str, set[str], str]:
    """A module, what it imports, and why it could not be parsed (empty: it could)."""
    module, path = file
    try:
        return module, imports(module, path, Path(path).read_bytes()), ""
    except (SyntaxError, ValueError, RecursionError) as error:
        return module, set(), f"{type(error).__name__}: {error}"


def lean_on(files: fk.RDD[tuple[str, set[str], str]], known: frozenset[str]) -> fk.RDD[tuple[str, str]]:
    """Edges (module, module it imports): ``import a.b.C`` leans on ``a.b`` when that is the module."""

    def resolve(name: str) -> str:
        while name and name not in known:
            name = name.rpartition(".")[0]
        return name

    def edges(file: tuple[str, set[str], str]) -> Iterator[tuple[str, str]]:
        module, wanted, _ = file
        return ((module, target) for target in set(map(resolve, wanted)) - {"", module})

    return files.flat_map(edges)


def page_rank(links: fk.RDD[tuple[str, list[str]]], rounds: int) -> fk.RDD[tuple[str, float]]:
    """Importance: a module hands its own on to those it imports, in equal parts, round after round."""

    def hand_on(entry: tuple[str, tuple[list[str], float]]) -> Iterator[tuple[str, float]]:
        module, (targets, rank) = entry
        yield module, 0.0  # so that a module nobody imports stays in the game
        for target in targets:
            yield target, rank / len(targets)

    ranks = links.map_values(lambda _: 1.0)
    for _ in range(rounds):
        ranks = links.join(ranks).flat_map(hand_on).reduce_by_key(add).map_values(lambda received: 0.15 + 0.85 * received)
    return ranks


def table(title: str, columns: list[str], rows: list[tuple]) -> Table:
    """Rows under a title; numbers to the right."""
    result = Table(*columns, title=title, title_justify="left", title_style="bold")
    for column, value in zip(result.columns, rows[0] if rows else (), strict=False):
        column.justify = "left" if isinstance(value, str) else "right"
    for row in rows:
        result.add_row(*(value if isinstance(value, str) else f"{value:,}" for value in row))
    return result


def what_was_done(summary: RunSummary, seconds: float) -> list[tuple[str, str]]:
    """The run in figures."""
    return [
        ("jobs", f"{summary.jobs:,}"),
        ("stages", f"{summary.stages:,}, and {summary.skipped_stages:,} skipped because their output was still there"),
        ("tasks", f"{summary.tasks:,}, {summary.failed_tasks:,} failed"),
        ("rows shuffled", f"{summary.shuffle_write_rows:,}"),
        ("bytes shuffled", f"{summary.shuffle_write_bytes / 1e6:,.1f} MB"),
        ("seconds", f"{seconds:.1f} from start to end, {summary.task_seconds:.1f} in tasks"),
    ]


def main() -> None:
    """Read, count, link, rank, tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", type=Path, action="append", help="where modules are (default: this Python's own)")
    parser.add_argument("--rounds", type=int, default=10, help="of PageRank (default: 10)")
    parser.add_argument("--workers", type=int, default=None, help="processes (default: one a core)")
    arguments = parser.parse_args()

    console = Console()
    started = time.perf_counter()
    directories = arguments.path or [Path(sysconfig.get_path(each)) for each in ("stdlib", "purelib")]
    found = modules_below(directories)
    known = frozenset(found) | sys.stdlib_module_names
    console.print(f"{len(found):,} modules below {' and '.join(map(str, directories))}", highlight=False)

    status = StatusStore()
    with fk.Context(workers=arguments.workers) as fc:
        fc.add_listener(status)
        files = fc.parallelize([(module, str(path)) for module, path in found.items()], 32)

        words = files.flat_map(lambda file: names(Path(file[1]).read_bytes()))
        favourites = words.map(lambda name: (name, 1)).reduce_by_key(add).top(15, key=itemgetter(1))

        parsed = files.map(parse).cache()
        unparsable = parsed.filter(lambda file: bool(file[2])).collect()

        edges = lean_on(parsed, known)
        links = edges.group_by_key(8).map_values(list).cache()
        importers = edges.map(lambda edge: (edge[1], 1)).reduce_by_key(add)
        ranks = page_rank(links, arguments.rounds)
        leaders = ranks.join(importers).top(20, key=lambda entry: entry[1][0])

    console.print()
    console.print(table("Identifiers, by use", ["name", "times"], favourites))
    console.print()
    rows = [(place, module, round(rank, 1), count) for place, (module, (rank, count)) in enumerate(leaders, 1)]
    console.print(table("The modules your Python leans on most", ["", "module", "importance", "imported by"], rows))
    console.print()
    console.print(table("What the run did", ["", ""], what_was_done(status.summary(), time.perf_counter() - started)))
    if unparsable:
        console.print(f"\n{len(unparsable)} files could not be parsed and count as importing nothing:", style="bold")
        for module, _, complaint in sorted(unparsable):
            console.print(f"  {module}: {complaint}", style="dim", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
