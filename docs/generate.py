"""Write the generated pages of docs/reference; with ``--check``, only say whether they are current.

Runs by hand, in ``make fmt`` and, checking, in ``make check``.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import flowkit
import flowkit.errors
from flowkit.config import ENVIRONMENT_PREFIX, PRESETS, Config, ConfigBuilder, settings_of
from flowkit.execution.accumulators import Accumulator
from flowkit.execution.broadcast import Broadcast
from flowkit.execution.estimates import BoundedFloat
from flowkit.execution.statistics import StatCounter
from flowkit.jobs import Jobs
from flowkit.model.pyspark_names import TABLES, Row
from flowkit.observe.history import History
from flowkit.observe.profile import Profile
from flowkit.rdd.asynchronous import JobFuture
from flowkit.rdd.capsules import Capsule

REFERENCE = Path(__file__).parent / "reference"
FROM_PYSPARK = Path(__file__).parent / "from-pyspark.md"
_TABLES_BEGIN = (
    "<!-- These tables are generated from flowkit/model/pyspark_names.py by `python docs/generate.py`; edit them there. -->"
)
_TABLES_END = "<!-- The end of the tables. -->"
COMMAND = "python docs/generate.py"

CONFIGURATION = f"""\
<!-- Generated from flowkit/config/config.py by `{COMMAND}`; edit the settings there. -->

# Configuration

Settings are fields of `flowkit.Config`, which is immutable and checked when it is built:

```python
import flowkit as fk

fc = fk.Context(config=fk.Config(max_task_failures=2))
```

or step by step, with components in place of names:

```python
config = (
    fk.Config.builder()
    .with_preset("production")
    .with_memory_manager(fk.QuotaMemory({{"blue": 0.5}}))
    .with_settings(max_task_failures=2)
    .build()
)
```

Where nothing is given, values come from the surroundings; of several the last one here wins:

1. the default;
2. the section `flowkit` of Dask's configuration (`flowkit: {{max-task-failures: 2}}` in `~/.config/dask/*.yaml`);
3. the TOML file that the variable `{ENVIRONMENT_PREFIX}CONFIG` names (its table `[flowkit]`, or its top level);
4. environment variables of the driver: `{ENVIRONMENT_PREFIX}` and the name in capitals; mappings as JSON (`{ENVIRONMENT_PREFIX}POOLS='{{"adhoc": 2}}'`);
5. `--conf` on the command line, and `%flowkit start --conf`;
6. arguments: `fk.Context(max_task_failures=2)`.

