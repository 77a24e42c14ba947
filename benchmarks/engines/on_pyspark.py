"""Every workload on PySpark, local mode, as its documentation would write it; numbers of partitions given where it matters."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from operator import add, itemgetter

from serving import serve

os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")


@contextlib.contextmanager
def open_session(setting):
    from pyspark import SparkConf, SparkContext

    conf = (
        SparkConf()
        .setMaster(f"local[{setting.cores}]")
        .set("spark.ui.enabled", "false")
        .set("spark.driver.memory", "4g")
        .set("spark.ui.showConsoleProgress", "false")
    )
    sc = SparkContext(conf=conf)
    sc.setLogLevel("ERROR")
    try:
        yield sc
    finally:
        sc.stop()


def versions():
    import pyspark

    return {"pyspark": pyspark.__version__}


def startup(sc, setting):
    return sc.range(100, numSlices=setting.cores).sum()


def noop(sc, setting):
    tasks = setting.sizes.tasks
    sc.parallelize(range(tasks), tasks).foreach(lambda _: None)
    return tasks


def small(sc, setting):
    tasks = setting.sizes.small_tasks
    return sc.parallelize(range(tasks), tasks).map(lambda x: x + 1).collect()


def map_(sc, setting):
    numbers = sc.range(setting.sizes.integers, numSlices=setting.partitions)
    return numbers.map(lambda x: x * 3).filter(lambda x: x % 2 == 0).map(lambda x: x + 1).sum()


def words(sc, setting):
    counts = (
        sc.textFile(setting.text, setting.partitions)
        .flatMap(lambda line: line.split())
        .map(lambda word: (word, 1))
        .reduceByKey(add, setting.partitions)
    )
    return counts.top(100, key=lambda entry: (entry[1], entry[0]))


def _pairs(sc, setting):
    keys = setting.sizes.keys
    return sc.range(setting.sizes.pairs, numSlices=setting.partitions).map(lambda i: (i * 2654435761 % 4294967296 % keys, i))


def group(sc, setting):
    groups = _pairs(sc, setting).groupByKey(setting.partitions)
    return groups.map(lambda entry: len(entry[1]) * (entry[0] % 97)).sum()


def sort(sc, setting):
    pairs = sc.range(setting.sizes.pairs, numSlices=setting.partitions).map(lambda i: (i * 2654435761 % 4294967296 >> 8, i))

    def ends(rows):
        keys = [key for key, _ in rows]
        return [(keys[0], keys[-1], len(keys), keys == sorted(keys))] if keys else []

    parts = pairs.sortByKey(numPartitions=setting.partitions).mapPartitions(ends).collect()
    ordered = all(part[3] for part in parts) and all(a[1] <= b[0] for a, b in itertools.pairwise(parts))
    return [parts[0][0], parts[-1][1], sum(part[2] for part in parts), ordered]


def join(sc, setting):
    right = sc.range(setting.sizes.keys, numSlices=setting.partitions).map(lambda key: (key, key * 3))
    joined = _pairs(sc, setting).join(right, setting.partitions)
    return joined.map(lambda entry: (entry[1][0] + entry[1][1]) % 1000).sum()


def pagerank(sc, setting):
    nodes, links_each = setting.sizes.nodes, setting.sizes.links

    def edges(node):
        return [(node, (node * 2654435761 + j * 40503) % 4294967296 % nodes) for j in range(links_each)]

    def hand_on(entry):
        targets, rank = entry[1]
        share = rank / len(targets)
        return [(target, share) for target in targets]

    links = sc.range(nodes, numSlices=setting.partitions).flatMap(edges).groupByKey(setting.partitions).mapValues(list).cache()
    ranks = links.mapValues(lambda _: 1.0)
    for _ in range(setting.sizes.rounds):
        shares = links.join(ranks, setting.partitions).flatMap(hand_on)
        ranks = shares.reduceByKey(add, setting.partitions).mapValues(lambda received: 0.15 + 0.85 * received)
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
