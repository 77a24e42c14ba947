"""A user's exception, from the frame that raised it to the driver's traceback."""

from __future__ import annotations

import linecache
import pickle
import sys
import threading
import traceback
from functools import cache, partial, wraps
from operator import add
from typing import Any

import msgspec
import pytest

from flowkit.errors import InvalidArgument, JobFailed, StopIterationInTask
from flowkit.execution.actions import ExtremeRow, ReduceRows, TopRows, collect_rows
from flowkit.execution.elements import CopiedZero, Keyed, same
from flowkit.execution.failure import RemoteTraceback, describe, raise_at_driver
from flowkit.execution.recording import recording
from flowkit.lineage.kernels import (
    Aggregate,
    AggregationKind,
    Aggregator,
    Filter,
    FlatMap,
    IntegerRange,
    Map,
    MapPartitions,
    MapValues,
    ShuffleWrite,
    StageProgram,
)
from flowkit.lineage.partitioners import HashPartitioner
from flowkit.model.ids import ShuffleId
from flowkit.model.shown import text_of
from flowkit.model.task import ExceptionFailure
from tests.unit.execution.surroundings import Surroundings, chain_of, collect

SUM = Aggregator(same, add, add, AggregationKind.REDUCE)
SOURCE = IntegerRange(0, 10, 1, 1)


class TooLarge(Exception):
    """Needs two arguments, so Python alone could not unpickle it."""

    def __init__(self, number: int, *, limit: int) -> None:
        super().__init__(f"{number} > {limit}")
        self.number = number


class WithState(ValueError):
    def __init__(self, number: int, why: str) -> None:
        super().__init__(number, why)
        self.number = number


class OwnReduce(Exception):
    def __reduce__(self) -> tuple[Any, ...]:
        return OwnReduce, self.args


class HoldsALock(Exception):
    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


