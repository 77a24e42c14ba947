"""What a task measured of itself; sent with its report, summed per stage by observers."""

from __future__ import annotations

import msgspec

from flowkit.model.ranges import Count, Moment


class TaskMetrics(msgspec.Struct, omit_defaults=True):
    """Times in seconds, sizes in bytes. Mutable while the task runs, then sent once; live through heartbeats."""

    deserialise_s: Moment = 0.0
    run_s: Moment = 0.0
    cpu_s: Moment = 0.0
    gc_s: Moment = 0.0
    serialise_s: Moment = 0.0
    #: between arrival at the executor and start
    queued_s: Moment = 0.0
    result_bytes: Count = 0
    peak_memory_bytes: Count = 0
    memory_spilled_bytes: Count = 0
    disk_spilled_bytes: Count = 0
    leaked_bytes: Count = 0
    input_bytes: Count = 0
    input_rows: Count = 0
    output_bytes: Count = 0
    output_rows: Count = 0
    shuffle_read_rows: Count = 0
    shuffle_local_bytes: Count = 0
    shuffle_remote_bytes: Count = 0
    shuffle_fetch_wait_s: Moment = 0.0
    shuffle_write_rows: Count = 0
    shuffle_write_bytes: Count = 0
    shuffle_write_s: Moment = 0.0
    #: the key that has most of the rows written to a shuffle, as text, and about how many; empty when none stands out
    hot_key: str = ""
    hot_key_rows: Count = 0
    cache_hits: Count = 0
    cache_misses: Count = 0
    #: of cached partitions that came from other executors
    cache_remote_bytes: Count = 0
