"""What one would write with ``multiprocessing`` alone: the same functions called by ``map`` and ``filter``, merged by hand."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import platform
from collections import Counter

from serving import serve


@contextlib.contextmanager
def open_session(setting):
    with multiprocessing.get_context("fork").Pool(setting.cores) as pool:
        yield pool


def versions():
    return {"python": platform.python_version()}


def spans(count, partitions):
    bounds = [count * each // partitions for each in range(partitions + 1)]
    return list(itertools.pairwise(bounds))


def sum_span(span):
    return sum(range(*span))


def nothing(_):
    return None


def increment(x):
    return x + 1


def map_filter_map(span):
    numbers = map(lambda x: x * 3, range(*span))
    return sum(map(lambda x: x + 1, filter(lambda x: x % 2 == 0, numbers)))


def lines_of(path, start, end):
    """The lines that begin in ``[start, end)``."""
    with open(path, "rb") as file:
        if start:
            file.seek(start - 1)
            file.readline()
        while file.tell() < end:
            yield from (line.decode() for line in file.readlines(min(1 << 20, end - file.tell())))


def count_words(part):
    counts = Counter()
    counts.update(itertools.chain.from_iterable(map(lambda line: line.split(), lines_of(*part))))
    return counts


def startup(pool, setting):
    return sum(pool.map(sum_span, spans(100, setting.cores), chunksize=1))


def noop(pool, setting):
    pool.map(nothing, range(setting.sizes.tasks), chunksize=1)
    return setting.sizes.tasks


def small(pool, setting):
    return pool.map(increment, range(setting.sizes.small_tasks), chunksize=1)


def map_(pool, setting):
    return sum(pool.map(map_filter_map, spans(setting.sizes.integers, setting.partitions), chunksize=1))


def words(pool, setting, count=count_words):
    parts = [(setting.text, *span) for span in spans(os.path.getsize(setting.text), setting.partitions)]
    counts = Counter()
    for part in pool.imap_unordered(count, parts):
        counts.update(part)
    return sorted(counts.items(), key=lambda entry: (entry[1], entry[0]), reverse=True)[:100]


RUNS = {"startup": startup, "noop": noop, "small": small, "map": map_, "words": words}

if __name__ == "__main__":
    serve(open_session, RUNS, versions)