class Rude(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


def fails_at_seven(number: int) -> int:
    doubled = number * 2
    if number == 7:
        raise ValueError(f"bad number {doubled}")
    return number


def failure_of(surroundings: Surroundings, program: StageProgram) -> ExceptionFailure:
    with pytest.raises(Exception) as caught:
        surroundings.run(program)
    failure = describe(caught.value, program, 3, stage="stage 5 (map at here.py:1)")
    # as it travels
    return msgspec.msgpack.decode(msgspec.msgpack.encode(failure), type=ExceptionFailure)


def test_the_own_exception_arrives_with_its_arguments_and_where_it_happened(surroundings: Surroundings) -> None:
    error = raise_at_driver(failure_of(surroundings, chain_of(SOURCE, Map(abs), Map(fails_at_seven), Map(abs))))
    assert type(error) is ValueError
    assert error.args == ("bad number 14",)
    (note,) = error.__notes__
    assert note == "In map at here.py:2 (function fails_at_seven), partition 3 of stage 5 (map at here.py:1), for the element 7"


def test_the_driver_prints_the_users_frames_and_no_others(surroundings: Surroundings) -> None:
    failure = failure_of(surroundings, chain_of(SOURCE, Map(fails_at_seven)))
    assert "in fails_at_seven" in failure.traceback
    assert "flowkit/execution" not in failure.traceback
    try:
        raise raise_at_driver(failure)
    except ValueError:
        printed = traceback.format_exc()
    assert "in fails_at_seven" in printed
    assert printed.count("bad number 14") == 2  # the remote one and the one raised
    assert "In map at here.py:1" in printed


def element_in(surroundings: Surroundings, *kernels: Any, output: ShuffleWrite | None = None, fn: Any = collect) -> str:
    failure = failure_of(surroundings, chain_of(SOURCE, *kernels, output=output, fn=fn))
    return failure.message.split("\n")[-1]


class Adder:
    def __init__(self, limit: int) -> None:
        self.limit = limit

    def __call__(self, number: int) -> int:
        return fails_at_seven(number + self.limit)

    def method(self, number: int) -> int:
        return fails_at_seven(number)


def decorated(fn):
    @wraps(fn)
    def inner(*args):
        return fn(*args)

    return inner


def bad_at(limit: int, number: int) -> int:
    if number > limit:
        raise ValueError
    return number


def starred(*numbers: int) -> int:
    raise ValueError


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (Map(lambda x: 1 // (x - 4)), "for the element 4"),
        (Filter(fails_at_seven), "for the element 7"),
        (FlatMap(lambda x: [fails_at_seven(x)]), "for the element 7"),
        (Map(Adder(2)), "for the element 5"),
        (Map(Adder(2).method), "for the element 7"),
        (Map(partial(bad_at, 6)), "for the element 7"),
        (Map(decorated(fails_at_seven)), "for the element 7"),
        (Map(starred), "for the element 0"),
    ],
)
def test_the_failing_element_is_named(surroundings: Surroundings, kernel, expected: str) -> None:
    assert element_in(surroundings, kernel, Map(str)).endswith(expected)


def test_the_innermost_step_is_named_when_functions_lie_in_one_another(surroundings: Surroundings) -> None:
    told = element_in(surroundings, Map(fails_at_seven), MapPartitions(lambda it: (x for x in it)))
    assert "In map at here.py:1 (function fails_at_seven)" in told
    told = element_in(surroundings, Map(lambda x: (x, x)), MapValues(lambda v: 1 // (v - 3)))
    assert "mapvalues at here.py:2" in told
    assert told.endswith("for the element 3")


def test_functions_in_our_own_wrappers_are_called_by_their_name(surroundings: Surroundings) -> None:
    assert "(function fails_at_seven)" in element_in(surroundings, Map(Keyed(fails_at_seven)))
    assert element_in(surroundings, Map(Keyed(fails_at_seven))).endswith("for the element 7")
    assert "(function Adder)" in element_in(surroundings, Map(Adder(2)))
    assert "(function bad_at)" in element_in(surroundings, Map(partial(bad_at, 6)))


def test_a_partition_function_names_no_element(surroundings: Surroundings) -> None:
    def whole(it):
        for x in it:
            yield 1 // (x - 3)

    told = element_in(surroundings, MapPartitions(whole))
    assert "In mappartitions at here.py:1 (function " in told
    assert "for the element" not in told


def test_reducers_are_named_on_both_sides_of_a_shuffle(surroundings: Surroundings) -> None:
    def reducer(a: int, b: int) -> int:
        raise KeyError("x")

    aggregator = Aggregator(lambda v: v, reducer, reducer, AggregationKind.REDUCE)
    assert "reducer" in element_in(surroundings, Map(lambda x: (1, x)), Aggregate(aggregator))
    write = ShuffleWrite(ShuffleId(1), HashPartitioner(2), aggregator)
    assert "In the shuffle after map at here.py:1 (function " in element_in(surroundings, Map(lambda x: (1, x)), output=write)


def test_what_a_reducer_was_to_merge_is_named(surroundings: Surroundings) -> None:
    def reducer(a: int, b: int) -> int:
        raise KeyError("x")

    pairs = Map(lambda x: (1, x))
    aggregator = Aggregator(same, reducer, reducer, AggregationKind.REDUCE)
    write = ShuffleWrite(ShuffleId(1), HashPartitioner(2), aggregator, "reduce_by_key", "here.py:7")
    assert "In reduce_by_key at here.py:7 (function " in element_in(surroundings, pairs, output=write)
    assert element_in(surroundings, pairs, output=write).endswith("merging 0 and 1")
    aggregator = Aggregator(CopiedZero([], reducer), reducer, reducer)
    assert element_in(surroundings, pairs, Aggregate(aggregator)).endswith("merging [] and 0")
    assert element_in(surroundings, fn=ReduceRows(reducer)).endswith("merging 0 and 1")
    assert element_in(surroundings, fn=ExtremeRow(max, fails_at_seven)).endswith("for the element 7")


def test_the_pair_that_a_reducer_written_in_c_choked_on_is_named(surroundings: Surroundings) -> None:
    mixed = Map(lambda x: (1, "seven" if x == 7 else x))
    write = ShuffleWrite(ShuffleId(1), HashPartitioner(2), SUM, "reduce_by_key", "here.py:7")
    told = element_in(surroundings, mixed, output=write)
    assert told == "In reduce_by_key at here.py:7, partition 3 of stage 5 (map at here.py:1), for the element (1, 'seven')"


def test_a_reducer_is_not_blamed_for_what_failed_before_it(surroundings: Surroundings) -> None:
    write = ShuffleWrite(ShuffleId(1), HashPartitioner(2), SUM, "reduce_by_key", "here.py:7")
    not_a_number = Map(lambda x: "x" if x == 7 else "1")
    told = element_in(surroundings, not_a_number, Map(int), Map(lambda x: (x, x)), output=write)
    assert told == "In map at here.py:2 (function int), partition 3 of stage 5 (map at here.py:1)"


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (FlatMap(lambda x: (fails_at_seven(each) for each in [x])), "In flatmap at here.py:1 (function "),
        (FlatMap(lambda x: map(fails_at_seven, [x])), "In flatmap at here.py:1 (function fails_at_seven)"),
        (FlatMap(lambda x: x), "In flatmap at here.py:1 (function "),
        (MapPartitions(lambda rows: map(fails_at_seven, rows)), "In mappartitions at here.py:1 (function fails_at_seven)"),
        (MapPartitions(lambda rows: (fails_at_seven(x) for x in rows)), "In mappartitions at here.py:1 (function "),
        (MapPartitions(lambda rows: None), "In mappartitions at here.py:1, "),
        (MapValues(abs), "In mapvalues at here.py:1, "),
        (Map("x".index), "In map at here.py:1 (function str.index)"),
    ],
)
def test_what_fails_when_a_lazy_result_is_consumed_is_laid_to_who_returned_it(
    surroundings: Surroundings, kernel, expected: str
) -> None:
    assert element_in(surroundings, kernel, fn=collect_rows).startswith(expected)


def test_a_function_given_to_two_operations_is_laid_to_both(surroundings: Surroundings) -> None:
    told = element_in(surroundings, Map(fails_at_seven), Map(fails_at_seven))
    assert "in one of map at here.py:1, map at here.py:2 (function fails_at_seven), for the element 7" in told


def test_comparing_and_hashing_are_laid_to_who_needs_it(surroundings: Surroundings) -> None:
    class Unsortable:
        def __lt__(self, other: object) -> bool:
            raise RuntimeError("no")

    told = element_in(surroundings, Map(lambda x: Unsortable()), fn=TopRows(3, None))
    assert "In collect at here.py:99 (function " in told
    assert "__lt__)" in told
    write = ShuffleWrite(ShuffleId(1), HashPartitioner(2), None, "partition_by", "here.py:7")
    assert element_in(surroundings, Map(lambda x: ([], x)), output=write).startswith("In partition_by at here.py:7, ")


def test_functions_written_in_c_are_named_by_operation(surroundings: Surroundings) -> None:
    told = element_in(surroundings, Map(lambda x: "x"), Map(int), Map(str))
    assert (
        told
        == "In partition 3 of stage 5 (map at here.py:1), in one of map at here.py:2, map at here.py:3, collect at here.py:99"
    )


def test_a_long_element_is_cut_and_a_nasty_one_does_no_harm(surroundings: Surroundings) -> None:
    class Nasty:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    def fail(x: object) -> None:
        raise ValueError

    told = element_in(surroundings, Map(lambda x: "a" * 10_000), Map(fail))
    assert told.endswith("aaa...")
    assert len(told) < 400
    assert "Nasty whose repr raises RuntimeError" in element_in(surroundings, Map(lambda x: Nasty()), Map(fail))


@pytest.mark.parametrize(
    ("error", "arrives_as"),
    [
        (WithState(3, "why"), WithState),
        (OwnReduce("x"), OwnReduce),
        (TooLarge(3, limit=2), TooLarge),
        (HoldsALock(), JobFailed),
        (Rude(), Rude),
        (InvalidArgument("bad", name="n", value=1, allowed="2"), InvalidArgument),
        (OSError(2, "none", "file"), FileNotFoundError),
        (KeyError("k"), KeyError),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), UnicodeDecodeError),
        (ExceptionGroup("several", [ValueError(1), TypeError(2)]), ExceptionGroup),
        (SystemExit(3), JobFailed),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, BaseException) else x.__name__,
)
def test_exceptions_of_every_make_arrive(surroundings: Surroundings, error: BaseException, arrives_as: type) -> None:
    def fail(x: int) -> None:
        raise error

    program = chain_of(SOURCE, Map(fail))
    with pytest.raises(type(error)):
        surroundings.run(program)
    arrived = raise_at_driver(describe(error, program, 0, stage="stage 1"), "tried 4 times")
    assert type(arrived) is arrives_as
    text = "\n".join([text_of(arrived), *arrived.__notes__])
    if arrives_as is not JobFailed:
        assert repr(arrived.args) == repr(error.args)
    else:
        assert f"{type(error).__name__}: {error}" in str(arrived)
    assert text.count("In map at here.py:1") == 1
    assert "for the element 0" in text
    assert "tried 4 times" in text
    assert isinstance(deepest_cause(arrived), RemoteTraceback)


