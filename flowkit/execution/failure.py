"""A user's exception on its way from a task to the driver: same type, same arguments, and where it happened as a note.

``describe`` runs on slot threads, ``raise_at_driver`` in the driver. Tracebacks cannot be pickled, so the remote one travels as
text, without flowkit's own frames, and hangs on the exception as its cause.
"""

from __future__ import annotations

import linecache
import re
import traceback
from itertools import pairwise
from typing import Final

from flowkit.errors import JobFailed, UserError
from flowkit.execution.blame import Blame, all_places, blame, in_words
from flowkit.execution.content_errors import take_mark
from flowkit.execution.exception_pickling import dumps, loads
from flowkit.lineage.kernels import StageProgram
from flowkit.model.shown import class_name, cut, text_of
from flowkit.model.task import ExceptionFailure
from flowkit.tracebacks import add_note, cause_of, is_a, is_own, notes_of, set_cause, traceback_of
from flowkit.visible import visible

#: of an exception's text, and of its traceback: what is longer is cut, and the rest counted
MOST_CHARACTERS: Final = 8 << 10
_MOST_IN_TEXT: Final = 64
#: what ``multiprocessing`` says in a daemonic process
_NO_CHILDREN: Final = "daemonic processes are not allowed to have children"
_HOW_TO_HAVE_CHILDREN: Final = (
    "This executor is a daemonic process, as Dask starts its workers. Start them with Dask's setting distributed.worker.daemon=False "
    "(the variable DASK_DISTRIBUTED__WORKER__DAEMON=False where they are started), or use threads in the task"
)


class RemoteTraceback(Exception):
    """The frames on the executor, as text: the ``__cause__`` of what is raised at the driver, printed above it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return visible(f"\n{self.text}")


# -- on the executor ---------------------------------------------------------------------------------------------------


def describe(
    error: BaseException, program: StageProgram | None, partition: int, *, stage: str = "the stage", own_frames: bool = False
) -> ExceptionFailure:
    """Report an exception of user code.

    Parameters
    ----------
    error
        What ``run_program`` raised; its arguments stay as they are, a note is added to it.
    program
        The stage; None when it could not even be loaded.
    stage
        For people, e.g. ``stage 3 (map at words.py:12)``.
    own_frames
        Tell flowkit's frames too.

    Returns
    -------
    ExceptionFailure
        ``pickled`` is None when the exception does not survive a round trip, with its text, arguments and attributes. Errors that
        say that the program itself is wrong (``UserError``), or that an input's content is, are fatal: another try would fail alike.

    Notes
    -----
    Raises nothing, whatever the exception does when it is looked at.
    """
    fatal = is_a(error, UserError) or take_mark(error)
    text = text_of(error)
    added = [visible(_note(_blamed(error, program), program, stage, partition))]
    if text == _NO_CHILDREN:
        added.append(_HOW_TO_HAVE_CHILDREN)
    for note in added:
        if note not in notes_of(error):
            add_note(error, note)
    notes = notes_of(error)
    notes = (*notes, *(note for note in added if note not in notes))
    return ExceptionFailure(
        type_name=_type_name(error),
        message=cut("\n".join((cut(text, MOST_CHARACTERS), *notes)), 2 * MOST_CHARACTERS),
        traceback=cut(_frames_as_text(error, own=own_frames), MOST_CHARACTERS),
        pickled=dumps(error),
        fatal=fatal,
    )


def _blamed(error: BaseException, program: StageProgram | None) -> Blame:
    if program is None:
        return Blame(())
    try:
        return blame(error, program)
    except BaseException:
        # Users' objects are looked at, and theirs may do anything: then what is known is the partition.
        return Blame(all_places(program))


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
    module = vars(type)["__module__"].__get__(type(error))  # a metaclass of the user's has no say in it
    return class_name(error) if module == "builtins" else f"{module}.{class_name(error)}"


def _frames_as_text(error: BaseException, *, own: bool) -> str:
    """The whole chain of causes as text, of users' frames alone unless ``own`` are wanted; empty when there are none."""
    try:
        described = traceback.TracebackException.from_exception(error, compact=True)
    except BaseException:
        # It shows its notes, and what it was looked for in: both may raise anything.
        return "".join(_unless_own(traceback.extract_tb(traceback_of(error)), own=own).format()).rstrip("\n")
    pending: list[traceback.TracebackException] = [described]
    some = False
    for each in pending:
        each.stack = _unless_own(each.stack, own=own)
        some = some or bool(each.stack)
        pending += [inner for inner in (each.__cause__, each.__context__, *(each.exceptions or ())) if inner is not None]
        if len(pending) > _MOST_IN_TEXT:
            break
    return "".join(described.format()).rstrip("\n") if some else ""


def _unless_own(stack: traceback.StackSummary, *, own: bool) -> traceback.StackSummary:
    return stack if own else traceback.StackSummary.from_list([frame for frame in stack if not is_own(frame.filename)])


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
        Raise it as it is. Its causes and contexts are those of the task; the frames there are text, and the first cause of all.
    """
    known = None if failure.pickled is None else loads(failure.pickled)
    told: BaseException | None = known
    if told is None or not issubclass(type(told), Exception):
        # Also for what is no Exception: a task's sys.exit() must not end the driver, nor its KeyboardInterrupt look like Ctrl-C.
        told = JobFailed(f"{failure.type_name}: {failure.message}", type_name=failure.type_name, raised=known)
    story = visible(story)
    if story and story not in notes_of(told):
        add_note(told, story)
    if failure.traceback:
        _hang_below(told, RemoteTraceback(_with_source(failure.traceback)))
    return told


def _hang_below(error: BaseException, last: BaseException) -> None:
    """Make ``last`` the first cause of all; what else is in a chain stays where it was."""
    seen = {id(error)}
    while (cause := cause_of(error)) is not None and id(cause) not in seen:
        error = cause
        seen.add(id(error))
    if cause is None:
        set_cause(error, last)


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
