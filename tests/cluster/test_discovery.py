"""Workers on which flowkit cannot start, as when named resources cannot be found: drivers hear which and why, at the start and later."""

from __future__ import annotations

from pathlib import Path

import pytest
from distributed import LocalCluster

import flowkit as fk
from flowkit.errors import ClusterError, ExecutorsLost

pytestmark = pytest.mark.cluster


def gpus(broken: Path):
    def found():
        if broken.exists():
            raise OSError("the driver of the GPUs does not answer")
        return ["0"]

    return found


WHY = r"could not start on \S+://\S+: ConfigError: resources\['gpu'\]: OSError: the driver of the GPUs does not answer$"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("processes", [True, False], ids=["processes", "threads"])
def test_a_worker_whose_resources_cannot_be_found_fails_the_start_with_the_reason(tmp_path, processes):
    (tmp_path / "broken").touch()
    with pytest.raises(ClusterError, match=WHY):
        fk.Context(workers=1, processes=processes, progress="off", resources={"gpu": gpus(tmp_path / "broken")})


@pytest.mark.timeout(60)
def test_a_worker_that_joins_and_whose_resources_cannot_be_found_is_named_by_the_job_that_waits_for_it(tmp_path):
    (tmp_path / "broken").touch()
    settings = {"no_executor_timeout_s": 5.0, "resources": {"GPU": gpus(tmp_path / "broken")}}
    with (
        LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=":0") as cluster,
        fk.Context(cluster, progress="off", **settings) as fc,
    ):
        job = fc.range(3, num_partitions=2).count_async()
        cluster.scale(1)
        with pytest.raises(ExecutorsLost, match=WHY):
            job.result(30)
        with pytest.raises(ClusterError, match=WHY):
            fc.range(3).count()
        (tmp_path / "broken").unlink()
        cluster.scale(2)  # the first stays as it is, of use to Dask alone
        assert fc.range(3, num_partitions=2).with_resources(gpu=1).count() == 3


@pytest.mark.timeout(60)
def test_a_worker_that_lacks_what_a_setting_names_is_named_with_what_it_has():
    with (
        LocalCluster(n_workers=1, processes=False, threads_per_worker=1, dashboard_address=":0") as cluster,
        pytest.raises(
            ClusterError, match=r"could not start on \S+: ConfigError: memory_manager = 'endless'.*unified \(built in\)"
        ),
    ):
        fk.Context(cluster, progress="off", memory_manager="endless")