def deepest_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def arrived(error: BaseException) -> BaseException:
    return raise_at_driver(describe(error, None, 0))


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit("g"), BaseException("b")], ids=repr)
def test_what_is_no_exception_is_a_jobs_error_that_carries_it(error: BaseException) -> None:
    found = arrived(error)
    assert type(found) is JobFailed
    assert found.type_name == type(error).__name__
    assert type(found.raised) is type(error)
    assert found.raised.args == error.args
    assert getattr(found.raised, "code", None) == getattr(error, "code", None)


def test_causes_and_contexts_are_exceptions_at_the_driver_too() -> None:
    try:
        try:
            {}["key"]
        except KeyError as error:
            raise WithState(3, "why") from error
    except WithState as caught:
        found = arrived(caught)
    assert type(found.__cause__) is KeyError
    assert found.__cause__ is found.__context__
    assert isinstance(deepest_cause(found), RemoteTraceback)
    try:
        try:
            {}["key"]
        except KeyError:
            raise WithState(3, "why")  # noqa: B904
    except WithState as caught:
        found = arrived(caught)
    assert isinstance(found.__cause__, RemoteTraceback)
    assert type(found.__context__) is KeyError


def test_a_ring_of_causes_arrives() -> None:
    first, second = ValueError("first"), TypeError("second")
    first.__cause__, second.__cause__ = second, first
    found = arrived(first)
    assert type(found) is ValueError
    assert found.__cause__ is not None
    assert found.__cause__.__cause__ is found


