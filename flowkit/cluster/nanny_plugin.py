"""flowkit in a Dask nanny: it says how its worker's process ended, and what that ran. Runs in the nanny's process."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from distributed import Nanny
from distributed.diagnostics.plugin import NannyPlugin

from flowkit.cluster import dask_internals, slot_record
from flowkit.cluster.machine import host_directory
from flowkit.cluster.wire import EXIT_TOPIC, PLUGIN_NAME
from flowkit.errors import FlowkitError

logger = logging.getLogger("flowkit.cluster")


class FlowkitNannyPlugin(NannyPlugin):
    """Has nannies say how their workers' processes ended."""

    name = PLUGIN_NAME
    restart = False

    def __init__(self, local_directory: str | None) -> None:
        self._local_directory = local_directory

    def setup(self, nanny: Nanny) -> None:
        """Begin to."""
        environment = {**os.environ, **dask_internals.nanny_environment(nanny)}
        dask_internals.tell_exits(nanny, EXIT_TOPIC, lambda address: self._last_words(environment, address))

    def _last_words(self, environment: Mapping[str, str], address: str) -> dict[str, Any]:
        try:
            return {"running": slot_record.collect(host_directory(environment, self._local_directory).base, address)}
        except (OSError, FlowkitError) as error:
            logger.warning("what %s ran in the end could not be read: %s", address, error)
            return {}
