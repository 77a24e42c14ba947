"""Fuzzers: hostile messages, files, settings and names. Each is bounded in time, says its seed when it fails, and has an oracle.

``ATTACK_S`` is how many seconds each test goes on (5), ``ATTACK_SEED`` the seed to repeat (random), which fixes what each round does: the
rounds of a run are numbered, and round ``n`` of seed ``s`` is always the same.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from random import Random

import psutil
import pytest

SECONDS = float(os.environ.get("ATTACK_S", "5"))
SEED = int(os.environ.get("ATTACK_SEED") or int.from_bytes(os.urandom(4), "big"))
MOST_GROWTH_BYTES = 300 << 20
"""Of this process in one round: more means that somebody believed a number."""


def pytest_report_header() -> str:
    """Say how to repeat the run."""
    return f"attack: {SECONDS:g} s each, repeat with: ATTACK_SEED={SEED}"


Round = Callable[[Random], None]


@pytest.fixture
def attack(request: pytest.FixtureRequest) -> Callable[[Round], int]:
    """Call it with one round's function: it is called with another generator each time until the time is over; returns how often."""

    def run(one: Round, *, least: int = 3) -> int:
        process = psutil.Process()
        until, number = time.monotonic() + SECONDS, int(os.environ.get("ATTACK_ROUND", "0"))
        rounds = 0
        while rounds < least or time.monotonic() < until:
            before = process.memory_info().rss
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            try:
                one(Random(f"{SEED}/{request.node.name}/{number}"))
                grown = max(process.memory_info().rss - before, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) << 10)
                assert grown < MOST_GROWTH_BYTES, f"this round took {grown >> 20} MB"
            except BaseException as error:
                error.add_note(f"repeat with: ATTACK_SEED={SEED} ATTACK_ROUND={number} pytest '{request.node.nodeid}'")
                raise
            number += 1
            rounds += 1
            if "ATTACK_ROUND" in os.environ:
                break
        return rounds

    return run