class Hostile(Exception):
    """Raises what is no Exception wherever it is looked at."""

    def refuse(self, *_: object) -> Any:
        raise KeyboardInterrupt

    __str__ = __repr__ = __bool__ = __eq__ = __hash__ = __reduce__ = __reduce_ex__ = add_note = refuse
    __notes__ = property(refuse)


class LoadExits(Exception):
    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, (3,)


class ReprExits:
    def __repr__(self) -> str:
        raise SystemExit(3)


def test_whatever_an_exception_does_when_it_is_looked_at_it_is_described(surroundings: Surroundings) -> None:
    for error in (Hostile("x"), LoadExits("q"), ValueError(ReprExits())):

        def fail(x: object, error: BaseException = error) -> None:
            raise error

        program = chain_of(SOURCE, Map(lambda x: ReprExits()), Map(fail))
        with pytest.raises(type(error)):
            surroundings.run(program)
        failure = describe(error, program, 0, stage="stage 1")
        assert type(error).__name__ in failure.type_name
        assert "for the element <ReprExits whose repr raises SystemExit>" in failure.message
        assert type(raise_at_driver(failure, "tried 4 times")) in {type(error), JobFailed}


def test_a_long_text_is_cut_and_the_rest_counted() -> None:
    failure = describe(ValueError("A" * 3_000_000), None, 0)
    assert len(failure.message) + len(failure.traceback) + len(failure.pickled or b"") < 50_000
    found = raise_at_driver(failure)
    assert type(found) is ValueError
    assert str(found).startswith("AAAA")
    assert str(found).endswith("A... (2,991,808 more characters)")
    assert type(arrived(HoldsALock())) is JobFailed


