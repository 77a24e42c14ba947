"""A nanny tells how its worker's processes ended to whoever asks, before or after they did."""

from __future__ import annotations

import asyncio

from flowkit.cluster.nanny_plugin import EXITS_KEPT, Exits

WORKER = "tcp://host:1"


def exit_of(executor: str, code: int, *, record: bool = True) -> dict[str, object]:
    return {"worker": executor.partition("#")[0], "pid": None, "exit": code, "running": {executor: [7]} if record else {}}


def asked(*steps: dict[str, object] | str) -> list[dict[str, object] | None]:
    """What those heard that asked, in their order; None: nothing yet."""

    async def go() -> list[dict[str, object] | None]:
        exits, waiting = Exits(), []
        for step in steps:
            if isinstance(step, str):
                waiting.append(asyncio.ensure_future(exits.wait(step)))
            else:
                exits.add(step)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        answers = [each.result() if each.done() else None for each in waiting]
        for each in waiting:
            each.cancel()
        return answers

    return asyncio.run(go())


def test_who_asks_before_the_end_hears_it_then_and_who_asks_later_at_once():
    ended = exit_of(f"{WORKER}#a", -9)
    assert asked(f"{WORKER}#a", ended, f"{WORKER}#a") == [ended, ended]
    assert asked(f"{WORKER}#a") == [None]


def test_the_end_of_another_process_at_the_same_address_is_not_told():
    before, after = exit_of(f"{WORKER}#a", 0), exit_of(f"{WORKER}#b", -11)
    assert asked(before, f"{WORKER}#b") == [None]
    assert asked(before, f"{WORKER}#b", after) == [after]


def test_without_a_record_the_address_tells_whose_end_it_was():
    ended = exit_of(f"{WORKER}#a", -9, record=False)
    assert asked(f"{WORKER}#a", "tcp://host:2#a", ended) == [ended, None]


def test_only_the_last_ends_are_kept():
    first = exit_of(f"{WORKER}#first", 1)
    others = [exit_of(f"{WORKER}#{number}", 1) for number in range(EXITS_KEPT)]
    assert asked(first, *others, f"{WORKER}#first", f"{WORKER}#0") == [None, others[0]]
