"""Unit tests open no sockets and never sleep: what needs either belongs in tests/cluster.

The guard raises in the offending call, so the traceback shows who did it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest


class ForbiddenInUnitTests(BaseException):
    """Not an ``Exception``, so that no code under test can swallow it."""


@pytest.fixture(autouse=True)
def no_sockets_and_no_sleep(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make opening a connection and sleeping fail."""

    def forbid(what: str, instead: str):
        def guard(*args: object, **kwargs: object) -> None:
            raise ForbiddenInUnitTests(f"{what} in a unit test; {instead}")

        return guard

    elsewhere = "tests that need the network belong in tests/cluster"
    monkeypatch.setattr(socket.socket, "connect", forbid("socket.connect", elsewhere))
    monkeypatch.setattr(socket.socket, "connect_ex", forbid("socket.connect_ex", elsewhere))
    monkeypatch.setattr(socket.socket, "bind", forbid("socket.bind", elsewhere))
    monkeypatch.setattr(time, "sleep", forbid("time.sleep", "pass the time in, or wait for the condition itself"))
    yield
