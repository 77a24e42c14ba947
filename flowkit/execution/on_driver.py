"""Users' functions that run on the driver: merges of results, keys, comparisons, what unpickles results.

Runs on the driver, on any thread; objects may be shared by threads and are entered as often as one likes. Every such function runs inside
of ``OnDriver``, which is to the driver what ``pipeline.run_program`` and ``failure.describe`` are to tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flowkit.errors import JobFailed, StopIterationInTask
from flowkit.execution.actions import ReduceRows, TopRows
from flowkit.execution.blame import Blame, blame, innermost_user_function
from flowkit.execution.end_markers import function_name, leaked_stop_iteration
from flowkit.execution.narrow import at
from flowkit.lineage.kernels import Result, StageProgram
from flowkit.logs import is_ctrl_c
from flowkit.model.shown import class_name, in_words
from flowkit.tracebacks import add_note, cause_of, is_a, notes_of, set_cause
from flowkit.visible import visible

if TYPE_CHECKING:
    from types import TracebackType


class OnDriver:
    """A block in which functions of the user's run on the driver.

    What they raise leaves it as it is, with a note that says in which operation and that it was on the driver, as tasks have one. A
    ``StopIteration`` becomes ``errors.StopIterationInTask``: it would end the loops around it without a word, and no future can hold it.
    What is no ``Exception`` becomes ``errors.JobFailed``, as it does in tasks: a ``SystemExit`` would end the driver as if all were well.
    A ``KeyboardInterrupt`` in the main thread stays what it is, for it may be the user's Ctrl-C.

    Parameters
    ----------
    operation, call_site
        What the user called, and where.
    merge
        The function that is called with two values, if any.
    key
        The function that is called with one, if any.
    doing
        What flowkit does meanwhile, for people.

    Examples
    --------
    >>> from functools import reduce
    >>> def ratio(one, other):
    ...     return one / other
    >>> try:
    ...     with OnDriver("reduce", "words.py:12", merge=ratio):
    ...         reduce(ratio, [1, 0])
    ... except ZeroDivisionError as error:
    ...     error.__notes__
    ['In reduce at words.py:12 (function ratio), on the driver, merging 1 and 0']
    """

    __slots__ = ("_call_site", "_doing", "_key", "_merge", "_operation")

    def __init__(
        self,
        operation: str,
        call_site: str,
        *,
        merge: Callable[[Any, Any], Any] | None = None,
        key: Callable[[Any], Any] | None = None,
        doing: str = "",
    ) -> None:
        # Kept as they are: nearly every block ends well, and then nothing is made of them.
        self._operation = operation
        self._call_site = call_site
        self._merge = merge
        self._key = key
        self._doing = doing

    @property
    def _place(self) -> str:
        return at(self._operation, self._call_site)

    @property
    def _fn(self) -> Callable[..., Any] | None:
        return self._merge or self._key

    def _program(self) -> StageProgram:
        """The end of a stage that has no steps: whoever looks for the function at fault need not know of drivers."""
        fn = ReduceRows(self._merge) if self._merge is not None else TopRows(0, self._key)
        return StageProgram((), Result(fn, self._operation, self._call_site))

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None or is_ctrl_c(error):
            return
        leaked = _leaked(error)
        found = self._blamed(error if leaked is None else leaked)
        note = visible(self._note(found))
        if leaked is None:
            told = as_exception(error)
            if note not in notes_of(told):
                add_note(told, note)
            if told is not error:
                raise told from error
            return
        raised = leaked_stop_iteration(self._function(found, leaked), f"{self._place} on the driver", "ended the loops around it")
        raised.add_note(note)
        raise raised from leaked

    def _blamed(self, error: BaseException) -> Blame:
        try:
            return blame(error, self._program())
        except BaseException:  # users' objects are looked at, and theirs may do anything
            return Blame(())

    def _function(self, found: Blame, error: BaseException) -> str:
        if found.function is not None:
            return found.function
        return innermost_user_function(error) or (function_name(self._fn) if self._fn is not None else "a function")

    def _note(self, found: Blame) -> str:
        function = "" if found.function is None else f" (function {found.function})"
        doing = f", {self._doing}" if self._doing else ""
        detail = "" if found.detail is None else f", {found.detail}"
        return f"In {self._place}{function}, on the driver{doing}{detail}"


def as_exception(error: BaseException) -> Exception:
    """It, or a job's error that names it where it is no ``Exception``.

    >>> as_exception(SystemExit(3))
    JobFailed('SystemExit: 3')
    """
    if is_a(error, Exception):
        return error
    failed = JobFailed(in_words(error), type_name=class_name(error), raised=error)
    set_cause(failed, error)
    return failed


def without_stop_iteration(error: BaseException, operation: str, call_site: str) -> BaseException:
    """An exception that a future can hold; itself, unless it is a ``StopIteration``.

    >>> type(without_stop_iteration(StopIteration(), "collect_async", "words.py:12"))
    <class 'flowkit.errors.StopIterationInTask'>
    """
    if not is_a(error, StopIteration):
        return error
    try:
        with OnDriver(operation, call_site):
            raise error
    except StopIterationInTask as raised:
        return raised


def _leaked(error: BaseException) -> StopIteration | None:
    """The ``StopIteration`` that this is, or that a generator made this of (PEP 479)."""
    if is_a(error, StopIteration):
        return error
    if is_a(error, RuntimeError) and not is_a(error, StopIterationInTask):
        cause = cause_of(error)
        return cause if cause is not None and is_a(cause, StopIteration) else None
    return None
