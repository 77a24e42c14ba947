"""A live kernel that is told what to run, and heard message by message."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest
from jupyter_client.manager import start_new_kernel

START = "%load_ext flowkit\nimport flowkit as fk, time\nfc = fk.Context(workers=2)"


class Kernel:
    """Runs code and gathers what the front end would hear."""

    def __init__(self, manager, client):
        self.manager, self.client = manager, client

    def begin(self, code):
        return self.client.execute(code)

    def hear_until_idle(self, request, timeout_s=60.0):
        messages = []
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            message = self.client.get_iopub_msg(timeout=timeout_s)
            message["heard_at"] = time.monotonic()
            messages.append(message)
            if (
                message["msg_type"] == "status"
                and message["content"]["execution_state"] == "idle"
                and message["parent_header"].get("msg_id") == request
            ):
                return messages
        raise TimeoutError("the cell does not end")

    def run(self, code):
        messages = self.hear_until_idle(self.begin(code))
        errors = [message["content"] for message in messages if message["msg_type"] == "error"]
        assert not errors, errors
        return messages

    def text(self, code):
        """What a cell prints or shows as text."""
        told = []
        for message in self.hear_until_idle(self.begin(code)):
            content = message["content"]
            match message["msg_type"]:
                case "stream":
                    told.append(content["text"])
                case "execute_result" | "display_data":
                    told.append(content["data"]["text/plain"])
                case "error":
                    told.append("\n".join([*content["traceback"], content["evalue"]]))
        return "\n".join(told)


@contextlib.contextmanager
def started() -> Iterator[Kernel]:
    """A kernel in which nothing ran yet."""
    manager, client = start_new_kernel()
    try:
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with started() as found:
        found.run(START)
        yield found
        found.run("fc.close()")


@pytest.fixture
def bare_kernel() -> Iterator[Kernel]:
    with started() as found:
        yield found
