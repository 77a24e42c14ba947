"""An event log that cannot be written is told at the call, not missed afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowkit.errors import ConfigError
from flowkit.observe.log_directory import check_log_directory


def test_a_directory_is_made_and_left_empty(tmp_path: Path):
    check_log_directory(str(tmp_path / "some" / "where"))
    assert list((tmp_path / "some" / "where").iterdir()) == []


@pytest.mark.parametrize("place", ["/proc/nope", "/dev/null", "a\0b", "~nobody-of-this-name/logs"])
def test_what_cannot_be_one_is_refused_by_name(place: str):
    with pytest.raises(ConfigError, match="event_log = ") as caught:
        check_log_directory(place)
    assert caught.value.data["setting"] == "event_log"
