"""A key that has a large part of the rows is named in the log."""

from __future__ import annotations

import logging

from flowkit.testing.inline import inline_context


def test_a_hot_key_is_named_once_a_stage(caplog):
    with inline_context(progress="auto") as fc, caplog.at_level(logging.WARNING, "flowkit"):
        pairs = fc.range(300_000, num_partitions=2).map(lambda x: ("nobody" if x % 3 else str(x), x))
        grouped = pairs.group_by_key(4).map_values(len)
        assert grouped.count() == 100_001
        fc.wait_for_listeners()
        (record,) = caplog.records
        assert "'nobody' is the key of about 2" in record.message
        assert "test_hot_keys.py" in record.message
        assert grouped.filter(lambda kv: kv[1] > 1).count() == 1
        fc.wait_for_listeners()
        assert len(caplog.records) == 1


def test_keys_that_share_the_rows_are_no_news(caplog):
    with inline_context(progress="auto") as fc, caplog.at_level(logging.INFO, "flowkit.observe.hot_keys"):
        assert fc.range(300_000, num_partitions=2).map(lambda x: (x % 1_000, x)).group_by_key(4).count() == 1_000
        fc.wait_for_listeners()
    assert not caplog.records


def test_with_progress_off_only_a_log_that_is_asked_for_it_names_one(caplog):
    with inline_context(progress="off") as fc, caplog.at_level(logging.INFO, "flowkit.observe.hot_keys"):
        assert fc.range(300_000, num_partitions=2).map(lambda x: (0, x)).group_by_key(4).count() == 1
        fc.wait_for_listeners()
    assert [record.levelno for record in caplog.records] == [logging.INFO]
