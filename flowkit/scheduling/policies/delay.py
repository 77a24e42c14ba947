"""DELAY: near the data, if a slot comes free there soon. Pure."""

from __future__ import annotations

from flowkit.abc import Near, Preferred, TaskSetView, Waits
from flowkit.scheduling.policies.checks import check_seconds


class DelayScheduling:
    """Run a task where its input is: in that executor's cache, on that host, in that rack; each is waited for a moment.

    The cache comes first. Without it, hosts that hold a fifth or more of what is read of shuffles; without them, hosts of the files.

    Parameters
    ----------
    wait_s
        How long a slot is left unused for a better one, per level, in seconds.
    process_s, node_s, rack_s
        The same for one level; None: ``wait_s``.

    Notes
    -----
    The rule is of Zaharia and others' "Delay Scheduling" (2010), with Spark's levels: waiting begins anew whenever no slot went unused.

    Examples
    --------
    >>> DelayScheduling(node_s=3.0)
    DelayScheduling(process_s=0.1, node_s=3, rack_s=0.1)
    """

    def __init__(
        self, wait_s: float = 0.1, *, process_s: float | None = None, node_s: float | None = None, rack_s: float | None = None
    ) -> None:
        given = {"process_s": process_s, "node_s": node_s, "rack_s": rack_s}
        levels = {name: wait_s if value is None else value for name, value in given.items()}
        for name, value in levels.items():
            check_seconds(name, value, none=True)
        self._waits = Waits(**levels)

    def __repr__(self) -> str:
        return "DelayScheduling({})".format(", ".join(f"{name}={value:g}" for name, value in self._waits._asdict().items()))

    def waits(self, stage: TaskSetView) -> Waits:
        """The same for every stage."""
        return self._waits

    def prefer(self, stage: TaskSetView, partition: int, near: Near) -> Preferred:
        """Where it is cached; hosts by what would have to travel."""
        return Preferred(near.caching, near.shuffle_hosts or near.file_hosts or near.caching_hosts)
