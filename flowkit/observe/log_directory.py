"""Whether an event log can be written where a setting says. Runs in the driver, before anything is started."""

from __future__ import annotations

import tempfile
from pathlib import Path

from flowkit.errors import ConfigError


def check_log_directory(directory: str) -> None:
    """Make the directory if need be, and a file in it that goes at once.

    Raises
    ------
    errors.ConfigError
        It cannot be; names the setting, the place and the reason. A log that is asked for and not written would be missed too late.
    """
    try:
        place = Path(directory).expanduser()
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place, buffering=0) as probe:
            probe.write(bytes(512))
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"event_log = {directory[:200]!r}: no log can be written there: {str(error)[:500]}; name a directory that is there or can be "
            "made, and that this user can write to",
            setting="event_log",
            value=directory,
        ) from error
