"""What a driver raises for a job that ended without a result.

Runs in the driver.
"""

from __future__ import annotations

from flowkit import errors
from flowkit.scheduling.actions import JobFailed


def outcome_error(outcome: JobFailed) -> BaseException:
    """The user's own exception where there is one, else the error the scheduler named."""
    kind = getattr(errors, outcome.kind, errors.JobFailed)
    return kind(outcome.reason, job=outcome.job, **outcome.where)
