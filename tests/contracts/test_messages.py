"""What crosses a process border survives the way: errors by pickle, stimuli, actions, events and reports by msgspec."""

from __future__ import annotations

import dataclasses
import pickle
import typing

import cloudpickle
import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from flowkit import errors
from flowkit.model import events, job_spec, map_status, task
from flowkit.model.storage_level import StorageLevel
from flowkit.scheduling import actions, stimuli


def tree(root: type) -> list[type]:
    """A class and all below it, each once, in the order of their definition."""
    found = {root: None}
    for each in root.__subclasses__():
        found.update(dict.fromkeys(tree(each)))
    return list(found)


ERRORS = [each for each in tree(errors.FlowkitError) if each.__module__ == errors.__name__]


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("library", [pickle, cloudpickle])
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_survives_pickling_with_its_message_data_and_notes(kind, library, protocol):
    error = kind("no space on /tmp", path="/tmp", sizes=[1, 2])
    error.add_note("in partition 3")
    copy = pickle.loads(library.dumps(error, protocol=protocol))
    assert type(copy) is kind
    assert str(copy) == str(error)
    assert copy.message == "no space on /tmp"
    assert (copy.path, copy.sizes) == ("/tmp", [1, 2])
    assert copy.__notes__ == ["in partition 3"]


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_stands_in_the_tree_at_the_head_of_its_module_and_is_documented(kind):
    assert kind.__name__ in errors.__doc__
    assert kind.__doc__


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_without_a_datum_says_so_and_is_not_a_riddle(kind):
    with pytest.raises(AttributeError, match="no attribute 'nothing_of_the_kind'"):
        kind("text").nothing_of_the_kind


def test_the_tree_at_the_head_names_no_error_that_is_not_there():
    drawn = [line.split("+-- ")[1].split()[0] for line in errors.__doc__.splitlines() if "+-- " in line]
    assert sorted([*drawn, "FlowkitError"]) == sorted(each.__name__ for each in ERRORS)


# -- messages ----------------------------------------------------------------------------------------------------------

UNIONS = {"stimulus": stimuli.Stimulus, "action": actions.Action, "event": events.Event, "report": task.TaskReport}
MEMBERS = [(name, member) for name, union in UNIONS.items() for member in typing.get_args(union)]


def finite(kind: object) -> st.SearchStrategy:
    """Values of a message type; floats are times and sizes, so never NaN."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, typing.NewType):
        return finite(kind.__supertype__)
    if origin is typing.Annotated:
        return within(*arguments)
    if kind is int:
        return st.integers(-(2**63), 2**63 - 1)
    if kind is float:
        return st.floats(allow_nan=False, allow_infinity=False)
    if kind is str:
        return st.text(max_size=12)
    if kind is bytes:
        return st.binary(max_size=40)
    if kind is bool:
        return st.booleans()
    if kind is type(None):
        return st.none()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind, include_extras=True)
        return st.builds(kind, **{each.name: finite(hints[each.name]) for each in msgspec.structs.fields(kind)})
    if kind is StorageLevel:
        return st.builds(
            dataclasses.replace, st.sampled_from([StorageLevel.MEMORY_ONLY, StorageLevel.OFF_HEAP]), replication=st.integers(1, 8)
        )
    if isinstance(kind, type) and hasattr(kind, "__members__"):
        return st.sampled_from(list(kind))
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(finite(arguments[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*map(finite, arguments))
    if origin is dict:
        return st.dictionaries(finite(arguments[0]), finite(arguments[1]), max_size=2)
    if arguments:  # a union
        return st.one_of(*map(finite, arguments))
    raise TypeError(f"messages should not hold {kind}")


def within(kind: object, *limits: msgspec.Meta) -> st.SearchStrategy:
    """Values that a message type with limits may have."""
    low = max((each.ge if each.gt is None else each.gt for each in limits if (each.ge, each.gt) != (None, None)), default=None)
    high = min((each.le for each in limits if each.le is not None), default=None)
    if any(each.pattern for each in limits):
        return st.binary(min_size=16, max_size=32).map(bytes.hex)  # digests
    if kind is int:
        return st.integers(low, high)
    if kind is float:
        return st.floats(low, high, exclude_min=any(each.gt is not None for each in limits))
    return finite(kind)


@pytest.mark.parametrize("name, member", MEMBERS, ids=lambda each: getattr(each, "__name__", each))
def test_every_message_survives_the_wire(name, member):
    decoder = msgspec.msgpack.Decoder(UNIONS[name])

    @settings(max_examples=10, database=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(finite(member))
    def survives(message):
        assert decoder.decode(msgspec.msgpack.encode(message)) == message

    survives()


@pytest.mark.parametrize("member", typing.get_args(events.Event), ids=lambda each: each.__name__)
def test_every_event_survives_the_event_log(member):
    """The log is JSON: keys of mappings become text there and come back as what they were."""
    decoder = msgspec.json.Decoder(events.Event)

    @settings(max_examples=10, database=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(finite(member))
    def survives(event):
        assert decoder.decode(msgspec.json.encode(event)) == event

    survives()


@pytest.mark.parametrize("name, member", MEMBERS, ids=lambda each: getattr(each, "__name__", each))
def test_every_message_is_frozen_and_documented(name, member):
    assert member.__struct_config__.frozen
    assert member.__doc__ and "Struct" not in member.__doc__


@pytest.mark.parametrize("name", UNIONS)
def test_every_message_class_of_a_module_is_in_its_union(name):
    module = {"stimulus": stimuli, "action": actions, "event": events}.get(name)
    if module is None:
        return
    base = {"stimulus": "_Stimulus", "action": "_Action", "event": "_Event"}[name]
    assert set(tree(getattr(module, base))) - {getattr(module, base)} == set(typing.get_args(UNIONS[name]))


@pytest.mark.parametrize("kind", [job_spec.JobSpec, map_status.ShuffleSources, task.StageDefinition, task.TaskLaunch])
def test_what_messages_are_made_of_survives_the_wire(kind):
    decoder = msgspec.msgpack.Decoder(kind)

    @settings(max_examples=10, database=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(finite(kind))
    def survives(message):
        assert decoder.decode(msgspec.msgpack.encode(message)) == message

    survives()


def test_no_message_is_a_plain_dataclass():
    """Dataclasses have no wire form of ours; one in the unions would travel by accident of msgspec's support for them."""
    assert not any(dataclasses.is_dataclass(member) for _, member in MEMBERS)
