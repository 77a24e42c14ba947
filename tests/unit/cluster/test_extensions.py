"""Policies by name, from packages that are installed for the length of a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowkit.cluster.embedded import EmbeddedCluster
from flowkit.cluster.extensions import with_policies
from flowkit.config import Config
from flowkit.errors import ConfigError

POLICIES = "flowkit.scheduling_policies"

LOTTERY = """
class Lottery:
    def order(self, candidates):
        return list(candidates)[::-1]

def broken():
    raise OSError("no tickets")
"""


def scheduling_policy(name: str):
    return with_policies(Config(scheduling_policy=name)).scheduling_policy


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def install(package: str, **policies: str) -> None:
        place = tmp_path / package
        metadata = place / f"{package}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (place / f"{package}.py").write_text(LOTTERY)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {package}:{attribute}" for name, attribute in policies.items()]
        (metadata / "entry_points.txt").write_text("\n".join([f"[{POLICIES}]", *lines, ""]))
        monkeypatch.syspath_prepend(str(place))

    return install


def test_flowkits_own_policy_needs_no_package():
    assert scheduling_policy("fifo") == "fifo"  # the core knows it


def test_a_policy_of_an_installed_package_is_found_by_its_name(install):
    install("lottery_one", lottery="Lottery")
    assert scheduling_policy("lottery").order([1, 2, 3]) == [3, 2, 1]


def test_an_unknown_name_is_told_with_all_that_are_installed(install):
    install("lottery_two", lottery="Lottery", raffle="Lottery")
    with pytest.raises(ConfigError) as caught:
        scheduling_policy("tombola")
    told = str(caught.value)
    for part in ("'tombola'", "fifo (built in)", "lottery (lottery_two:Lottery of lottery_two)", "raffle", POLICIES):
        assert part in told
    assert caught.value.setting == "scheduling_policy"


@pytest.mark.parametrize(
    "setting", ["scheduling_policy", "placement", "topology", "speculation", "exclude_failing", "allocation"]
)
def test_an_embedded_cluster_with_an_unknown_name_is_refused_before_anything_is_started(setting):
    with pytest.raises(ConfigError, match=f"{setting} = 'tombola'"):
        EmbeddedCluster(1, config=Config(**{setting: "tombola"}))


def test_a_name_that_two_packages_offer_is_refused(install):
    install("lottery_three", lottery="Lottery")
    install("lottery_four", lottery="Lottery")
    with pytest.raises(ConfigError, match=r"more than once: lottery_four:Lottery .*; lottery_three:Lottery"):
        scheduling_policy("lottery")


@pytest.mark.parametrize(("attribute", "told"), [("broken", "OSError: no tickets"), ("nothing", "has no attribute 'nothing'")])
def test_a_policy_that_cannot_be_made_is_told_with_whose_it_is(install, attribute, told):
    install(f"lottery_{attribute}", lottery=attribute)
    with pytest.raises(ConfigError, match=told) as caught:
        scheduling_policy("lottery")
    assert f"of lottery_{attribute}" in str(caught.value)
    assert caught.value.__cause__ is not None


def test_what_is_no_policy_is_refused(install, monkeypatch):
    install("lottery_five", lottery="Lottery")
    import lottery_five

    monkeypatch.delattr(lottery_five.Lottery, "order")
    with pytest.raises(ConfigError, match="no method order"):
        scheduling_policy("lottery")
