import msgspec
import pytest

from flowkit.cluster import wire
from flowkit.errors import VersionMismatch
from flowkit.model.events import ApplicationStart
from flowkit.model.task import ExceptionFailure, InlineResult, TaskLaunch, TaskMetrics, TaskSucceeded
from flowkit.scheduling import actions as act
from flowkit.scheduling import stimuli as sti


def test_what_the_core_says_to_an_executor_arrives_unchanged():
    messages = (
        act.Launch("e#1", (TaskLaunch(1, "app", 2, 0, 3, 0),)),
        wire.AdmitApplication("app", "s"),
        act.Kill("e#1", (1,), "why"),
    )
    assert wire.decode_to_executor(wire.encode(messages)) == messages


def test_what_the_core_says_to_a_driver_arrives_unchanged():
    messages = (
        wire.EventsPublished((ApplicationStart(time=1.0, app="a", name="n", flowkit_version="1"),), dropped=2),
        act.DeliverResult("a", 1, 2, 3, "e#1", InlineResult(b"x")),
        act.JobFailed("a", 1, "JobFailed", "why", None, {"stage": "s"}),
    )
    assert wire.decode_to_driver(wire.encode(messages)) == messages


def test_reports_arrive_unchanged():
    messages = (
        sti.TasksReported("e#1", (TaskSucceeded(1, 0.0, 1.0, InlineResult(b""), TaskMetrics(run_s=2.0)),)),
        wire.Farewell("e#1", "retired"),
    )
    assert wire.decode_from_executor(wire.encode(messages)) == messages


def test_an_executor_cannot_speak_as_a_driver():
    with pytest.raises(msgspec.ValidationError):
        wire.decode_from_executor(wire.encode([sti.ApplicationClosed("app", "")]))


def test_a_driver_cannot_speak_as_an_executor():
    with pytest.raises(msgspec.ValidationError):
        wire.decode_from_driver(wire.encode([sti.ExecutorLost("e#1", "", task_caused=False)]))


def test_another_flowkit_is_named_with_both_sides():
    mine, theirs = wire.Versions("1.0", "3.11", "3"), wire.Versions("1.1", "3.11", "3")
    complaint = wire.version_complaint("the driver", mine, "the scheduler", theirs, programs=False)
    assert "the driver has flowkit 1.0" in complaint and "the scheduler has flowkit 1.1" in complaint


def test_the_scheduler_may_run_another_python_since_it_unpickles_nothing():
    mine, theirs = wire.Versions("1.0", "3.11", "3"), wire.Versions("1.0", "3.12", "3")
    assert wire.version_complaint("the driver", mine, "the scheduler", theirs, programs=False) is None
    assert "3.12" in wire.version_complaint("the driver", mine, "an executor", theirs)


def test_another_cloudpickle_is_named():
    mine, theirs = wire.Versions("1.0", "3.11", "3"), wire.Versions("1.0", "3.11", "2")
    assert "cloudpickle 2" in wire.version_complaint("the driver", mine, "an executor", theirs)


def test_another_protocol_is_a_version_mismatch():
    with pytest.raises(VersionMismatch, match="protocol"):
        wire.check_protocol(wire.PROTOCOL + 1, "here", "there")


def test_names_given_to_dask_carry_the_protocol():
    names = [
        wire.PLUGIN_NAME,
        wire.OPEN_DRIVER,
        wire.OPEN_EXECUTOR,
        wire.RELAY,
        wire.READ_RESULT,
        wire.PUT_CONTENT,
        wire.EXIT_TOPIC,
    ]
    assert all(f"flowkit-{wire.PROTOCOL}" in name for name in names)


def test_what_has_no_form_on_the_wire_is_said_as_nearly_as_can_be():
    np = pytest.importorskip("numpy")
    failure = ExceptionFailure("ValueError", "bad \udc80 name", "", b"\x80")
    good = act.JobSucceeded("a", 1)
    said = (act.JobFailed("a", np.int64(2), "JobFailed", "why \udcff", failure, {"\udc80": "s"}), good)
    first, second = wire.decode_to_driver(wire.encode(said))
    assert second == good
    assert (first.job, first.reason, first.where) == (2, "why \\udcff", {"\\udc80": "s"})
    assert first.failure == ExceptionFailure("ValueError", "bad \\udc80 name", "", b"\x80")
    for number in (1 << 70, -(1 << 2000)):
        assert wire.encode([number, good])


@pytest.mark.parametrize("message", [act.Launch("e#1", (TaskLaunch(1, "app", 2, 0, 3, 0),)), act.JobSucceeded("a", 1)], ids=type)
def test_what_is_said_as_nearly_as_can_be_is_else_what_was_to_be_said(message):
    strange = act.JobFailed("a", 1, "JobFailed", "\udcff")
    decoder = msgspec.msgpack.Decoder(tuple[act.Action, ...])
    assert decoder.decode(wire.encode((message, strange)))[0] == message


@pytest.mark.parametrize(
    "message",
    [
        sti.JobCancelRequested("a", -1, ""),
        sti.JobCancelRequested("a", 1 << 63, ""),
        sti.JobCancelRequested("a" * 129, 1, ""),
        sti.ContentPut("a", "../../etc/passwd", "h"),
        sti.ContentPut("a", "F" * 64, "h"),
        sti.ContentPut("a", "0" * 64 + "\n", "h"),
    ],
    ids=str,
)
def test_ids_are_held_to_ranges_and_alphabets(message):
    with pytest.raises(msgspec.ValidationError):
        wire.decode_from_driver(wire.encode([message]))


@pytest.mark.parametrize("slots", [0, -1, 1 << 40])
def test_an_executor_has_slots(slots):
    with pytest.raises(msgspec.ValidationError, match="slots"):
        wire.decode_from_executor(wire.encode([sti.SlotsChanged("e#1", slots)]))


@pytest.mark.parametrize("at", [float("nan"), float("inf"), -float("inf")])
def test_times_are_numbers(at):
    with pytest.raises(msgspec.ValidationError):
        wire.decode_from_executor(
            wire.encode([sti.TasksReported("e#1", (TaskSucceeded(1, at, 1.0, InlineResult(b""), TaskMetrics()),))])
        )


@pytest.mark.parametrize("body", [b"\x91" * 5_000, 5, None, "text"], ids=["deep", "number", "nothing", "text"])
def test_whatever_comes_in_place_of_bytes_is_said_to_be_none(body):
    for decode in (wire.decode_from_driver, wire.decode_from_executor, wire.decode_driver_hello, wire.decode_welcome):
        with pytest.raises(msgspec.DecodeError):
            decode(body)


@pytest.mark.parametrize("app", ["", "*", "../../../tmp/evil", "token", "a.lock", "a\n", "ä", "x" * 200])
def test_a_greeting_names_an_application_that_can_be_a_directory(app):
    hello = wire.DriverHello(wire.own_versions(), app, "name", 60.0)
    with pytest.raises(msgspec.ValidationError, match="app"):
        wire.decode_driver_hello(wire.encode(hello))


def test_any_text_may_be_shown_for_a_secret_and_is_none():
    for shown in ("ä", "\udcff", "", None, 7, b"a1", ["a1"]):
        assert not wire.is_secret(shown, "a1")
    assert not wire.is_secret("", "")
