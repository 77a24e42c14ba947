"""Hostile changes to messages, values and files, from a seeded generator. Pure."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec

NUMBERS = (0, 1, -1, 2, 7, 255, 1 << 28, 1 << 31, (1 << 31) - 1, (1 << 62), (1 << 63) - 1, -(1 << 63), (1 << 64) - 1)
FLOATS = (0.0, -0.0, -1.0, 0.5, 1e308, float("nan"), float("inf"), float("-inf"))
TEXTS = (
    "", "*", ".", "..", "../../../tmp/evil", "a/b", "\x00", "\x1b]0;owned\x07\x1b[2J", "\u202eevil", "\N{SNOWMAN}", "é" * 40, "x" * 5_000,
    "<script>alert(1)</script>", "0" * 64, "{a,b}", "~", "-rf", "s3:x", "%s%n", "token", "app.lock",
)  # fmt: skip
BYTES = (b"", b"\x00", b"\xc1", b"\xff" * 40, b"\x91" * 2_000, b"\xdd\xff\xff\xff\xff", b"x" * 5_000)


def hostile(rng: Random) -> Any:
    """A value that nobody expects."""
    kind = rng.randrange(8)
    if kind == 0:
        return rng.choice(NUMBERS)
    if kind == 1:
        return rng.choice(FLOATS)
    if kind == 2:
        return rng.choice(TEXTS)
    if kind == 3:
        return rng.choice(BYTES)
    if kind == 4:
        return rng.choice((None, True, False))
    if kind == 5:
        return [rng.choice(NUMBERS) for _ in range(rng.randrange(4))]
    if kind == 6:
        return {rng.choice(TEXTS): rng.choice(NUMBERS)}
    return [[], {}, [[[[]]]]][rng.randrange(3)]


def another(rng: Random, value: Any) -> Any:
    """A value in place of this one: most often of its own type, so that it is not the type alone that is refused."""
    if rng.random() < 0.3:
        return hostile(rng)
    match value:
        case bool():
            return not value
        case int():
            near = (value + 1, value - 1, value * 2, value ^ (1 << rng.randrange(40)))
            return rng.choice((*NUMBERS, *(each for each in near if -(1 << 63) <= each < 1 << 64)))
        case float():
            return rng.choice((*FLOATS, -value, value * 2))
        case str():
            return rng.choice((*TEXTS, value[:-1], value + "x", value.swapcase()))
        case bytes():
            return flipped(rng, value) if value and rng.random() < 0.5 else rng.choice(BYTES)
        case list() if value:
            return rng.choice((value[:-1], value + value, value[::-1], [*value, rng.choice(value)]))
        case dict() if value:
            return rng.choice(({}, {**value, "unknown": 1}))
        case _:
            return hostile(rng)


def mutated(rng: Random, tree: Any, places: int = 1) -> Any:
    """A message of plain lists, dictionaries and values, changed in some places."""
    for _ in range(places):
        tree = _mutated(rng, tree)
    return tree


def _mutated(rng: Random, tree: Any) -> Any:
    if isinstance(tree, dict) and tree and rng.random() < 0.95:
        key = rng.choice(list(tree))
        changed = dict(tree)
        if rng.random() < 0.05:
            del changed[key]
        else:
            changed[key] = _mutated(rng, tree[key])
        return changed
    if isinstance(tree, list) and tree and rng.random() < 0.9:
        at = rng.randrange(len(tree))
        return [*tree[:at], _mutated(rng, tree[at]), *tree[at + 1 :]]
    return another(rng, tree)


def retold(rng: Random, message: msgspec.Struct, places: int = 1) -> bytes:
    """The bytes of a batch of this one message, changed in some places: its fields, or, seldom, its bytes."""
    body = msgspec.msgpack.encode([message])
    if rng.random() < 0.1:
        return damaged(rng, body)
    tree = msgspec.msgpack.decode(body)
    return msgspec.msgpack.encode([mutated(rng, tree[0], places)])


def flipped(rng: Random, data: bytes) -> bytes:
    """Some bits of it are others."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 3, 20))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def damaged(rng: Random, data: bytes) -> bytes:
    """Flipped, cut or grown: what disks and networks do to bytes, and those who can write to them."""
    kind = rng.randrange(6)
    at = rng.randrange(len(data) + 1)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data + rng.randbytes(rng.choice((1, 8, 100)))
    if kind == 2:
        return data[:at] + data[at + rng.randrange(1, 20) :]
    if kind == 3:
        return data[:at] + rng.randbytes(rng.randrange(1, 20)) + data[at:]
    if kind == 4:
        return data[:at] + bytes(len(data) - at)
    return flipped(rng, data) if data else b"\x00"
