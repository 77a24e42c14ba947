"""What somebody meant who named a setting that is none."""

from __future__ import annotations

import pytest

from flowkit.config import Config
from flowkit.config.guesses import OTHER_NAMES, meant_by
from flowkit.errors import ConfigError


@pytest.mark.parametrize(
    "name, meant",
    [
        ("task_retries", "max_task_failures"),
        ("retries", "max_task_failures"),
        ("spark.task.maxFailures", "max_task_failures"),
        ("spark.executor.instances", "Context(workers=...)"),
        ("workers", "Context(workers=...)"),
        ("cores", "Context(workers=...)"),
        ("executors", "Context(workers=...)"),
        ("memory_limit", "Context(memory_limit=...)"),
        ("max_task_failure", "max_task_failures"),
        ("max_task_failurs", "max_task_failures"),
        ("MAX_TASK_FAILURES", "max_task_failures"),
        ("FLOWKIT_LEASE_S", "lease_s"),
        ("lease", "lease_s"),
        ("max_result", "max_result_bytes"),
        ("spark.sql.shuffle.partitions", "default_parallelism"),
        ("retires", "max_task_failures"),
        ("colour", ""),
        ("nonsense", ""),
        ("task", ""),
        ("", ""),
    ],
)
def test_a_name_is_taken_for_what_the_field_means_by_it_or_for_nothing(name, meant):
    assert meant_by(name, Config.names()) == meant


@pytest.mark.parametrize("other", OTHER_NAMES)
def test_every_other_name_leads_to_something_that_is_there_and_is_no_name_of_a_setting(other):
    assert other not in Config.names()
    assert OTHER_NAMES[other] in Config.names() or OTHER_NAMES[other].startswith("Context(")
    assert other == other.lower()
    assert "." not in other


def test_a_name_that_means_nothing_is_refused_in_a_short_line():
    with pytest.raises(ConfigError, match=r"no setting 'colour'; Config\(\).explain\(\) lists those there are") as raised:
        Config().with_settings(colour=1)
    assert len(str(raised.value)) < 100
    with pytest.raises(ConfigError, match=r"did you mean Context\(workers=...\)\?"):
        Config().with_settings(cores=1)
