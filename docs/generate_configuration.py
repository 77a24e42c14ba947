"""Write docs/reference/configuration.md from ``flowkit.config``; with ``--check``, only say whether it is current.

Runs by hand, in ``make fmt`` and, checking, in ``make check``.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from flowkit.config import ENVIRONMENT_PREFIX, Config

PAGE = Path(__file__).parent / "reference" / "configuration.md"
COMMAND = "python docs/generate_configuration.py"

HEAD = f"""\
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


def page() -> str:
    """The page as it ought to be."""
    return HEAD + "".join(
        f"| `{each.name}` | {type(each.default).__name__} | {_default(each.default, each.metadata['unit'])}"
        f" | {each.metadata['doc']} Since {each.metadata['since']}. |\n"
        for each in fields(Config)
    )


def _default(value: object, unit: str) -> str:
    if unit == "bytes" and isinstance(value, int) and value >= 1 << 20 and value % (1 << 20) == 0:
        return f"{value >> 20} MiB" if value < 1 << 30 else f"{value >> 30} GiB"
    return f"`{value!r}`" + (f" {unit}" if unit else "")


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when the page is old")
    wanted = page()
    if parser.parse_args().check:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == wanted:
            return 0
        print(f"{PAGE} differs from flowkit/config.py; run: {COMMAND}", file=sys.stderr)
        return 1
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
