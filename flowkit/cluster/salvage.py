"""What can be read of a batch of messages in which one cannot, and what can be told of that one.

Imported by all three processes, for the rare case: a message that breaks its type must not take those that came with it along. Pure.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from flowkit.cluster.wire import EventsPublished, FromDriver, FromExecutor, ToDriver, ToExecutor, decoded
from flowkit.model.events import Event

M = TypeVar("M")

#: the kind of an event among ``EventsPublished``
EVENT: Final = "event"


class Unread(NamedTuple):
    """A message that could not be read. ``kind`` is empty, and ``job`` None, where not even that can be told."""

    kind: str
    job: int | None
    complaint: str


class _Events(msgspec.Struct, frozen=True, tag_field="action", tag="Events"):
    """``EventsPublished``, with its events unread."""

    events: tuple[msgspec.Raw, ...]
    dropped: int = 0


_raws = msgspec.msgpack.Decoder(tuple[msgspec.Raw, ...])
_events = msgspec.msgpack.Decoder(_Events)
_event: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)
_to_driver: msgspec.msgpack.Decoder[ToDriver] = msgspec.msgpack.Decoder(ToDriver)
_to_executor: msgspec.msgpack.Decoder[ToExecutor] = msgspec.msgpack.Decoder(ToExecutor)
_from_driver: msgspec.msgpack.Decoder[FromDriver] = msgspec.msgpack.Decoder(FromDriver)
_from_executor: msgspec.msgpack.Decoder[FromExecutor] = msgspec.msgpack.Decoder(FromExecutor)


def salvage_to_driver(body: bytes) -> tuple[list[ToDriver], list[Unread]]:
    """Of what the scheduler told a driver. Events that cannot be read count as dropped."""
    return _salvaged(_to_driver, body)


def salvage_to_executor(body: bytes) -> tuple[list[ToExecutor], list[Unread]]:
    """Of what the scheduler told an executor."""
    return _salvaged(_to_executor, body)


def salvage_from_driver(body: bytes) -> tuple[list[FromDriver], list[Unread]]:
    """Of what a driver told the scheduler."""
    return _salvaged(_from_driver, body)


def salvage_from_executor(body: bytes) -> tuple[list[FromExecutor], list[Unread]]:
    """Of what an executor told the scheduler."""
    return _salvaged(_from_executor, body)


def _salvaged(decoder: msgspec.msgpack.Decoder[Any], body: bytes) -> tuple[list[Any], list[Unread]]:
    found: list[Any] = []
    unread: list[Unread] = []
    try:
        raws = decoded(_raws, body)
    except msgspec.DecodeError as error:
        return found, [Unread("", None, str(error))]
    for raw in raws:
        try:
            found.append(decoded(decoder, raw))
        except msgspec.DecodeError as error:
            batch = _events_of(raw, unread) if decoder is _to_driver else None
            if batch is not None:
                found.append(batch)
            else:
                unread.append(_told(raw, error))
    return found, unread


def _events_of(raw: msgspec.Raw, unread: list[Unread]) -> EventsPublished | None:
    """Events but for those that cannot be read; None when these are no events."""
    try:
        batch = decoded(_events, raw)
    except msgspec.DecodeError:
        return None
    found: list[Event] = []
    for each in batch.events:
        try:
            found.append(decoded(_event, each))
        except msgspec.DecodeError as error:
            unread.append(Unread(EVENT, None, f"{_told(each, error).kind}: {error}"))
    return EventsPublished(tuple(found), batch.dropped + len(batch.events) - len(found))


def _told(raw: msgspec.Raw, error: Exception) -> Unread:
    try:
        fields = msgspec.msgpack.decode(raw)
    except (ValueError, TypeError, RecursionError):  # keys that are no keys, too
        fields = None
    if not isinstance(fields, dict):
        return Unread("", None, str(error))
    kind = next((str(fields[tag]) for tag in ("action", "stimulus", "event") if tag in fields), "")
    spec = fields.get("spec")
    job = (spec if isinstance(spec, dict) else fields).get("job")
    return Unread(kind, job if type(job) is int else None, f"{kind}: {error}")
