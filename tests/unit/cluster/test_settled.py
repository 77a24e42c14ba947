"""What a later driver asked for and does not get is told, and nothing else."""

from __future__ import annotations

from flowkit import Config, Fair
from flowkit.cluster.settled import differences, settled
from flowkit.config import settings_of


class Plain:
    def order(self, candidates):
        return candidates


def test_only_what_was_asked_for_and_differs_is_told():
    first = settled(Config(scheduling_policy="fair", pools={"adhoc": 2}, speculation=True))
    assert differences(Config(), first) == ""
    assert differences(Config(pools={"adhoc": 2}, progress="off", event_log="there"), first) == ""
    told = differences(Config(pools={"adhoc": 3}, scheduling_policy="priority"), first)
    assert told == "scheduling_policy = 'priority' (it has 'fair'), pools = {'adhoc': 3} (it has {'adhoc': 2})"


def test_objects_are_told_by_their_own_repr_or_by_their_class():
    first = settled(
        Config(scheduling_policy=Fair({"adhoc": 2}), resources={"gpu": test_only_what_was_asked_for_and_differs_is_told})
    )
    assert first["scheduling_policy"] == "Fair(adhoc)"
    assert first["resources"] == "{'gpu': test_only_what_was_asked_for_and_differs_is_told}"
    assert differences(Config(scheduling_policy=Plain()), first) == "scheduling_policy = Plain (it has Fair(adhoc))"
    assert differences(Config(scheduling_policy=Plain()), settled(Config(scheduling_policy=Plain()))) == ""


def test_a_setting_says_where_it_is_declared_whether_each_driver_has_its_own():
    scopes = {each.name: each.metadata["scope"] for each in settings_of(Config)}
    assert set(scopes.values()) == {"cluster", "driver"}
    assert set(settled(Config())) == {name for name, scope in scopes.items() if scope == "cluster"}
    assert {name for name, scope in scopes.items() if scope == "driver"} >= {"progress", "event_log", "default_parallelism"}
