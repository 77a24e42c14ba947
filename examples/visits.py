"""A pipeline as one schedules it: web server logs in, visits by day and section out as partitioned Parquet, bad lines set aside.

    flowkit run examples/visits.py LOGS OUT [--bad DIRECTORY] [--most-bad 0.1]
    python examples/visits.py LOGS OUT

``LOGS`` is a file, a directory or a glob of text, compressed or not, in the common log format. A line that does not parse is counted
and, with ``--bad``, written aside as it is with what is wrong with it; too many of them (``--most-bad``, a part of all) end the run
with exit code 3 before anything is published.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from datetime import datetime

import flowkit as fk

LINE = re.compile(
    r'(?P<host>\S+) \S+ \S+ \[(?P<time>[^\]]+)\] "(?P<method>[A-Z]+) (?P<path>\S+)[^"]*" (?P<status>\d{3}) (?P<size>\d+|-)'
)
TOO_MANY_BAD = 3


def parse(line: str) -> tuple[str, dict]:
    """``("good", visit)``, or ``("bad", what is wrong)``."""
    found = LINE.match(line)
    if found is None:
        return "bad", {"line": line, "why": "not in the common log format"}
    try:
        time = datetime.strptime(found["time"], "%d/%b/%Y:%H:%M:%S %z")
    except ValueError as error:
        return "bad", {"line": line, "why": str(error)}
    section = found["path"].split("?")[0].split("/")[1] or "home"
    size = 0 if found["size"] == "-" else int(found["size"])
    return "good", {
        "day": time.date().isoformat(),
        "section": section,
        "host": found["host"],
        "failed": int(found["status"]) >= 500,
        "bytes": size,
    }


def summed(total: dict, one: dict) -> dict:
    """Two groups of visits as one."""
    return {name: total[name] + one[name] for name in total}


def rows(entry: tuple[tuple[str, str], dict]) -> Iterator[dict]:
    """A row of the result."""
    (day, section), numbers = entry
    yield {"day": day, "section": section, **numbers}


def run(fc: fk.Context, logs: str, out: str, bad: str | None, most_bad: float) -> int:
    """The pipeline; its exit code."""
    parsed = fc.text_file(logs).filter(str.strip).map(parse).cache()
    counts = parsed.keys().count_by_value()
    good_count, bad_count = counts.get("good", 0), counts.get("bad", 0)
    print(f"{good_count} visits, {bad_count} bad lines")
    if bad is not None:
        parsed.filter(lambda entry: entry[0] == "bad").values().coalesce(1).save_as_json_lines(bad, mode="overwrite")
    if bad_count > most_bad * (good_count + bad_count):
        print(f"more than {most_bad:.0%} of all lines are bad; nothing was published", file=sys.stderr)
        return TOO_MANY_BAD
    visits = parsed.filter(lambda entry: entry[0] == "good").values()
    by_day = visits.map(
        lambda visit: (
            (visit["day"], visit["section"]),
            {"visits": 1, "failures": int(visit["failed"]), "bytes": visit["bytes"]},
        )
    ).reduce_by_key(summed)
    by_day.sort_by_key().flat_map(rows).coalesce(1).save_as_parquet(out, partition_by=["day"], mode="overwrite")
    print(f"written: {out}")
    return 0


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("logs", help="a file, a directory or a glob")
    parser.add_argument("out", help="a directory; replaced when all is well")
    parser.add_argument("--bad", metavar="DIRECTORY", help="where bad lines go")
    parser.add_argument("--most-bad", type=float, default=0.1, metavar="PART", help="of all lines (default: %(default)s)")
    arguments = parser.parse_args()
    fc = fk.Context.get_or_create()
    return run(fc, arguments.logs, arguments.out, arguments.bad, arguments.most_bad)


if __name__ == "__main__":
    sys.exit(main())
