"""The same by ``multiprocessing``, each pipeline inlined into one loop: what a compiler of pipelines would aim at."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import platform

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


def one_loop(span):
    total = 0
    for x in range(*span):
        y = x * 3
        if y % 2 == 0:
            total += y + 1
    return total


def count_words(part):
    path, start, end = part
    counts = {}
    with open(path, "rb") as file:
        if start:
            file.seek(start - 1)
            file.readline()
        position = file.tell()
        while position < end:
            for line in file.readlines(min(1 << 20, end - position)):
                for word in line.decode().split():
                    counts[word] = counts.get(word, 0) + 1
            position = file.tell()
    return counts


def startup(pool, setting):
    return sum(pool.map(sum_span, spans(100, setting.cores), chunksize=1))


def map_(pool, setting):
    return sum(pool.map(one_loop, spans(setting.sizes.integers, setting.partitions), chunksize=1))


def words(pool, setting):
    parts = [(setting.text, *span) for span in spans(os.path.getsize(setting.text), setting.partitions)]
    counts = {}
    for part in pool.imap_unordered(count_words, parts):
        if not counts:
            counts = part
        else:
            for word, count in part.items():
                counts[word] = counts.get(word, 0) + count
    return sorted(counts.items(), key=lambda entry: (entry[1], entry[0]), reverse=True)[:100]


RUNS = {"startup": startup, "map": map_, "words": words}

if __name__ == "__main__":
    serve(open_session, RUNS, versions)
