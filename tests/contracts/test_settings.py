"""Every setting is declared once, documented, and reachable from the environment."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flowkit.config import ENVIRONMENT_PREFIX, Config, settings_of
from flowkit.errors import ConfigError

ROOT = Path(__file__).parents[2]
SETTINGS = settings_of(Config)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda each: each.name)
def test_every_setting_has_a_sentence_and_a_version(setting):
    assert setting.metadata["doc"].endswith(".")
    assert setting.metadata["since"]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda each: each.name)
def test_every_setting_can_come_from_the_environment(setting):
    name = ENVIRONMENT_PREFIX + setting.name.upper()
    if setting.metadata["plain"]:
        config = Config.from_environment({name: '{"a": 2}'})
        assert getattr(config, setting.name) == {"a": 2}
    elif setting.metadata["mapping"]:
        with pytest.raises(ConfigError, match=f"{name}: {setting.name} holds objects, which cannot be given as text"):
            Config.from_environment({name: "{}"})
    else:
        config = Config.from_environment({name: str(setting.default)})
        assert getattr(config, setting.name) == setting.default


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda each: each.name)
def test_a_setting_named_for_a_unit_says_that_unit(setting):
    if setting.name.endswith("_s"):
        assert setting.metadata["unit"] == "s"
    if setting.name.endswith("_bytes"):
        assert setting.metadata["unit"] == "bytes"


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda each: each.name)
def test_every_setting_is_used(setting):
    """A setting nobody reads is a promise nobody keeps."""
    sources = [path for path in (ROOT / "flowkit").rglob("*.py") if path.name != "config.py"]
    read = re.compile(rf"\.{setting.name}\b")
    assert any(read.search(path.read_text(encoding="utf-8")) for path in sources), f"nothing reads {setting.name}"


def test_the_generated_pages_are_current():
    command = [sys.executable, "docs/generate.py", "--check"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_config_survives_pickling():
    config = Config(max_task_failures=2)
    assert pickle.loads(pickle.dumps(config)) == config
