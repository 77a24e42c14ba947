"""Texts of users reach people with nothing in them that steers a terminal, forges a line or turns the order of reading."""

from __future__ import annotations

import logging
import re

import pytest

import flowkit as fk
from flowkit.errors import BadInput, InternalError, InvalidArgument
from flowkit.logs import logger_of
from flowkit.model.shown import short
from flowkit.notebook.job_commands import Lines
from flowkit.observe import deltas
from flowkit.observe.history import Line
from flowkit.observe.progress import ProgressModel
from flowkit.observe.static_view import render_line, render_static
from flowkit.observe.tables import Table
from flowkit.testing.inline import inline_context
from flowkit.visible import in_one_line, visible

HOSTILE = "x\x1b]0;title\x07\x1b[2J\r\n09:00:00.000   job 99 succeeded\x9b31m\u202egpj\u2066\u2029\udc80\x00\x7f"
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def check(text: str, *, lines: bool = True) -> str:
    assert not UNSEEN.search(text), UNSEEN.findall(text)
    if not lines:
        assert "\n" not in text
    return text


@pytest.mark.parametrize(
    "text",
    ["", "plain", "two\nlines\tand a tab", "Übergröße 數據 данные", "👨\u200d👩\u200d👧", "می\u200cخواهم", "a\u00a0b", "\ue0b0"],
)
def test_letters_of_every_language_stay_as_they_are(text):
    assert visible(text) == text


def test_every_character_is_told_or_can_be_seen():
    every = "".join(map(chr, range(0x110000)))
    check(visible(every))
    check(in_one_line(every), lines=False)
    assert visible(visible(HOSTILE)) == visible(HOSTILE)


def test_errors_of_flowkit_are_told_visibly_and_keep_their_message():
    for kind in (BadInput, InvalidArgument, InternalError):
        error = kind(f"{HOSTILE}: is no number", path=HOSTILE)
        check(str(error))
        assert error.message.startswith(HOSTILE)
        assert error.path == HOSTILE
    check(BadInput(HOSTILE, path=HOSTILE)._repr_html_())


def test_a_repr_that_is_hostile_is_shown_visibly():
    class Hostile:
        def __repr__(self) -> str:
            return HOSTILE

    check(short(Hostile()))


def test_lines_of_a_history_cannot_be_forged():
    told = check(str(Line(0.0, f"failed: {HOSTILE}", bad=True)))
    assert not [line for line in told.splitlines()[1:] if not line.startswith("     ")]
    check(Lines([Line(0.0, HOSTILE)])._repr_html_())


def test_rows_of_a_table_cannot_be_forged():
    table = Table(HOSTILE, ("name", HOSTILE), [(1, HOSTILE), (2, "b")])
    assert len(check(repr(table)).splitlines()) == 4
    check(table._repr_html_())


def test_records_of_a_log_are_told_visibly_with_their_tracebacks(caplog):
    logger = logger_of("flowkit.tests.visible")
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logger.exception("%s: %s", HOSTILE, 1)
    check(caplog.text)
    assert "ValueError" in caplog.text


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, RecursionError, ValueError])
def test_an_object_that_cannot_be_shown_does_not_end_the_thread_that_logs_it(caplog, kind):
    class Hostile:
        def __repr__(self) -> str:
            raise kind

    logger_of("flowkit.tests.visible").warning("%r raised", Hostile())
    assert f"whose repr raises {kind.__name__}> raised" in caplog.text


def test_a_hostile_name_and_message_are_visible_on_every_face(tmp_path):
    def fail(row: str) -> str:
        raise ValueError(HOSTILE)

    model = ProgressModel(HOSTILE)
    directory = tmp_path / "a\x1b[2J\nb\u202e"
    directory.mkdir()
    (directory / "c.jsonl").write_text("{")
    with inline_context() as fc:
        fc.add_listener(model)
        rows = fc.parallelize(["a"], 1).map(fail).set_name(HOSTILE)
        check(repr(rows), lines=False)
        check(rows._repr_html_())
        check(repr(rows.explain()))
        with (
            fc.job(group=HOSTILE.replace("\udc80", ""), description=HOSTILE.replace("\udc80", "")),
            pytest.raises(ValueError) as raised,
        ):  # noqa: PT011
            rows.collect()
        assert str(raised.value) == HOSTILE  # the user's own
        check("".join(raised.value.__notes__))
        check(str(raised.value.__cause__))
        with pytest.raises(BadInput) as bad:
            fc.read_json_lines(directory).collect()
        check(str(bad.value))
        check("".join(bad.value.__notes__))
        with pytest.raises(FileNotFoundError) as gone:
            fc.text_file(directory / "gone")
        check(str(gone.value), lines=True)
        fc.wait_for_listeners()
        told = check(repr(fc.history))
        assert not [line for line in told.splitlines() if line.startswith("09:00:00.000")]
        snapshot = model.snapshot()
        assert snapshot.failures
        check(render_line(snapshot), lines=False)
        check(render_static(snapshot))
        for each in texts_in(deltas.full(snapshot)):
            check(each)


def texts_in(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return [text for each in value for text in texts_in(each)] if isinstance(value, list | tuple) else []


def test_a_context_of_a_hostile_name_shows_itself_visibly():
    with inline_context() as fc:
        assert isinstance(fc, fk.Context)
        fc.name = HOSTILE
        check(repr(fc))
        check(fc._repr_html_())
    assert logging.getLogger("flowkit").filters == []
