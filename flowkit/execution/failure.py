"""A user's exception on its way from a task to the driver: same type, same arguments, and where it happened as a note.

``describe`` runs on slot threads, ``raise_at_driver`` in the driver. Tracebacks cannot be pickled, so the remote one travels as
text, without flowkit's own frames, and hangs on the exception as its cause.
"""

from __future__ import annotations

import linecache
import pickle
import re
import traceback
from itertools import pairwise

from flowkit.errors import JobFailed, UserError
from flowkit.execution.blame import MOST_CAUSES, Blame, all_places, blame, in_words, is_own
from flowkit.lineage import pickling
from flowkit.lineage.kernels import StageProgram
from flowkit.model.task import ExceptionFailure


class RemoteTraceback(Exception):
    """The frames on the executor, as text: the ``__cause__`` of what is raised at the driver, printed above it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


# -- on the executor ---------------------------------------------------------------------------------------------------


def describe(error: BaseException, program: StageProgram | None, partition: int, *, stage: str = "the stage") -> ExceptionFailure:
    """Report an exception of user code.

    Parameters
    ----------
    error
        What ``run_program`` raised; its arguments stay as they are, a note is added to it.
    program
        The stage; None when it could not even be loaded.
    stage
        For people, e.g. ``stage 3 (map at words.py:12)``.

    Returns
    -------
    ExceptionFailure
        ``pickled`` is None when the exception does not survive a round trip. Errors that say that the program itself is
        wrong (``UserError``) are fatal: another try would fail alike.
    """
    note = _note(blame(error, program) if program else Blame(()), program, stage, partition)
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
    return ExceptionFailure(
        type_name=_type_name(error),
        message=_text_of(error),
        traceback=_trimmed_traceback(error),
        pickled=_pickled(error),
        fatal=isinstance(error, UserError),
    )


def _note(found: Blame, program: StageProgram | None, stage: str, partition: int) -> str:
    place = f"partition {partition} of {stage}"
    if program is None:
        return f"In {place}"
    detail = "" if found.detail is None else f", {found.detail}"
    function = "" if found.function is None else f" (function {found.function})"
    if len(found.places) == 1:
        return f"In {found.places[0]}{function}, {place}{detail}"
    return f"In {place}, in {in_words(found.places or all_places(program))}{function}{detail}"


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _text_of(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as failed:
        text = f"<its str() raises {type(failed).__name__}>"
    return "\n".join((text, *map(str, getattr(error, "__notes__", ()))))


def _pickled(error: BaseException) -> bytes | None:
    try:
        data = pickling.dumps(error)
        # Exceptions with required arguments often pickle and then do not come back.
        restored = pickle.loads(data)
    except Exception:
        return None
    return data if type(restored) is type(error) else None


def _trimmed_traceback(error: BaseException) -> str:
    """The whole chain of causes as text, without flowkit's frames unless there are no others."""
    described = traceback.TracebackException.from_exception(error, compact=True)
    pending: list[traceback.TracebackException] = [described]
    for each in pending:
        kept = [frame for frame in each.stack if not is_own(frame.filename)]
        if kept:
            each.stack = traceback.StackSummary.from_list(kept)
        pending += [inner for inner in (each.__cause__, each.__context__) if inner is not None]
        if len(pending) > MOST_CAUSES:
            break
    return "".join(described.format()).rstrip("\n")


# -- at the driver -----------------------------------------------------------------------------------------------------


def raise_at_driver(failure: ExceptionFailure, story: str = "") -> BaseException:
    """The exception to raise for a failed task: the user's own, or ``JobFailed`` with its text where it could not travel.

    Parameters
    ----------
    story
        What the driver adds, e.g. how often it was tried and where; a further note.

    Returns
    -------
    BaseException
        With the remote traceback as its ``__cause__``; raise it as it is.
    """
    error = _unpickled(failure)
    if error is None:
        error = JobFailed(f"{failure.type_name}: {failure.message}", type_name=failure.type_name)
    else:
        known = getattr(error, "__notes__", [])
        for note in _notes_in(failure, error):
            if note not in known:
                error.add_note(note)
    if story:
        error.add_note(story)
    error.__cause__ = RemoteTraceback(_with_source(failure.traceback))
    # Where tblib is installed, exceptions travel with their frames: all of them, ours too. The cause shows the user's.
    return error.with_traceback(None)


_FRAME = re.compile(r'  File "(?P<file>.+)", line (?P<line>\d+), in .+')


def _with_source(text: str) -> str:
    """A traceback with the lines that executors did not have: those of a notebook's cells, and of what is typed at a prompt."""
    lines = text.split("\n")
    told = []
    for line, following in pairwise([*lines, ""]):
        told.append(line)
        found = _FRAME.fullmatch(line)
        if found is not None and not following.startswith("    "):
            source = linecache.getline(found["file"], int(found["line"])).strip()
            if source:
                told.append(f"    {source}")
    return "\n".join(told)


def _unpickled(failure: ExceptionFailure) -> BaseException | None:
    if failure.pickled is None:
        return None
    try:
        error = pickle.loads(failure.pickled)
    except Exception:
        # A module that only executors have: the text of the failure says what happened.
        return None
    return error if isinstance(error, BaseException) else None


def _notes_in(failure: ExceptionFailure, error: BaseException) -> list[str]:
    # An exception with a __reduce__ of its own arrives without its notes; the message has them after the text itself.
    try:
        text = str(error)
    except Exception:
        return []
    rest = failure.message.removeprefix(text)
    return [line for line in rest.split("\n") if line] if rest != failure.message else []
