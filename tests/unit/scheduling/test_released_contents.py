"""Contents that a driver refers to no more are deleted once a host, and forgotten."""

from __future__ import annotations

from flowkit.model.ids import ContentId
from flowkit.scheduling import actions as act
from flowkit.scheduling import stimuli as sti
from flowkit.simulation.cluster import SimulatedCluster
from flowkit.simulation.jobs import job, large_content, result_stage


def test_released_contents_are_deleted_by_one_executor_of_each_host() -> None:
    cluster = SimulatedCluster()
    cluster.keep_actions = True
    for host in ("north", "north", "south"):
        cluster.add_executor(host)
    app = cluster.open_application("app")
    cluster.run()
    cluster.actions.clear()
    contents = (ContentId("a" * 64), ContentId("b" * 64))
    cluster.tell(sti.ContentsReleased(app, contents))
    cluster.run()
    drops = [action for action in cluster.actions if isinstance(action, act.DropContents)]
    assert [(drop.app, drop.contents) for drop in drops] == [(app, contents)] * 2
    hosts = {cluster.executors[drop.executor].host.token for drop in drops}
    assert len(hosts) == 2


def test_contents_of_an_application_that_is_gone_are_nobodys_business() -> None:
    cluster = SimulatedCluster()
    cluster.add_executor("north")
    app = cluster.open_application("app")
    cluster.close_application(app)
    cluster.run()
    cluster.tell(sti.ContentsReleased(app, (ContentId("a" * 64),)))
    cluster.run()
    cluster.core.assert_empty()


def test_a_host_that_fetched_content_is_asked_for_it_when_the_first_one_is_gone() -> None:
    cluster = SimulatedCluster()
    first, second = cluster.add_executor("north"), cluster.add_executor("south")
    app = cluster.open_application("app")
    content = large_content(1, cluster.executors[first].host.token)
    cluster.submit(job(app, 0, result_stage(0, 4, program=content)))
    cluster.run()
    cluster.tell(sti.ContentFetched(second, app, content.id))
    cluster.run()
    cluster.kill_executor(first)
    cluster.keep_actions = True
    later = cluster.submit(job(app, 1, result_stage(1, 4, program=content)))
    cluster.run()
    assert later.succeeded
    assert not [action for action in cluster.actions if isinstance(action, act.RequestContent)]
    definitions = [action for action in cluster.actions if isinstance(action, act.DefineStage)]
    assert definitions[-1].definition.content_holders[content.id]


def test_news_of_content_that_was_released_meanwhile_are_stale() -> None:
    cluster = SimulatedCluster()
    executor = cluster.add_executor("north")
    app = cluster.open_application("app")
    cluster.tell(sti.ContentFetched(executor, app, ContentId("a" * 64)))
    cluster.run()
    cluster.close_application(app)
    cluster.run()
    cluster.core.assert_empty()
