"""Every workload on flowkit: an embedded context, events on, a listener that counts them."""

from __future__ import annotations

import contextlib
import itertools
from operator import add, itemgetter

from serving import serve

import flowkit as fk


class Counter:
    """Hears every event, as a user's listener would."""

    def __init__(self):
        self.events = 0

    def on_event(self, event):
        self.events += 1


@contextlib.contextmanager
def open_session(setting):
    with fk.Context(workers=setting.cores, config=fk.Config(progress="off")) as fc:
        fc.add_listener(Counter())
        yield fc


def versions():
    import dask
    import distributed

    return {"flowkit": fk.__version__, "dask": dask.__version__, "distributed": distributed.__version__}


def startup(fc, setting):
    return fc.range(100, num_partitions=setting.cores).sum()


def noop(fc, setting):
    tasks = setting.sizes.tasks
    fc.range(tasks, num_partitions=tasks).foreach(lambda _: None)
    return tasks


def small(fc, setting):
    tasks = setting.sizes.small_tasks
    return fc.parallelize(range(tasks), tasks).map(lambda x: x + 1).collect()


def map_(fc, setting):
    numbers = fc.range(setting.sizes.integers, num_partitions=setting.partitions)
    return numbers.map(lambda x: x * 3).filter(lambda x: x % 2 == 0).map(lambda x: x + 1).sum()


def words(fc, setting):
    counts = (
        fc.text_file(setting.text, setting.partitions)
        .flat_map(lambda line: line.split())
        .map(lambda word: (word, 1))
        .reduce_by_key(add, setting.partitions)
    )
    return counts.top(100, key=lambda entry: (entry[1], entry[0]))


def _pairs(fc, setting):
    keys = setting.sizes.keys
    return fc.range(setting.sizes.pairs, num_partitions=setting.partitions).map(lambda i: (i * 2654435761 % 4294967296 % keys, i))


def group(fc, setting):
    groups = _pairs(fc, setting).group_by_key(setting.partitions)
    return groups.map(lambda entry: len(entry[1]) * (entry[0] % 97)).sum()


def sort(fc, setting):
    pairs = fc.range(setting.sizes.pairs, num_partitions=setting.partitions).map(lambda i: (i * 2654435761 % 4294967296 >> 8, i))

    def ends(rows):
        keys = [key for key, _ in rows]
        return [(keys[0], keys[-1], len(keys), keys == sorted(keys))] if keys else []

    parts = pairs.sort_by_key(num_partitions=setting.partitions).map_partitions(ends).collect()
    ordered = all(part[3] for part in parts) and all(a[1] <= b[0] for a, b in itertools.pairwise(parts))
    return [parts[0][0], parts[-1][1], sum(part[2] for part in parts), ordered]


def join(fc, setting):
    right = fc.range(setting.sizes.keys, num_partitions=setting.partitions).map(lambda key: (key, key * 3))
    joined = _pairs(fc, setting).join(right, setting.partitions)
    return joined.map(lambda entry: (entry[1][0] + entry[1][1]) % 1000).sum()


def pagerank(fc, setting):
    nodes, links_each = setting.sizes.nodes, setting.sizes.links

    def edges(node):
        return [(node, (node * 2654435761 + j * 40503) % 4294967296 % nodes) for j in range(links_each)]

    def hand_on(entry):
        targets, rank = entry[1]
        share = rank / len(targets)
        return [(target, share) for target in targets]

    links = (
        fc.range(nodes, num_partitions=setting.partitions)
        .flat_map(edges)
        .group_by_key(setting.partitions)
        .map_values(list)
        .cache()
    )
    ranks = links.map_values(lambda _: 1.0)
    for _ in range(setting.sizes.rounds):
        shares = links.join(ranks, setting.partitions).flat_map(hand_on)
        ranks = shares.reduce_by_key(add, setting.partitions).map_values(lambda received: 0.15 + 0.85 * received)
    leaders = ranks.top(10, key=itemgetter(1))
    links.unpersist()
    return [round(rank, 4) for _, rank in leaders]


RUNS = {
    "startup": startup,
    "noop": noop,
    "small": small,
    "map": map_,
    "words": words,
    "group": group,
    "sort": sort,
    "join": join,
    "pagerank": pagerank,
}

if __name__ == "__main__":
    serve(open_session, RUNS, versions)
