"""Which named resources a worker has, with their addresses: from the setting ``resources``, and from what Dask was told.

Runs in workers, once at their start, on a thread of its own: a script may take a while.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowkit.config import MOST_ADDRESSES
from flowkit.errors import ConfigError
from flowkit.logs import is_ctrl_c, logger_of
from flowkit.model.shown import in_words, short

logger = logger_of("flowkit.cluster")

SCRIPT_LIMIT_S = 30.0


def discovered(
    setting: Mapping[str, Any], dask: Mapping[str, float], environment: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """Addresses by name.

    ``setting`` names for each resource how many there are, their addresses, a function that returns them, or a script that prints them as
    Spark's do. What Dask's worker was started with (``--resources gpu=2``) has its addresses counted from 0, save GPUs that the
    worker was given by ``CUDA_VISIBLE_DEVICES``. Amounts of Dask's that count nothing (``MEMORY=70e9``, ``GPU=0.5``) are left to Dask.

    Raises
    ------
    errors.ConfigError
        A script or function fails, or says something else.

    Examples
    --------
    >>> discovered({"fpga": ["a", "b"]}, {"GPU": 2.0}, {"CUDA_VISIBLE_DEVICES": "4,5"})
    {'gpu': ('4', '5'), 'fpga': ('a', 'b')}

    Those of ``setting`` belong to the host, so that all its executors share them; those of Dask are the worker's own.
    """
    found = _counted(dask, environment)
    for name, told in setting.items():
        found[name] = _addresses(name, told)
    return found


def _counted(dask: Mapping[str, float], environment: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    uncounted = []
    visible = tuple(each.strip() for each in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if each.strip())
    for name, amount in dask.items():
        if amount % 1 or not 0 <= amount <= MOST_ADDRESSES:
            uncounted.append(f"{name}={amount:g}")
            continue
        addresses = tuple(map(str, range(int(amount))))
        found[name.lower()] = visible if name.lower() == "gpu" and len(visible) == len(addresses) else addresses
    if uncounted:
        logger.warning(
            "resources of Dask's that tasks of flowkit cannot ask for, since they are no whole numbers up to %d: %s",
            MOST_ADDRESSES,
            ", ".join(uncounted),
        )
    return found


def _addresses(name: str, told: Any) -> tuple[str, ...]:
    try:
        if callable(told):
            told = told()
        elif isinstance(told, str):
            told = _printed(name, told)
        if isinstance(told, int) and not isinstance(told, bool) and 0 <= told <= MOST_ADDRESSES:
            return tuple(map(str, range(told)))
        if isinstance(told, str) or not isinstance(told, Sequence):
            raise TypeError(f"{short(told)} is neither a whole number up to {MOST_ADDRESSES:,} nor a list of addresses")
        addresses = tuple(map(str, told))
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        raise ConfigError(f"resources[{name!r}]: {in_words(error)}", setting="resources", value=name) from error
    if len(set(addresses)) < len(addresses):
        raise ConfigError(f"resources[{name!r}] = {list(addresses)}: addresses must differ", setting="resources", value=name)
    return addresses


def _printed(name: str, script: str) -> Sequence[str]:
    """What a script prints: ``{"name": "gpu", "addresses": ["0", "1"]}``."""
    ran = subprocess.run(  # noqa: S603 - whoever sets it runs code here anyway
        [str(Path(script).expanduser())], capture_output=True, text=True, timeout=SCRIPT_LIMIT_S, check=False
    )
    if ran.returncode:
        said = ran.stderr.strip()[-500:]
        raise RuntimeError(f"{script} ended with {ran.returncode}{': ' if said else ''}{said}")
    answer = json.loads(ran.stdout)
    if str(answer.get("name")).lower() != name.lower():
        raise ValueError(f"{script} printed addresses of {answer.get('name')!r}")
    addresses: Sequence[str] = answer["addresses"]
    return addresses
