"""Write the generated pages of docs/reference; with ``--check``, only say whether they are current.

Runs by hand, in ``make fmt`` and, checking, in ``make check``.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from dataclasses import fields
from pathlib import Path

import flowkit
from flowkit.config import ENVIRONMENT_PREFIX, Config

REFERENCE = Path(__file__).parent / "reference"
COMMAND = "python docs/generate.py"

CONFIGURATION = f"""\
<!-- Generated from flowkit/config.py by `{COMMAND}`; edit the settings there. -->

# Configuration

Settings are fields of `flowkit.Config`, which is immutable and checked when it is built:

```python
import flowkit as fk

fc = fk.Context(config=fk.Config(max_task_failures=2))
```

Each can also be set by an environment variable of the driver: `{ENVIRONMENT_PREFIX}` and the name in capitals.

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


def configuration() -> str:
    """Every setting."""
    return CONFIGURATION + "".join(
        f"| `{each.name}` | {type(each.default).__name__} | {_default(each.default, each.metadata['unit'])}"
        f" | {each.metadata['doc']} Since {each.metadata['since']}. |\n"
        for each in fields(Config)
    )


def _default(value: object, unit: str) -> str:
    if unit == "bytes" and isinstance(value, int) and value >= 1 << 20 and value % (1 << 20) == 0:
        return f"{value >> 20} MiB" if value < 1 << 30 else f"{value >> 30} GiB"
    return f"`{value!r}`" + (f" {unit}" if unit else "")


def names() -> str:
    """Every exported name, and the operations of an RDD and a Context."""
    page = NAMES + "".join(f"| `{name}` | {_summary(getattr(flowkit, name))} |\n" for name in flowkit.__all__)
    for owner in (flowkit.Context, flowkit.RDD):
        page += f"\n## {owner.__name__}\n\n| operation | what it does |\n|---|---|\n"
        for name, member in inspect.getmembers(owner):
            if not name.startswith("_") and (inspect.isroutine(member) or isinstance(member, property)):
                page += f"| `{name}` | {_summary(member)} |\n"
    return page


def _summary(thing: object) -> str:
    """The first paragraph of a docstring on one line; a plain value is shown as it is."""
    if isinstance(thing, str):
        return f"`{thing!r}`"
    text = inspect.getdoc(thing) or ""
    return " ".join(text.partition("\n\n")[0].split()).replace("``", "`").replace("|", "\\|")


PAGES = {REFERENCE / "configuration.md": configuration, REFERENCE / "names.md": names}


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
            print(f"docs/reference/{path.name} is old; run: {COMMAND}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    raise SystemExit(main())
