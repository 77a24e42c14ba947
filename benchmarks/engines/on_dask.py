"""What dask.bag and Dask's futures can do of the workloads: it has no sort and no join of two large bags."""

from __future__ import annotations

import contextlib
import itertools

from serving import serve


@contextlib.contextmanager
def open_session(setting):
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=setting.cores, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


def versions():
    import dask
    import distributed

    return {"dask": dask.__version__, "distributed": distributed.__version__}


def _range(count, partitions):
    import dask.bag as db

    bounds = [count * each // partitions for each in range(partitions + 1)]
    spans = list(itertools.pairwise(bounds))
    return db.from_sequence(spans, npartitions=partitions).map_partitions(lambda part: (i for a, b in part for i in range(a, b)))


def startup(client, setting):
    return _range(100, setting.cores).sum().compute()


def noop(client, setting):
    tasks = setting.sizes.tasks
    client.gather(client.map(lambda _: None, range(tasks), pure=False))
    return tasks


def small(client, setting):
    import dask.bag as db

    tasks = setting.sizes.small_tasks
    return list(db.from_sequence(range(tasks), npartitions=tasks).map(lambda x: x + 1).compute())


def map_(client, setting):
    numbers = _range(setting.sizes.integers, setting.partitions)
    return int(numbers.map(lambda x: x * 3).filter(lambda x: x % 2 == 0).map(lambda x: x + 1).sum().compute())


def words(client, setting):
    import dask.bag as db

    lines = db.read_text(setting.text, blocksize=setting.sizes.text_bytes // setting.partitions + 1)
    counts = lines.map(lambda line: line.split()).flatten().frequencies()
    return [list(entry) for entry in counts.topk(100, key=lambda entry: (entry[1], entry[0])).compute()]


def group(client, setting):
    keys = setting.sizes.keys
    pairs = _range(setting.sizes.pairs, setting.partitions).map(lambda i: (i * 2654435761 % 4294967296 % keys, i))
    groups = pairs.groupby(lambda pair: pair[0])
    return int(groups.map(lambda entry: len(entry[1]) * (entry[0] % 97)).sum().compute())


RUNS = {"startup": startup, "noop": noop, "small": small, "map": map_, "words": words, "group": group}

if __name__ == "__main__":
    serve(open_session, RUNS, versions)
