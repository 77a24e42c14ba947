"""The guard of the unit tests is itself awake."""

from __future__ import annotations

import socket
import time

import pytest


def test_a_unit_test_cannot_sleep():
    with pytest.raises(BaseException, match=r"time\.sleep in a unit test"):
        time.sleep(0)


def test_a_unit_test_cannot_bind_or_connect():
    with socket.socket() as unbound:
        with pytest.raises(BaseException, match=r"socket\.bind in a unit test"):
            unbound.bind(("127.0.0.1", 0))
        with pytest.raises(BaseException, match=r"socket\.connect in a unit test"):
            unbound.connect(("127.0.0.1", 9))
