"""What a driver raises for a job that ended without a result.

Runs in the driver.
"""

from __future__ import annotations

from flowkit import errors
from flowkit.execution.failure import raise_at_driver
from flowkit.model.task import ExceptionFailure
from flowkit.scheduling.actions import JobFailed
from flowkit.tracebacks import attributes_of

#: where it happened, on an exception of the user's own: taken off again before they see it
WHERE = "_flowkit_where"


def outcome_error(outcome: JobFailed) -> BaseException:
    """The user's own exception where a task raised one, else the error the scheduler named, with where it happened as data."""
    if isinstance(outcome.failure, ExceptionFailure):
        error = raise_at_driver(outcome.failure, story=outcome.reason)
        attributes_of(error)[WHERE] = outcome.where
        return error
    kind = getattr(errors, outcome.kind, None)
    if not (isinstance(kind, type) and issubclass(kind, errors.FlowkitError)):
        kind = errors.JobFailed
    told = {"story": outcome.where["story"]} if "story" in outcome.where else {}
    return kind(outcome.reason, job=outcome.job, failure=outcome.failure, where=outcome.where, **told)
