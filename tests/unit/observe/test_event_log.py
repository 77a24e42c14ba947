"""The event log: what is heard is written, what is written can be read, however the process ended."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowkit.errors import InvalidArgument
from flowkit.model.events import ApplicationStart, Event, ExecutorAdded, JobEnd, JobStart, TaskEnd
from flowkit.model.metrics import TaskMetrics
from flowkit.model.task import ExceptionFailure, KilledFailure
from flowkit.observe.bus import ListenerBus
from flowkit.observe.event_log import EventLog, read_event_log, replay
from flowkit.observe.status import StatusStore

APP = "app-1"


def job_start(number: int = 0, **properties: str) -> JobStart:
    return JobStart(APP, number, "collect", (), (), properties, time=1.0)


def task_end(number: int) -> TaskEnd:
    failure = KilledFailure("the job was cancelled") if number % 3 == 0 else None
    return TaskEnd(APP, 0, 0, number, number, 1, "tcp://a#1", 1.0, 2.0, failure, False, TaskMetrics(run_s=0.5), time=3.0)


def written(directory: Path, events: list[Event], **options) -> EventLog:
    log = EventLog(directory, APP, version="0.1", **options)
    for event in events:
        log.on_event(event)
    log.close()
    return log


def test_what_was_heard_is_read_back_equal(tmp_path):
    events = [job_start(), *map(task_end, range(100)), JobEnd(APP, 0, "succeeded", time=4.0)]
    log = written(tmp_path, events)
    assert list(read_event_log(log.directory)) == events


def test_an_idle_queue_means_that_everything_is_on_disk(tmp_path):
    log = EventLog(tmp_path, APP, version="0.1")
    with ListenerBus() as bus:
        bus.add_listener(log, "event log")
        for number in range(3):
            bus.post([task_end(number)])
            bus.wait_until_empty(10)
            assert list(read_event_log(log.directory)) == [task_end(each) for each in range(number + 1)]
    log.close()


def test_files_roll_by_size_and_are_read_as_one(tmp_path):
    events = [task_end(number) for number in range(5_000)]
    log = EventLog(tmp_path, APP, version="0.1", roll_bytes=2_000)
    for number, event in enumerate(events):
        log.on_event(event)
        if number % 100 == 0:
            log.on_idle()
    log.close()
    files = sorted(log.directory.iterdir())
    assert len(files) > 3
    assert all(file.stat().st_size < 20_000 for file in files)
    assert list(read_event_log(log.directory)) == events
    assert list(read_event_log(files[0])) == events[: len(list(read_event_log(files[0])))]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(cut=st.integers(1, 400))
def test_a_torn_file_is_good_up_to_its_last_whole_frame(tmp_path_factory, cut):
    directory = tmp_path_factory.mktemp("log")
    log = EventLog(directory, APP, version="0.1")
    sizes = []
    for number in range(20):
        log.on_event(task_end(number))
        log.on_idle()
        (file,) = log.directory.iterdir()
        sizes.append(file.stat().st_size)
    log.close()
    whole = sizes[-1] - cut
    file.write_bytes(file.read_bytes()[:whole])
    complete = sum(size <= whole for size in sizes)
    if whole <= 0 or not complete:
        return
    found = list(read_event_log(directory / APP))
    assert found[:complete] == [task_end(number) for number in range(complete)]
    assert len(found) <= complete + 1


def test_secrets_in_properties_are_not_written(tmp_path):
    log = written(tmp_path, [job_start(aws_secret_key="hunter2", Password="hunter3", group="etl")])
    (event,) = read_event_log(log.directory)
    assert event.properties == {"aws_secret_key": "(redacted)", "Password": "(redacted)", "group": "etl"}


def test_secrets_in_messages_and_addresses_are_not_written(tmp_path):
    said = 'cannot read s3://ann:hunter2@host/x?token=abc123&n=1 with password=s3same, "api_key=zzz9"'
    failure = ExceptionFailure("OSError", said, f"Traceback: {said}", b"pickled: hunter2")
    end = msgspec.structs.replace(task_end(1), failure=failure)
    log = written(tmp_path, [end, JobEnd(APP, 0, "failed", said, time=4.0)])
    read, over = read_event_log(log.directory)
    text = "".join(map(str, (read, over)))
    for secret in ("hunter2", "abc123", "s3same", "zzz9"):
        assert secret not in text
    assert "cannot read s3://(redacted)@host/x?token=(redacted)&n=1 with password=(redacted)" in over.reason
    assert read.failure.type_name == "OSError"


def test_a_log_is_its_owners_alone(tmp_path):
    log = written(tmp_path, [job_start()])
    assert stat.S_IMODE(log.directory.stat().st_mode) == 0o700


def test_a_disk_that_refuses_ends_the_log_once_and_nothing_else(tmp_path, caplog):
    (tmp_path / APP).write_text("in the way")
    log = EventLog(tmp_path, APP, version="0.1")
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            log.on_event(task_end(number))
            log.on_idle()
    log.close()
    assert len(caplog.records) == 1
    assert "ends here" in caplog.text


def test_replaying_gives_the_state_that_the_live_store_had(tmp_path):
    live, later = StatusStore(), StatusStore()
    events = [
        ExecutorAdded("tcp://a#1", "host", 2, time=0.5),
        job_start(),
        *map(task_end, range(10)),
        JobEnd(APP, 0, "failed", "no", time=4.0),
    ]
    for event in events:
        live.on_event(event)
    replay(written(tmp_path, events).directory, later)
    assert later.summary() == live.summary()
    assert later.jobs() == live.jobs()
    assert later.executors() == live.executors()


def test_events_of_a_later_version_are_left_out(tmp_path):
    import pyarrow as pa

    log = written(tmp_path, [job_start()])
    (file,) = log.directory.iterdir()
    unknown = msgspec.json.encode({"event": "TaskTeleported", "time": 1.0}) + b"\n"
    with file.open("ab") as out:
        out.write(pa.Codec("zstd").compress(unknown + msgspec.json.encode(task_end(1)) + b"\n", asbytes=True))
    assert list(read_event_log(log.directory)) == [job_start(), task_end(1)]


@pytest.mark.parametrize("content", ["nothing", "other", "newer"])
def test_what_is_no_log_is_refused_clearly(tmp_path, content):
    import pyarrow as pa

    if content == "nothing":
        with pytest.raises(InvalidArgument, match="no event log in"):
            list(read_event_log(tmp_path))
        return
    line = b'{"a": 1}\n' if content == "other" else b'{"flowkit_event_log": 99, "flowkit": "9.0"}\n'
    file = tmp_path / "events-000001.jsonl.zst"
    file.write_bytes(pa.Codec("zstd").compress(line, asbytes=True))
    with pytest.raises(InvalidArgument, match="not an event log" if content == "other" else r"flowkit 9\.0"):
        list(read_event_log(tmp_path))


def test_a_lone_surrogate_in_a_users_text_loses_no_event(tmp_path):
    start = ApplicationStart(APP, "\ud800", "0.1", time=1.0)
    log = written(tmp_path, [start])
    [told] = [event for event in read_event_log(log.directory) if isinstance(event, ApplicationStart)]
    assert told.name == "\\ud800"
