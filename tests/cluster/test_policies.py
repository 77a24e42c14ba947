"""The scheduler's process finds the policy that a driver's settings name."""

from __future__ import annotations

from pathlib import Path

import pytest

import flowkit as fk
from flowkit.errors import ConfigError

pytestmark = pytest.mark.cluster

LAST_FIRST = """
asked = 0

class LastFirst:
    def order(self, candidates):
        global asked
        asked += 1
        return sorted(candidates, key=lambda each: -each.job)
"""


def test_a_policy_of_an_installed_package_orders_the_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    metadata = tmp_path / "last_first-1.0.dist-info"
    metadata.mkdir()
    (tmp_path / "last_first.py").write_text(LAST_FIRST)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: last_first\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[flowkit.scheduling_policies]\nlast_first = last_first:LastFirst\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with fk.Context(workers=1, progress="off", scheduling_policy="last_first") as fc:
        left, right = (fc.range(10, num_partitions=4).map(lambda i: (i % 3, i)) for _ in range(2))
        assert sorted(left.join(right, num_partitions=2).keys().distinct().collect()) == [0, 1, 2]
    import last_first

    assert last_first.asked > 0


def test_a_name_that_nobody_offers_is_refused_with_those_that_are():
    with pytest.raises(ConfigError, match=r"'tombola'.*fifo \(built in\)"):
        fk.Context(workers=1, progress="off", scheduling_policy="tombola")
