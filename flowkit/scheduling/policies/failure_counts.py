"""COUNTS: an executor on which several tasks failed gets no more of them. Pure."""

from __future__ import annotations

from flowkit.abc import Exclusion, Failures
from flowkit.errors import ConfigError
from flowkit.scheduling.policies.checks import check_seconds


class FailureCounts:
    """Exclude an executor from a stage after some of its tasks failed there, from the application after twice as many, in all stages.

    A host with several such executors is excluded whole.

    Parameters
    ----------
    after
        Different tasks of a stage; of executors of a host, too.
    timeout_s
        For how long the application goes without, in seconds.

    Notes
    -----
    The rule, and its numbers, are Spark's.

    Examples
    --------
    >>> from flowkit.testing.policies import executor, stage
    >>> failures = Failures(
    ...     0.0, executor(), stage(), of_stage=2, of_application=2, neighbours=2, excluded_neighbours=0, reason="OSError"
    ... )
    >>> FailureCounts(after=2).judge(failures)
    Exclusion(from_stage=True, from_application_s=0.0, host_s=0.0)
    """

    def __init__(self, *, after: int = 2, timeout_s: float = 3600.0) -> None:
        if not after > 0:
            raise ConfigError(f"after = {after!r}: must be above 0", setting="after", value=after)
        check_seconds("timeout_s", timeout_s)
        self._after, self._timeout_s = after, timeout_s

    def __repr__(self) -> str:
        return f"FailureCounts(after={self._after}, timeout_s={self._timeout_s:g})"

    def judge(self, failures: Failures) -> Exclusion:
        """By the counts alone."""
        whole = failures.of_application >= 2 * self._after
        host = whole and failures.excluded_neighbours + 1 >= self._after
        return Exclusion(failures.of_stage >= self._after, self._timeout_s if whole else 0.0, self._timeout_s if host else 0.0)
