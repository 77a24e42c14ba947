"""Where flowkit has its files on a machine. Runs in workers and nannies."""

from __future__ import annotations

from collections.abc import Mapping

from flowkit.storage.host_directory import HostDirectory

DIRECTORY_VARIABLE = "FLOWKIT_LOCAL_DIRECTORY"
"""Of the environment: the place, on this machine."""


def host_directory(environment: Mapping[str, str], local_directory: str | None) -> HostDirectory:
    """A matter of the machine first: workers on different ones may be told different places."""
    return HostDirectory.open(environment.get(DIRECTORY_VARIABLE) or local_directory or None)