def test_an_address_in_a_text_does_not_keep_an_exception_from_arriving() -> None:
    assert type(arrived(ValueError(Adder(2)))) is ValueError


def test_a_large_object_that_an_attribute_was_missing_of_stays_behind() -> None:
    with pytest.raises(AttributeError) as caught:
        [bytes(1_000_000)].missing  # noqa: B018
    found = arrived(caught.value)
    assert (type(found), str(found), found.name, found.obj) == (AttributeError, str(caught.value), "missing", None)


def test_an_exception_unknown_to_the_driver_arrives_as_text(surroundings: Surroundings) -> None:
    failure = failure_of(surroundings, chain_of(SOURCE, Map(fails_at_seven)))
    failure = msgspec.structs.replace(failure, pickled=pickle.dumps(ValueError()).replace(b"ValueError", b"ValueErrox"))
    error = raise_at_driver(failure)
    assert type(error) is JobFailed
    assert "ValueError: bad number 14" in str(error)


def test_only_a_wrong_program_is_fatal(surroundings: Surroundings) -> None:
    def leak(x: int) -> None:
        raise StopIteration

    leaked = failure_of(surroundings, chain_of(SOURCE, Map(leak)))
    assert leaked.fatal
    assert type(raise_at_driver(leaked)) is StopIterationInTask
    assert not failure_of(surroundings, chain_of(SOURCE, Map(fails_at_seven))).fatal


def test_causes_are_printed_and_searched(surroundings: Surroundings) -> None:
    def wrap(x: int) -> int:
        try:
            return fails_at_seven(x)
        except ValueError as error:
            raise RuntimeError("wrapped") from error

    failure = failure_of(surroundings, chain_of(SOURCE, Map(wrap)))
    assert "direct cause" in failure.traceback
    assert "bad number 14" in failure.traceback
    assert failure.message.endswith("for the element 7")


def test_a_program_that_could_not_be_loaded_has_no_operations() -> None:
    failure = describe(ModuleNotFoundError("no module named 'x'"), None, 2, stage="stage 1 (count)")
    assert failure.message == "no module named 'x'\nIn partition 2 of stage 1 (count)"


def test_describing_twice_adds_one_note(surroundings: Surroundings) -> None:
    error = ValueError("x")
    program = chain_of(SOURCE, Map(add))
    assert describe(error, program, 0).message == describe(error, program, 0).message


def test_lines_of_a_notebooks_cell_are_shown_though_executors_do_not_have_them() -> None:
    cell = "/tmp/ipykernel_1/77.py"
    linecache.cache[cell] = (20, None, ["def parse(x):\n", "    return 1 / x\n"], cell)
    frames = f'Traceback (most recent call last):\n  File "{cell}", line 2, in parse\n  File "/gone.py", line 3, in other\nZeroDivisionError'
    error = raise_at_driver(ExceptionFailure("ZeroDivisionError", "", frames, pickle.dumps(ZeroDivisionError())))
    del linecache.cache[cell]
    told = str(deepest_cause(error))
    assert f'File "{cell}", line 2, in parse\n    return 1 / x\n  File "/gone.py", line 3, in other\nZeroDivisionError' in told


def down(n: int) -> int:
    return 1 // 0 if n == 7 else down(n - 1)


def rebinds(line: Any) -> int:
    line = int(line) * 100
    return 1 // (line - 700)


def merges_into(a: int, b: int) -> int:
    a += b
    raise KeyError(a)


def calls_fails_at_seven(number: int) -> int:
    return fails_at_seven(number + 4)


def adds(number: int) -> int:
    return number + 4


