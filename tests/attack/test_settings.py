"""Every setting, given what it is not for. Oracle: the call fails there and then with the setting's name, or the value is one it can have."""

from __future__ import annotations

import math
from random import Random

import pytest

from flowkit.config import Config
from flowkit.config.setting import ENVIRONMENT_PREFIX
from flowkit.errors import ConfigError
from tests.attack.mutations import BYTES, FLOATS, NUMBERS, TEXTS, hostile

VALUES = (
    *NUMBERS,
    *FLOATS,
    *TEXTS,
    *BYTES,
    None,
    True,
    False,
    (),
    [],
    {},
    {"": 1},
    {"a": None},
    {1: 2},
    object(),
    int,
    lambda: 1,
    {"a": {"b": -1}},
)


@pytest.mark.parametrize("name", Config.names())
def test_a_hostile_value_is_refused_by_the_name_of_its_setting(name):
    for value in VALUES:
        try:
            config = Config(**{name: value})
        except ConfigError as error:
            assert name in str(error), (value, error)
            continue
        kept = getattr(config, name)
        if isinstance(kept, float):
            assert math.isfinite(kept), f"{name} = {kept}"
        # It can be shown, told from others, and given again.
        assert repr(config) and config.explain() and config._repr_html_()
        assert Config(**{name: kept}) == config or kept != kept


@pytest.mark.parametrize("name", Config.names())
def test_a_hostile_text_in_the_surroundings_is_refused_by_its_name(name):
    variable = ENVIRONMENT_PREFIX + name.upper()
    for text in (*TEXTS, "NaN", "inf", "-inf", "1e999", "9" * 5_000, "[" * 5_000, "{" * 5_000, '{"a": 1e999}', "\x00"):
        try:
            config = Config.from_environment({variable: text})
        except ConfigError as error:
            assert name in str(error) or variable in str(error), (text, error)
        else:
            assert not isinstance(getattr(config, name), float) or math.isfinite(getattr(config, name))


def test_settings_given_together_fail_with_a_name_or_hold(attack):
    def one(rng: Random) -> None:
        for _ in range(50):
            names = rng.sample(Config.names(), rng.randrange(1, 4))
            try:
                Config(**{name: rng.choice((hostile(rng), getattr(Config(), name))) for name in names})
            except ConfigError as error:
                assert any(name in str(error) for name in Config.names())

    attack(one)


def test_a_hostile_file_of_settings_is_named(tmp_path, attack):
    path = tmp_path / "flowkit.toml"
    whole = b'[flowkit]\nprogress = "off"\nmax-task-failures = 2\n[flowkit.pools]\nadhoc = 2\n'

    def one(rng: Random) -> None:
        from tests.attack.mutations import damaged

        for _ in range(50):
            path.write_bytes(damaged(rng, whole))
            try:
                Config.from_toml(path)
            except ConfigError:
                pass

    attack(one)
