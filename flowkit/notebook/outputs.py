"""Outputs below a cell that any thread can make, and replace later.

Runs in the kernel. Messages name the request whose cell they belong to themselves: what IPython takes for the cell is the latest one,
in a thread.
"""

from __future__ import annotations

import sys
import uuid
from typing import Any


class Output:
    """One output of one cell.

    Parameters
    ----------
    shell
        A kernel's shell.
    parent
        The request that runs, or ran, the cell.
    """

    def __init__(self, shell: Any, parent: Any) -> None:
        self._publisher = shell.display_pub
        self._parent = parent
        self._display_id = f"flowkit-{uuid.uuid4().hex}"
        self.is_shown = False

    def reserve(self) -> None:
        """Take the place below what the cell has shown so far, empty until ``show``. Idempotent."""
        if not self.is_shown:
            # Text printed before it may still wait in the streams' own queue.
            sys.stdout.flush()
            sys.stderr.flush()
            self.show({"text/plain": ""})

    def show(self, bundle: dict[str, Any]) -> None:
        """Put it below the cell, or something else in its place."""
        message = "update_display_data" if self.is_shown else "display_data"
        self.is_shown = True
        content = {"data": bundle, "metadata": {}, "transient": {"display_id": self._display_id}}
        publisher = self._publisher
        publisher.session.send(publisher.pub_socket, message, content, parent=self._parent, ident=publisher.topic)


def can_publish(shell: Any) -> bool:
    """Whether a shell has a front end that shows rich outputs: a kernel's, not a terminal's."""
    publisher = getattr(shell, "display_pub", None)
    return hasattr(publisher, "session") and hasattr(publisher, "pub_socket") and hasattr(shell, "get_parent")
