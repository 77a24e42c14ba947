"""Configuration: every value from where it is said last, nothing unknown, nothing that contradicts, and it knows where each is from."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit import Config, OnDemandMemory, QuotaMemory
from flowkit.config import POOL_FIELDS, PRESETS
from flowkit.errors import ConfigError
from flowkit.scheduling.policies.pools import Pool


def test_what_is_said_later_wins(tmp_path):
    file = tmp_path / "flowkit.toml"
    file.write_text("[flowkit]\nmax_task_failures = 3\nmax-stage-attempts = 3\nheartbeat_s = 2\n")
    environment = {"FLOWKIT_CONFIG": str(file), "FLOWKIT_MAX_STAGE_ATTEMPTS": "5"}
    dask = {"max-task-failures": 2, "max-stage-attempts": 2, "progress": "off"}
    config = Config.from_surroundings(environment, dask)
    assert (config.progress, config.max_task_failures, config.max_stage_attempts, config.heartbeat_s) == ("off", 3, 5, 2.0)
    given = config.with_settings(max_stage_attempts=7)
    assert given.max_stage_attempts == 7
    origins = {line.split()[0]: line.split(maxsplit=2)[2] for line in given.explain().splitlines()}
    assert origins["progress"] == "Dask's configuration"
    assert origins["max_task_failures"] == str(file)
    assert origins["max_stage_attempts"] == "given"
    assert origins["lease_s"] == "default"
    assert config.origins["max_stage_attempts"] == "FLOWKIT_MAX_STAGE_ATTEMPTS"


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_differs_from_the_defaults_by_its_table_and_can_be_overridden(preset):
    config = Config.preset(preset)
    differing = {name: getattr(config, name) for name in Config.names() if getattr(config, name) != getattr(Config(), name)}
    assert differing == {name: value for name, (value, _) in PRESETS[preset].items()}
    assert getattr(Config, preset)(max_task_failures=9).max_task_failures == 9
    assert f"Config.{preset}()" in config.explain()


def test_a_builder_checks_what_its_steps_say_together(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text('progress = "html"\nheartbeat_s = 10.0\n')
    manager = QuotaMemory({"blue": 0.5})
    built = (
        Config.builder()
        .with_settings(heartbeat_s=3.0)
        .with_memory_manager(manager)
        .with_toml(file)
        .with_environment({"FLOWKIT_PROGRESS": "off"})
        .with_preset("production")
        .build()
    )
    assert built.memory_manager is manager
    assert (built.heartbeat_s, built.progress, built.shuffle_codec) == (3.0, "off", "lz4")
    with pytest.raises(ConfigError, match="executor_timeout_s = 15.0: must be above heartbeat_s = 30.0"):
        Config.builder().with_settings(heartbeat_s=30.0).build()
    # What alone would contradict is fine with the rest.
    assert Config.builder().with_settings(heartbeat_s=30.0).with_settings(executor_timeout_s=90.0).build().heartbeat_s == 30.0


@pytest.mark.parametrize(
    "make, complaint",
    [
        (lambda: Config.builder().with_settings(max_task_failure=1), "did you mean 'max_task_failures'"),
        (lambda: Config().with_mapping({"max-task-failure": 1}, "x"), "did you mean 'max_task_failures'"),
        (lambda: Config(memory_manager=7), r"memory_manager = 7: must be a name, or an object with a method pool"),
        (lambda: Config(memory_manager=OnDemandMemory), "must be a name, or an object"),
        (lambda: Config(memory_manager=""), "must be a name"),
        (lambda: Config(scheduling_policy=object()), r"with a method order"),
        (lambda: Config.preset("fast"), "no preset 'fast'; known: local"),
        (lambda: Config(lease_s=0.5), "lease_s = 0.5: must be above heartbeat_s"),
        (lambda: Config.from_toml("/no/such/file.toml"), "no/such/file.toml: .*No such file"),
        (lambda: Config(block_codec="rot13"), "must be one of none, lz4, zstd"),
        (lambda: Config(max_off_heap_bytes=-1), "must be above 0"),
        (lambda: Config(speculation_multiplier=0.5), "speculation_multiplier = 0.5: must be 1 or more"),
    ],
)
def test_what_is_wrong_is_an_error_that_helps(make, complaint):
    with pytest.raises(ConfigError, match=complaint):
        make()


@pytest.mark.parametrize("text", ["flowkit = 3", "[flowkit", "[flowkit]\nmax_task_failures = 'two'", "[flowkit]\nprogress = 1"])
def test_a_file_that_is_wrong_is_an_error(tmp_path, text):
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        Config.from_toml(file)


@given(st.integers(1, 9), st.sampled_from(["off", "auto"]))
def test_it_travels_and_compares_by_its_values(failures, progress):
    config = Config(max_task_failures=failures, progress=progress)
    copy = pickle.loads(pickle.dumps(config))
    assert copy == config == Config().with_settings(max_task_failures=failures, progress=progress)
    assert hash(copy) == hash(config)


@pytest.mark.parametrize(
    "told, complaint",
    [
        ("two", "must be a number, or a mapping of weight"),
        (None, "must be a number"),
        (True, "must be a number"),
        (float("nan"), "must be a finite number"),
        ([1], "must be a number"),
        ({"wieght": 2}, "has no wieght; known: weight, min_share"),
    ],
)
@pytest.mark.parametrize("policy", ["fifo", "fair", "capacity", "priority"])
def test_a_pool_that_is_none_is_refused_by_its_name_under_any_policy(policy, told, complaint):
    with pytest.raises(ConfigError, match=rf"pools\['adhoc'\] = .*: {complaint}"):
        Config(scheduling_policy=policy, pools={"adhoc": told})


def test_a_pool_may_be_a_number_its_fields_or_an_object():
    pools = {"adhoc": 2, "batch": {"guarantee": 0.5}, "nightly": Pool(weight=3)}
    assert Config(pools=pools).pools == pools
    assert set(POOL_FIELDS) == set(Pool.__dataclass_fields__)


@pytest.mark.parametrize("text", ["adhoc=2", "", "2", '["adhoc"]', '{"adhoc": "two"}'])
def test_a_variable_that_is_no_mapping_as_json_is_an_error(text):
    with pytest.raises(ConfigError, match="pools|POOLS"):
        Config.from_environment({"FLOWKIT_POOLS": text})


def test_a_table_beside_flowkits_own_is_not_passed_over(tmp_path):
    file = tmp_path / "flowkit.toml"
    file.write_text("[flowkit]\nprogress = 'off'\n[pools]\nadhoc = 2\n")
    with pytest.raises(ConfigError, match=r"write \[flowkit\.pools\]"):
        Config.from_toml(file)
    file.write_text("[flowkit]\nprogress = 'off'\n[flowkit.pools]\nadhoc = 2\n[another]\npools = 1\n")
    assert Config.from_toml(file) == Config(progress="off", pools={"adhoc": 2})
