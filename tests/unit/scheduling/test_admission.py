"""One application may have so much under way; what is beyond is refused, and harms nothing else."""

from __future__ import annotations

from flowkit.config import Config
from flowkit.model.events import JobStart
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import expected, job, result_stage


def test_a_job_beyond_the_limit_is_refused_and_the_others_run() -> None:
    cluster = SimulatedCluster(Config(validate=True, max_active_jobs=2))
    cluster.add_executor()
    app, other = cluster.open_application("app"), cluster.open_application("other")
    jobs = [cluster.submit(job(app, number, result_stage(number, 3))) for number in range(3)]
    beside = cluster.submit(job(other, 0, result_stage(0, 3)))
    cluster.run()
    assert [each.numbers for each in (*jobs[:2], beside)] == [expected(each.spec) for each in (*jobs[:2], beside)]
    refused = jobs[2].failed
    assert refused is not None
    assert refused.kind == "TooManyJobs"
    assert "app has 2 jobs under way" in refused.reason
    assert "max_active_jobs = 2" in refused.reason
    assert sum(isinstance(event, JobStart) for event in cluster.events) == 3
    later = cluster.submit(job(app, 3, result_stage(3, 3)))
    cluster.run()
    assert later.succeeded


def test_tasks_are_limited_over_all_jobs_but_one_job_alone_may_have_more() -> None:
    cluster = SimulatedCluster(Config(validate=True, max_active_tasks=10))
    cluster.add_executor()
    app = cluster.open_application("app")
    large = cluster.submit(job(app, 0, result_stage(0, 11)))
    small = cluster.submit(job(app, 1, result_stage(1, 1)))
    cluster.run()
    assert large.succeeded
    assert small.failed is not None
    assert "max_active_tasks = 10" in small.failed.reason
    cluster.close_application(app)
    cluster.run()
    cluster.core.assert_empty()
