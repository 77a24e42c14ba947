"""Ray's tasks, for what is about tasks: its data frames are another comparison."""

from __future__ import annotations

import contextlib
import itertools
import os

from serving import serve

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


@contextlib.contextmanager
def open_session(setting):
    import ray

    ray.init(num_cpus=setting.cores, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        yield {
            "nothing": ray.remote(lambda _: None),
            "increment": ray.remote(lambda x: x + 1),
            "sum": ray.remote(lambda a, b: sum(range(a, b))),
        }
    finally:
        ray.shutdown()


def versions():
    import ray

    return {"ray": ray.__version__}


def startup(remote, setting):
    import ray

    bounds = [100 * each // setting.cores for each in range(setting.cores + 1)]
    return sum(ray.get([remote["sum"].remote(a, b) for a, b in itertools.pairwise(bounds)]))


def noop(remote, setting):
    import ray

    tasks = setting.sizes.tasks
    ray.get([remote["nothing"].remote(each) for each in range(tasks)])
    return tasks


def small(remote, setting):
    import ray

    return ray.get([remote["increment"].remote(each) for each in range(setting.sizes.small_tasks)])


RUNS = {"startup": startup, "noop": noop, "small": small}

if __name__ == "__main__":
    serve(open_session, RUNS, versions)
