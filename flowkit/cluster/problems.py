"""Why workers have no executor, in words.

Runs in drivers and schedulers; pure.
"""

from __future__ import annotations

from collections.abc import Mapping


def how_to_install() -> str:
    """What to type where something is missing."""
    return "install the same flowkit there and on every worker (pip install flowkit), then connect again"


def describe_problems(problems: Mapping[str, str]) -> str:
    """Why workers have no executor, in one line; empty when there is nothing to say. ``problems`` are error messages by address.

    >>> describe_problems({"tcp://w:1": "ConfigError: resources['gpu']: OSError: no driver"})
    "flowkit could not start on tcp://w:1: ConfigError: resources['gpu']: OSError: no driver"
    """
    if not problems:
        return ""
    listed = "; ".join(f"{address}: {why}" for address, why in sorted(problems.items())[:3])
    more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
    # A setting that does not fit is no matter of what is installed.
    mend = "" if all(why.startswith("ConfigError:") for why in problems.values()) else f"; {how_to_install()}"
    return f"flowkit could not start on {listed}{more}{mend}"
