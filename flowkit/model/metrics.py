"""What a task measured of itself; sent with its report, summed per stage by observers."""

from __future__ import annotations

import msgspec


class TaskMetrics(msgspec.Struct, omit_defaults=True):
    """Times in seconds, sizes in bytes. Mutable while the task runs, then sent once; live through heartbeats."""

    deserialise_s: float = 0.0
    run_s: float = 0.0
    cpu_s: float = 0.0
    gc_s: float = 0.0
    serialise_s: float = 0.0
    #: between arrival at the executor and start
    queued_s: float = 0.0
    result_bytes: int = 0
    peak_memory_bytes: int = 0
    memory_spilled_bytes: int = 0
    disk_spilled_bytes: int = 0
    leaked_bytes: int = 0
    input_bytes: int = 0
    input_rows: int = 0
    output_bytes: int = 0
    output_rows: int = 0
    shuffle_read_rows: int = 0
    shuffle_local_bytes: int = 0
    shuffle_remote_bytes: int = 0
    shuffle_fetch_wait_s: float = 0.0
    shuffle_write_rows: int = 0
    shuffle_write_bytes: int = 0
    shuffle_write_s: float = 0.0
    #: the key that has most of the rows written to a shuffle, as text, and about how many; empty when none stands out
    hot_key: str = ""
    hot_key_rows: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    #: of cached partitions that came from other executors
    cache_remote_bytes: int = 0
