"""Contexts that a cell leaves open though it has made others: closed where their name is another's now, else a line that says so.

Runs in the kernel's main thread, before and after each cell.
"""

from __future__ import annotations

import weakref
from typing import Any

from flowkit.context import Context
from flowkit.lineage.call_site import short_call_site
from flowkit.model.ids import AppId
from flowkit.notebook.commands import name_of, tell
from flowkit.observe.metrics import counted


class OpenContexts:
    """Watches the Contexts of one shell."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._named: dict[str, weakref.ref[Context]] = {}
        self._known: frozenset[AppId] = frozenset()

    def attach(self) -> None:
        """Watch from now on."""
        self._shell.events.register("pre_run_cell", self._before)
        self._shell.events.register("post_run_cell", self._after)
        self._before(None)

    def detach(self) -> None:
        """Watch no more."""
        self._shell.events.unregister("pre_run_cell", self._before)
        self._shell.events.unregister("post_run_cell", self._after)

    def _before(self, _info: Any) -> None:
        live = Context.live()
        self._known = frozenset(each.app for each in live)
        self._named = {name: weakref.ref(each) for each in live if (name := name_of(self._shell, each))}

    def _after(self, _result: Any) -> None:
        for name, before in self._named.items():
            self._close_replaced(name, before())
        live = [each for each in Context.live() if each._embedded is not None]
        if len(live) > 1 and any(each.app not in self._known for each in live):
            told = ", ".join(map(self._in_words, live))
            tell(
                f"{len(live)} Contexts with processes of their own are open: {told}; close() ends one, Context.get_or_create() uses the newest"
            )

    def _close_replaced(self, name: str, old: Context | None) -> None:
        """Close a Context whose variable is another's now, unless it has one more, or work to do."""
        new = self._shell.user_ns.get(name)
        if old is None or new is old or not isinstance(new, Context) or old not in Context.live():
            return
        if name_of(self._shell, old) or old.jobs.active:
            return
        size = _size(old)
        old.close()
        tell(f"the Context that was {name} before ({size}) is closed; RDDs made with it have to be made again")

    def _in_words(self, context: Context) -> str:
        made_at = f", made at {short_call_site(context.made_at)}" if context.made_at else ""
        return f"{name_of(self._shell, context) or 'one without a name'} ({_size(context)}{made_at})"


def _size(context: Context) -> str:
    return counted(sum(not each.removed_at for each in context.status.executors()), "executor")
