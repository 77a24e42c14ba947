"""Configurations to begin with: by preset and setting the value, and why. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: by preset and setting: the value, and why
PRESETS: Mapping[str, Mapping[str, tuple[Any, str]]] = {
    "local": {
        "memory_manager": ("on_demand", "few tasks at a time: shares would leave memory unused"),
        "locality_wait_s": (0.0, "everything is on this host"),
    },
    "production": {
        "shuffle_codec": ("lz4", "between hosts bytes cost more than compressing them"),
        "block_codec": ("lz4", "as above, for disks"),
        "executor_timeout_s": (60.0, "a busy network must not look like a death"),
        "no_executor_timeout_s": (600.0, "a cluster that scales takes minutes"),
        "lease_s": (300.0, "a driver may be away for a while"),
        "progress": ("off", "nobody looks"),
    },
    "low_memory": {
        "memory_fraction": (0.4, "leaves more to what nobody accounts for"),
        "memory_manager": ("on_demand", "a task that runs alone may have it all"),
        "fetch_in_flight_bytes": (8 << 20, "of 48 MB"),
        "shuffle_codec": ("lz4", "smaller files stay in the system's cache"),
        "block_codec": ("lz4", "as above"),
    },
    "streaming": {
        "locality_wait_s": (0.0, "a batch is over before waiting pays"),
        "launch_ahead_s": (0.005, "late tasks are rebalanced sooner"),
        "progress": ("off", "a batch a second is no news"),
    },
}
