"""Tests that every policy must pass, yours too, and views to ask policies with.

Runs in tests. Raises ``AssertionError`` that says which rule was broken. Policies are asked with many stages and executors, drawn from a seed.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Any, TypeVar

from flowkit.abc import (
    Allocation,
    AllocationPolicy,
    Demand,
    Exclusion,
    Failures,
    HealthPolicy,
    IdleExecutor,
    Near,
    PlacementPolicy,
    Preferred,
    RestrictingPolicy,
    SchedulingPolicy,
    Share,
    SharingPolicy,
    SpeculationPolicy,
    StageProgress,
)
from flowkit.lineage import pickling
from flowkit.model.ids import AppId, ExecutorId, HostToken
from flowkit.scheduling.asking import is_seconds
from flowkit.scheduling.policies.pools import POOL

_T = TypeVar("_T")

#: how often each is asked
_ROUNDS = 200


@dataclass(frozen=True, slots=True)
class Stage:
    """An ``abc.TaskSetView``; make one with ``stage``."""

    app: AppId
    job: int
    stage: int
    pending_count: int
    running_count: int
    properties: dict[str, str] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Executor:
    """An ``abc.ExecutorView``; make one with ``executor``."""

    id: ExecutorId
    host: HostToken
    host_names: tuple[str, ...]
    rack: str
    slots: int


def stage(
    *,
    app: str = "app",
    job: int = 0,
    stage: int = 0,
    pending: int = 10,
    running: int = 0,
    properties: dict[str, str] | None = None,
) -> Stage:
    """A stage to ask a policy about: ``pending`` tasks wait, ``running`` are under way.

    >>> stage(pending=3, properties={"pool": "adhoc"}).pending_count
    3
    """
    return Stage(AppId(app), job, stage, pending, running, properties or {})


def executor(name: str = "tcp://host:1#1", *, host: str = "host", rack: str = "", slots: int = 2) -> Executor:
    """An executor to ask a policy about.

    >>> executor(host="gpu-7").host_names
    ('gpu-7',)
    """
    return Executor(ExecutorId(name), HostToken(host), (host,), rack, slots)


def check_scheduling_policy(policy: SchedulingPolicy, *, pools: Sequence[str] = ("adhoc", "batch"), seed: int = 0) -> None:
    """Hold a policy to what ``abc.SchedulingPolicy`` asks, and ``abc.SharingPolicy`` where it shares.

    Parameters
    ----------
    pools
        Names of pools in which the stages are that it is asked about.

    Raises
    ------
    AssertionError
        Which rule is broken.

    Examples
    --------
    >>> from flowkit import Fair
    >>> check_scheduling_policy(Fair({"adhoc": 2, "batch": 1}))
    """
    chance, policy = Random(seed), _sent(policy)
    for _ in range(_ROUNDS):
        stages = [_some_stage(chance, number, pools) for number in range(chance.randrange(1, 8))]
        ordered = _twice("order", stages, lambda stages=stages: list(policy.order(list(stages))))  # type: ignore[misc]
        assert sorted(map(id, ordered)) == sorted(map(id, stages)), "order gave others than it was given, or left some out"
        if isinstance(policy, SharingPolicy):
            slots = chance.randrange(1, 50)
            shares = _twice("shares", stages, lambda stages=stages, slots=slots: list(policy.shares(list(stages), slots)))  # type: ignore[misc]
            assert len(shares) == len(stages), f"shares gave {len(shares)} for {len(stages)} stages"
            for each in shares:
                assert isinstance(each, Share), f"shares gave {each!r}, not a Share"
                assert each.claim >= 0, f"{each}: claim must not be below 0"
                assert each.most is None or each.most >= 0, f"{each}: most must not be below 0"
            waits = any(each.pending_count for each in stages) and not any(each.running_count for each in stages)
            could = any(share.most != 0 for share, each in zip(shares, stages, strict=True) if each.pending_count)
            assert could or not waits, "nothing runs, and nobody may start anything: the cluster stands still"


def check_placement_policy(policy: PlacementPolicy, *, seed: int = 0) -> None:
    """Hold a policy to what ``abc.PlacementPolicy`` asks; see ``check_scheduling_policy``.

    >>> from flowkit import DelayScheduling
    >>> check_placement_policy(DelayScheduling(0.5))
    """
    chance, policy = Random(seed), _sent(policy)
    for number in range(_ROUNDS):
        asked = _some_stage(chance, number, ("adhoc", "batch"))
        waits = _twice("waits", [asked], lambda asked=asked: policy.waits(asked))  # type: ignore[misc]
        assert all(is_seconds(each, below=inf) for each in waits), f"waits gave {waits!r}"
        executors = [executor(f"tcp://h{each % 3}:{each}#1", host=f"h{each % 3}", rack=f"r{each % 2}") for each in range(6)]
        held = chance.sample(executors, chance.randrange(4))
        near = Near(
            [each.id for each in held],
            dict.fromkeys(each.host for each in held),
            {HostToken(f"h{chance.randrange(3)}"): None} if chance.random() < 0.5 else (),
            [HostToken("h1")] if chance.random() < 0.5 else (),
        )
        found = _twice("prefer", [asked, near], lambda asked=asked, near=near: policy.prefer(asked, 3, near))  # type: ignore[misc]
        assert type(found) is Preferred, f"prefer gave {found!r}, not a Preferred"
        if isinstance(policy, RestrictingPolicy):
            for each in executors:
                allowed = _twice("allows", [asked, each], lambda asked=asked, each=each: policy.allows(asked, each))  # type: ignore[misc]
                assert isinstance(allowed, bool), f"allows gave {allowed!r}, not True or False"


def check_speculation_policy(policy: SpeculationPolicy, *, seed: int = 0) -> None:
    """Hold a policy to what ``abc.SpeculationPolicy`` asks; see ``check_scheduling_policy``.

    >>> from flowkit import SlowerThanMedian
    >>> check_speculation_policy(SlowerThanMedian())
    """
    chance, policy = Random(seed), _sent(policy)
    for number in range(_ROUNDS):
        total = chance.randrange(1, 100)
        done = chance.randrange(total)
        durations = sorted(chance.expovariate(1.0) for _ in range(done))
        progress = StageProgress(_some_stage(chance, number, ("adhoc",)), done, total, durations)
        found = _twice("slow_after", [progress], lambda progress=progress: policy.slow_after(progress))  # type: ignore[misc]
        assert found is None or is_seconds(found), f"slow_after gave {found!r}, neither seconds nor None"


def check_health_policy(policy: HealthPolicy, *, seed: int = 0) -> None:
    """Hold a policy to what ``abc.HealthPolicy`` asks; see ``check_scheduling_policy``.

    >>> from flowkit import FailureCounts
    >>> check_health_policy(FailureCounts(after=3))
    """
    chance, policy = Random(seed), _sent(policy)
    for number in range(_ROUNDS):
        of_stage, neighbours = chance.randrange(1, 6), chance.randrange(1, 5)
        failures = Failures(
            float(number),
            executor(),
            _some_stage(chance, number, ("adhoc",)),
            of_stage,
            of_stage + chance.randrange(5),
            neighbours,
            chance.randrange(neighbours),
            "OSError: no",
        )
        found = _twice("judge", [failures], lambda failures=failures: policy.judge(failures))  # type: ignore[misc]
        assert type(found) is Exclusion, f"judge gave {found!r}, not an Exclusion"
        assert is_seconds(found.from_application_s), f"{found}: must be seconds"
        assert is_seconds(found.host_s), f"{found}: must be seconds"


def check_allocation_policy(policy: AllocationPolicy, *, seed: int = 0) -> None:
    """Hold a policy to what ``abc.AllocationPolicy`` asks: an hour of a cluster's life in which work comes and goes.

    >>> from flowkit import Backlog
    >>> check_allocation_policy(Backlog())
    """
    chance, policy = Random(seed), _sent(policy)
    target, now, waiting = 1, 0.0, 0
    for _ in range(_ROUNDS):
        now += chance.expovariate(1 / 20)
        waiting = chance.choice([0, 0, waiting, chance.randrange(100)])
        idle = [
            IdleExecutor(ExecutorId(f"e{each}"), chance.random() * 600, chance.random() < 0.3)
            for each in range(0 if waiting else chance.randrange(target + 1))
        ]
        demand = Demand(now, target, target, waiting, 2 * (target - len(idle)), 2, 1, 20, tuple(idle))
        found = policy.look(demand)
        assert type(found) is Allocation, f"look gave {found!r}, not an Allocation"
        assert type(found.target) is int, f"{found}: target must be a whole number"
        assert found.target >= 0, f"{found}: target must not be below 0"
        assert set(found.leave) <= {each.executor for each in idle}, f"{found}: executors that are not idle cannot leave"
        assert found.look_at is None or found.look_at > now, f"{found}: look_at has passed at {now}"
        target = min(20, max(1, found.target))


def _some_stage(chance: Random, number: int, pools: Sequence[str]) -> Stage:
    return stage(
        job=number // 2,
        stage=number,
        pending=chance.choice([0, 1, 10, 1_000]),
        running=chance.choice([0, 0, 1, 20]),
        properties={POOL: chance.choice(pools)} if chance.random() < 0.8 else {},
    )


def _sent(policy: _T) -> _T:
    """As it arrives where the scheduler runs."""
    arrived: _T = pickle.loads(pickling.dumps(policy))
    return arrived


def _twice(method: str, given: Sequence[Any], ask: Callable[[], _T]) -> _T:
    """Pure: the same answer twice, and what it was given is as it was."""
    before = repr(given)
    first, second = ask(), ask()
    assert first == second, f"{method} gave {first!r}, and {second!r} to the same question"
    assert repr(given) == before, f"{method} changed what it was given"
    return first