def coerced(fn):
    @wraps(fn)
    def inner(element):
        return fn(element + 4)

    return inner


def generates(number: int):
    yield number
    number = number + 1
    yield fails_at_seven(number)


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (Map(lambda x: down(x + 50)), "for the element 0"),
        (
            Map(calls_fails_at_seven),
            "(function calls_fails_at_seven), partition 3 of stage 5 (map at here.py:1), for the element 3",
        ),
        (Map(coerced(fails_at_seven)), "for the element 3"),
        (Map(partial(Adder(0).method)), "for the element 7"),
        (Map(partial(lambda self, x: fails_at_seven(x), None)), "for the element 7"),
        (Map(cache(fails_at_seven)), "for the element 7"),
    ],
)
def test_the_element_is_what_the_operation_gave(surroundings: Surroundings, kernel, expected: str) -> None:
    assert element_in(surroundings, kernel, Map(str)).endswith(expected)


def test_the_element_of_a_recursive_function_is_the_outermost_calls(surroundings: Surroundings) -> None:
    assert element_in(surroundings, Map(lambda x: x + 50), Map(down)).endswith("for the element 50")


def test_functions_that_call_one_another_are_told_apart_by_who_was_called_by_the_operation(surroundings: Surroundings) -> None:
    told = element_in(surroundings, Map(calls_fails_at_seven), Map(fails_at_seven))
    assert "In map at here.py:1 (function calls_fails_at_seven)" in told
    assert told.endswith("for the element 3")


def test_two_functions_of_one_decorator_are_told_apart(surroundings: Surroundings) -> None:
    told = element_in(surroundings, Map(decorated(adds)), Map(decorated(fails_at_seven)))
    assert told.startswith("In map at here.py:2 (function fails_at_seven)")
    assert told.endswith("for the element 7")


def test_a_row_that_is_an_iterator_over_earlier_steps_is_not_blamed_for_them(surroundings: Surroundings) -> None:
    told = element_in(surroundings, Map(fails_at_seven), MapPartitions(lambda rows: [rows]), Map(lambda rows: sum(rows)))
    assert told.startswith("In map at here.py:1 (function fails_at_seven)")
    assert told.endswith("for the element 7")


def test_an_argument_that_was_set_anew_is_not_shown_as_the_element(surroundings: Surroundings) -> None:
    assert element_in(surroundings, Map(rebinds)).endswith("for an element of which the function has made line = 700")
    assert element_in(surroundings, FlatMap(generates)).endswith("for an element of which the function has made number = 7")
    merged = element_in(surroundings, fn=ReduceRows(merges_into))
    assert merged.endswith("for two values of which the function has made a = 1")


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (Map(rebinds), "for the element 7"),
        (Map(decorated(rebinds)), "for the element 7"),
        (Filter(rebinds), "for the element 7"),
        (FlatMap(generates), "for the element 6"),
        (Map((0, 1, 2, 3).__getitem__), "for the element 4"),
    ],
)
def test_where_it_is_tried_again_functions_remember_what_their_frames_do_not_tell(
    surroundings: Surroundings, kernel, expected: str
) -> None:
    program = recording(chain_of(SOURCE, kernel))
    told = failure_of(surroundings, program).message.split("\n")[-1]
    assert told.startswith(f"In {type(kernel).__name__.lower()} at here.py:1 (function ")
    assert told.endswith(expected)


def test_functions_whose_frames_tell_their_element_are_called_as_they_are() -> None:
    program = chain_of(SOURCE, Map(down), Map(Keyed(fails_at_seven)), FlatMap(lambda x: [x]), MapPartitions(list))
    assert recording(program) is program


def test_pairs_values_are_remembered_too(surroundings: Surroundings) -> None:
    program = recording(chain_of(SOURCE, Map(lambda x: (x, str(x) if x < 5 else "five")), MapValues(int)))
    told = failure_of(surroundings, program).message.split("\n")[-1]
    assert "In mapvalues at here.py:2 (function int)" in told
    assert told.endswith("for the element 'five'")