With a `Config` of your own, 2 to 5 say nothing unless it was told to ask them (`from_toml`, `from_environment`, `from_surroundings`, or the
builder's steps of these names). Unknown names and values of a wrong type are errors that name the nearest setting; what contradicts fails when
the `Config` is built. `fc.config.explain()` prints every value and where it is from.

| setting | type | default | what it does |
|---|---|---|---|
"""

NAMES = f"""\
<!-- Generated from flowkit.__all__ by `{COMMAND}`; edit the docstrings there. -->

# Names

What `import flowkit as fk` offers. Everything else may change without notice. Names are loaded when they are first used.

| name | what it is |
|---|---|
"""

#: classes that have a page: those of ``flowkit`` and those that its operations return
CLASSES: dict[str, tuple[type, ...]] = {
    "context": (flowkit.Context,),
    "rdd": (flowkit.RDD,),
    "jobs": (Jobs, JobFuture),
    "beside-the-rows": (Broadcast, Accumulator),
    "inside-a-task": (flowkit.TaskContext,),
    "storage-level": (flowkit.StorageLevel,),
    "scheduling-policies": (flowkit.Fair, flowkit.Capacity, flowkit.Priority, flowkit.Pool),
    "allocation-policies": (flowkit.Backlog, flowkit.Stable),
    "placement-policies": (flowkit.DelayScheduling,),
    "speculation-and-health": (flowkit.SlowerThanMedian, flowkit.FailureCounts),
    "memory-managers": (flowkit.UnifiedMemory, flowkit.QuotaMemory, flowkit.OnDemandMemory),
    "config": (Config, ConfigBuilder),
    "looking-on": (Profile, History, Capsule),
    "statistics": (StatCounter, BoundedFloat),
    "errors": (),
}
#: where readers look for what a mixin of many brings
SECTIONS = {
    "JobScopes": "Jobs",
    "FileShipping": "Files and modules",
    "Sources": "Collections, ranges, texts",
    "FileSources": "More sources",
    "Context": "The context itself",
    "Submission": "For RDDs and collaborators",
    "Narrow": "One element after the other",
    "Wide": "Sorting, sets, distinct",
    "Shapes": "Partitions, zips, pipes",
    "Sampling": "Samples",
    "Pairs": "By key",
    "Actions": "Actions",
    "Asynchronous": "Actions that return at once",
    "Approximate": "Estimates",
    "Numeric": "Numbers",
    "Sinks": "Files",
    "Needs": "Resources and barriers",
    "Persistence": "Caching, naming, explaining",
    "Base": "What it is",
}


def configuration() -> str:
    """Every setting."""
    page = CONFIGURATION + "".join(
        f"| `{each.name}` | {_type(each)}"
        f" | {'' if each.metadata['mapping'] else _default(each.default, each.metadata['unit'])} | {each.metadata['doc']}{_scope(each)} Since {each.metadata['since']}. |\n"
        for each in settings_of(Config)
    )
    page += "\n## Presets\n\nEach is a `Config` to begin with: `fk.Config.production(max_task_failures=8)`.\n"
    for name, changes in PRESETS.items():
        page += f"\n### `Config.{name}()`\n\n{_summary(getattr(Config, name))}\n\n| setting | value | why |\n|---|---|---|\n"
        page += "".join(f"| `{setting}` | `{value!r}` | {why} |\n" for setting, (value, why) in changes.items())
    return page


def _scope(setting: Any) -> str:
    return " Each driver of a cluster has its own." if setting.metadata["scope"] == "driver" else ""


def _type(setting: Any) -> str:
    if setting.metadata["mapping"]:
        return "objects by name"
    return "name or object" if setting.metadata["method"] else type(setting.default).__name__


def _default(value: object, unit: str) -> str:
    if unit == "bytes" and isinstance(value, int) and value >= 1 << 20 and value % (1 << 20) == 0:
        return f"{value >> 20} MiB" if value < 1 << 30 else f"{value >> 30} GiB"
    return f"`{value!r}`" + (f" {unit}" if unit else "")


def names() -> str:
    """Every exported name."""
    pages = {each: page for page, classes in CLASSES.items() for each in classes}
    page = NAMES
    for name in flowkit.__all__:
        thing = getattr(flowkit, name)
        linked = f"[`{name}`]({pages[thing]}.md)" if isinstance(thing, type) and thing in pages else f"`{name}`"
        page += f"| {linked} | {_summary(thing)} |\n"
    return page


def from_pyspark() -> str:
    """The page for people from PySpark, whose tables are made of the names; what stands around them is written by hand."""
    head, rest = FROM_PYSPARK.read_text(encoding="utf-8").split(_TABLES_BEGIN)
    tail = rest.split(_TABLES_END)[1]
    tables = "".join(
        f"\n## {table.title}\n\n| PySpark | flowkit | |\n|---|---|---|\n"
        + "".join(_pyspark_row(row, table.owner) for row in table.rows)
        for table in TABLES
    )
    return f"{head}{_TABLES_BEGIN}\n{tables}\n{_TABLES_END}{tail}"


def _pyspark_row(row: Row, owner: str) -> str:
    theirs = ", ".join(f"`{_as_written(name, owner)}`" for name in row.theirs.split())
    ours = ", ".join(f"`{name}`" for name in row.ours.split())
    return f"| {theirs} | {ours} | {row.note} |\n"


def _as_written(name: str, owner: str) -> str:
    holder, _, last = name.rpartition(".")
    shown = {"SparkContext": "sc.", "pyspark": "", "RDD": ""}.get(holder or owner)
    return f"{holder or owner}.{last}" if shown is None else f"{shown}{last}"


def classes(page: str) -> str:
    """A page about some classes: a table of what each can do, then every part of it whole."""
    text = f"<!-- Generated from docstrings by `{COMMAND}`; edit them there. -->\n\n"
    return text + "\n".join(_class(each) for each in CLASSES[page])


def errors() -> str:
    """The tree of errors."""
    head, _, rest = (inspect.getdoc(flowkit.errors) or "").partition("::\n")
    drawn, _, tail = rest.strip("\n").partition("\n\n")
    lines = "\n".join(line.removeprefix("    ") for line in drawn.splitlines())
    text = f"<!-- Generated from flowkit/errors.py by `{COMMAND}`; edit it there. -->\n\n# Errors\n\n"
    return text + f"{_paragraphs(head.splitlines())}\n\n```text\n{lines}\n```\n\n{_paragraphs(tail.splitlines())}\n"


def _class(kind: type) -> str:
    sections: dict[str, list[str]] = {}
    for name, member in inspect.getmembers(kind):
        if not name.startswith("_") and (inspect.isroutine(member) or isinstance(member, property)):
            sections.setdefault(_home(kind, name).__name__, []).append(name)
    text = f"# {kind.__name__}\n\n{_prose(inspect.getdoc(kind) or '')}\n"
    ordered = sorted(sections, key=lambda home: list(SECTIONS).index(home) if home in SECTIONS else -1)
    many = len(ordered) > 1
    for home in ordered:
        if many:
            text += f"\n## {SECTIONS.get(home, home)}\n"
        costs = any("Cost:" in (inspect.getdoc(getattr(kind, name)) or "") for name in sections[home])
        text += "\n| | | cost |\n|---|---|---|\n" if costs else "\n| | |\n|---|---|\n"
        text += "".join(_row(name, getattr(kind, name), costs=costs) for name in sections[home])
        text += "".join(_part(kind, name, "###" if many else "##") for name in sections[home])
    return text


def _home(kind: type, name: str) -> type:
    """The class that brings a name."""
    return next(each for each in kind.__mro__ if name in vars(each))


def _row(name: str, member: object, *, costs: bool) -> str:
    cost = re.search(r"Cost: (.*?)(?:[.;](?:\s|$)|$)", " ".join((inspect.getdoc(member) or "").split()))
    told = _code(cost[1]).replace("|", "\\|") if cost else ""
    return f"| [`{name}`](#{name}) | {_summary(member)} |" + (f" {told} |\n" if costs else "\n")


def _part(kind: type, name: str, heading: str) -> str:
    member = inspect.getattr_static(kind, name)
    text = f"\n{heading} {name}\n\n"
    if not isinstance(member, property):
        text += f"```python\n{name}{_signature(getattr(kind, name), bound=not isinstance(member, staticmethod))}\n```\n\n"
    return text + _prose(inspect.getdoc(getattr(kind, name)) or "") + "\n"


def _signature(function: Any, *, bound: bool) -> str:
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    if bound and parameters and parameters[0].name == "self":
        parameters = parameters[1:]
    parts, starred = [], False
    for each in parameters:
        if each.kind is each.KEYWORD_ONLY and not starred:
            parts.append("*")
        starred = starred or each.kind in {each.KEYWORD_ONLY, each.VAR_POSITIONAL}
        mark = {each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "")
        annotation = "" if each.annotation is each.empty else f": {each.annotation}"
        default = "" if each.default is each.empty else f" = {each.default!r}" if annotation else f"={each.default!r}"
        parts.append(f"{mark}{each.name}{annotation}{default}")
    told = "" if signature.return_annotation is signature.empty else f" -> {signature.return_annotation}"
    line = f"({', '.join(parts)}){told}"
    return line if len(line) < 90 else "(\n    " + ",\n    ".join(parts) + f",\n){told}"


def _prose(docstring: str) -> str:
    """A numpydoc docstring as Markdown."""
    lines = docstring.splitlines()
    titles = [index - 1 for index, line in enumerate(lines) if index and re.fullmatch(r"-{3,}", line)]
    text = _paragraphs(lines[: titles[0]] if titles else lines)
    for start, end in zip(titles, [*titles, len(lines)][1:], strict=True):
        title, body = lines[start], lines[start + 2 : end]
        if title == "Notes":
            text += "\n\n" + _paragraphs(body)
        elif title == "Examples":
            shown = re.sub(r"\s*# doctest: .*", "", "\n".join(body).strip())
            text += f"\n\n```python\n{shown}\n```"
        else:
            text += f"\n\n{title}\n\n" + "\n".join(_definitions(body))
    return text.strip()


def _paragraphs(lines: list[str]) -> str:
    return "\n\n".join(_code(_joined(each)) for each in "\n".join(lines).strip().split("\n\n"))


def _definitions(lines: list[str]) -> Iterator[str]:
    """``name`` on a line of its own, what it is indented below."""
    term, told = "", []
    for line in [*lines, "end"]:
        if line and not line.startswith(" "):
            if term:
                name, _, rest = term.partition(" : ")  # as in See Also
                yield f"- `{name}`: {_code(' '.join([rest, *told]).strip())}"
            term, told = line.rstrip(":").replace("``", ""), []
        elif line.strip():
            told.append(line.strip())


def _joined(text: str) -> str:
    return " ".join(text.split())


def _code(text: str) -> str:
    return text.replace("``", "`")


def _summary(thing: object) -> str:
    """The first paragraph of a docstring on one line; a plain value is shown as it is."""
    if isinstance(thing, str):
        return f"`{thing!r}`"
    text = inspect.getdoc(thing) or ""
    return " ".join(text.partition("\n\n")[0].split()).replace("``", "`").replace("|", "\\|")


PAGES = {
    FROM_PYSPARK: from_pyspark,
    REFERENCE / "configuration.md": configuration,
    REFERENCE / "names.md": names,
    **{REFERENCE / f"{page}.md": partial(classes, page) if kinds else errors for page, kinds in CLASSES.items()},
}


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when a page is old")
    check = parser.parse_args().check
    status = 0
    for path, make in PAGES.items():
        wanted = make()
        if not check:
            path.write_text(wanted, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != wanted:
            print(f"docs/{path.relative_to(REFERENCE.parent)} is old; run: {COMMAND}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    raise SystemExit(main())
