"""What changed between two snapshots, as plain data, and how to put it on top of an older one.

Pure. ``difference`` says it, ``applied`` is what a face does with it: the front end has its own in ``extensions/view/src/state.js``, tested
on the same examples.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import msgspec

from flowkit.observe.snapshot import Snapshot
from flowkit.visible import all_visible

#: parts that are lists of things with an identity: only those that changed are told
_KEYED: Final = {"jobs": "job", "stages": "stage", "executors": "executor"}
#: lists told whole when anything in them changed: they are short
_WHOLE: Final = ("failures", "running_tasks", "hints", "changes")


def full(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot as plain data."""
    data: dict[str, Any] = _plain(snapshot)
    return data


def difference(before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """What to put on top of ``before`` to have ``after``; numbered by both versions.

    Returns
    -------
    dict
        ``base`` and ``version``; ``set``: plain fields; by list of things with an identity those that are new or changed, and under
        ``gone`` the identities of those that are no longer told; other lists whole.
    """
    delta: dict[str, Any] = {"base": before.version, "version": after.version}
    changed = {}
    for field in after.__struct_fields__:
        old, new = getattr(before, field), getattr(after, field)
        if field in _KEYED:
            _compare(delta, field, _KEYED[field], old, new)
        elif old != new:
            if field in _WHOLE:
                delta[field] = _plain(new)
            else:
                changed[field] = _plain(new)
    delta["set"] = changed
    return delta


class DeltaRing:
    """The last deltas, for a view that missed some.

    >>> ring = DeltaRing(2)
    >>> for version in (1, 2, 3):
    ...     ring.push({"base": version - 1, "version": version})
    >>> [each["version"] for each in ring.since(1)], ring.since(0)
    ([2, 3], None)
    """

    def __init__(self, most: int = 64) -> None:
        self._deltas: deque[dict[str, Any]] = deque(maxlen=most)

    def push(self, delta: dict[str, Any]) -> None:
        """One more; what does not follow on the last one begins anew."""
        if self._deltas and self._deltas[-1]["version"] != delta["base"]:
            self._deltas.clear()
        self._deltas.append(delta)

    def since(self, version: int) -> list[dict[str, Any]] | None:
        """What follows on a version; None when some of that is no longer there, and a view needs the whole."""
        found = [delta for delta in self._deltas if delta["base"] >= version]
        return found if found and found[0]["base"] == version else None


def _plain(value: Any) -> Any:
    """For a page: names and messages are users' texts."""
    return all_visible(msgspec.to_builtins(value))


def _compare(delta: dict[str, Any], field: str, identity: str, old: Any, new: Any) -> None:
    if old is new:
        return
    known = {getattr(each, identity): each for each in old}
    changed = [each for each in new if known.pop(getattr(each, identity), None) != each]
    if changed:
        delta[field] = _plain(changed)
    if known:
        delta.setdefault("gone", {})[field] = list(known)


def applied(state: dict[str, Any], delta: dict[str, Any]) -> dict[str, Any] | None:
    """A plain snapshot with a delta on top; None when the delta is for another version: then a full one is needed.

    >>> applied({"version": 1, "title": "a"}, {"base": 1, "version": 2, "set": {"title": "b", "version": 2}})
    {'version': 2, 'title': 'b'}
    >>> applied({"version": 1}, {"base": 2, "version": 3, "set": {}}) is None
    True
    """
    if state["version"] != delta["base"]:
        return None
    result = {**state, **delta["set"]}
    for field in _WHOLE:
        if field in delta:
            result[field] = delta[field]
    for field, identity in _KEYED.items():
        changed, gone = delta.get(field, ()), set(delta.get("gone", {}).get(field, ()))
        if not changed and not gone:
            continue
        things = {each[identity]: each for each in state[field] if each[identity] not in gone}
        things.update((each[identity], each) for each in changed)
        result[field] = list(things.values())
    return result
