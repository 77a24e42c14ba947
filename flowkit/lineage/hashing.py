"""A hash of keys that is the same in every process: equal keys hash equal, whatever their types and PYTHONHASHSEED.

Pure; runs on executors' slot threads and at the driver. Batches go at C speed where all keys are of one plain type.

Python's own hash of numbers is not randomised and already makes ``1``, ``1.0``, ``True``, ``Decimal(1)`` and numpy's
ones equal, so numbers start from it. Text and bytes start from CRC-32, tuples combine their elements' hashes, and
everything ends in the finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators",
2014), since neither a small integer nor a CRC may be trusted to spread by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum
from numbers import Number
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from zlib import crc32

from flowkit.errors import UnstableHash

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MASK = 0xFFFF_FFFF_FFFF_FFFF
_MULTIPLIER_1 = 0xBF58_476D_1CE4_E5B9
_MULTIPLIER_2 = 0x94D0_49BB_1331_11EB
#: Python's modulus for the hash of numbers on 64-bit builds, ``sys.hash_info.modulus``
_NUMBER_MODULUS = (1 << 61) - 1

#: what keeps kinds of keys apart that are never equal; any different odd numbers would do
_SEED_NONE = 0x9E37_79B9_7F4A_7C15
_SEED_TUPLE = 0xC2B2_AE3D_27D4_EB4F
_SEED_SET = 0x1656_67B1_9E37_79F9
_SEED_NAN = 0x27D4_EB2F_1656_67C5
_SEED_DATE = 0x8532_32A1_04D2_6E35
_SEED_TIME = 0x6C8E_9CF5_7093_2BD5
_SEED_DELTA = 0x5851_F42D_4C95_7F2D

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - naive on purpose: the anchor of naive datetimes
_EPOCH_UTC = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def stable_hash(key: Any) -> int:
    """Hash one key, the same in every process.

    Parameters
    ----------
    key
        ``None``, a number (also of numpy, ``decimal`` and ``fractions``), ``str``, ``bytes``, a date, time, datetime
        or timedelta, a UUID, an enum member, an instance of a frozen dataclass, or a tuple or frozenset of these.

    Returns
    -------
    int
        64 bits, unsigned.

    Raises
    ------
    errors.UnstableHash
        For a type whose hash differs between processes, or of which flowkit cannot know.
    TypeError
        For a key that cannot be hashed at all, such as a list.

    Examples
    --------
    >>> stable_hash(1) == stable_hash(1.0) == stable_hash(True)
    True
    >>> stable_hash(("a", 1)) == stable_hash(("a", 2))
    False
    """
    return _mix(_raw(key))


def stable_hashes(keys: Sequence[Any] | NDArray[np.signedinteger[Any]]) -> NDArray[np.uint64]:
    """Hash many keys; entry ``i`` is ``stable_hash(keys[i])``.

    An array of signed integers stands for a list of ints. Cost: about 40 ns an int, 80 ns a short str, 100 ns and its elements' a tuple.
    """
    return _mix_array(_raw_array(keys))


# -- one key -----------------------------------------------------------------------------------------------------------


def _mix(value: int) -> int:
    value &= _MASK
    value = ((value ^ (value >> 30)) * _MULTIPLIER_1) & _MASK
    value = ((value ^ (value >> 27)) * _MULTIPLIER_2) & _MASK
    return value ^ (value >> 31)


def _raw(key: Any) -> int:
    kind = type(key)
    hasher = _HASHERS.get(kind)
    if hasher is None:
        hasher = _find_hasher(key, kind)
    return hasher(key)


def _hash_number(key: Any) -> int:
    # A NaN equals nothing, but a task that runs again must put it where it was; Python hashes it by address.
    if key != key:  # noqa: PLR0124 (that is how one asks)
        return _SEED_NAN
    return hash(key) & _MASK


def _hash_exact_int(key: int) -> int:
    return hash(key) & _MASK


def _hash_text(key: str) -> int:
    try:
        return crc32(str.encode(key))
    except UnicodeEncodeError:
        return crc32(str.encode(key, errors="surrogatepass"))


def _hash_bytes(key: bytes) -> int:
    return crc32(key)


def _hash_none(key: None) -> int:
    return _SEED_NONE


def _hash_tuple(key: tuple[Any, ...]) -> int:
    state = _SEED_TUPLE
    for element in tuple.__iter__(key):
        state = _mix(state + _raw(element))
    return state ^ tuple.__len__(key)


def _hash_frozenset(key: frozenset[Any]) -> int:
    # A sum does not depend on the order in which a set is walked.
    return (_SEED_SET + sum(map(stable_hash, key))) & _MASK


def _hash_datetime(key: datetime) -> int:
    # Aware datetimes are equal when they are one instant; naive ones are another kind and only share the anchor.
    offset = key.utcoffset()
    naive = datetime(  # noqa: DTZ001
        key.year, key.month, key.day, key.hour, key.minute, key.second, key.microsecond
    )
    elapsed = naive - _EPOCH
    if offset is not None:
        elapsed -= offset
    return _SEED_DATE ^ ((elapsed // _MICROSECOND) & _MASK)


def _hash_date(key: date) -> int:
    return _SEED_DATE ^ date.toordinal(key)


def _hash_time(key: time) -> int:
    total = ((key.hour * 60 + key.minute) * 60 + key.second) * 1_000_000 + key.microsecond
    offset = key.utcoffset()
    if offset is not None:
        total -= offset // _MICROSECOND
    return _SEED_TIME ^ (total & _MASK)


def _hash_timedelta(key: timedelta) -> int:
    return _SEED_DELTA ^ ((key // _MICROSECOND) & _MASK)


def _hash_uuid(key: Any) -> int:
    return _hash_exact_int(key.int)


def _hash_enum(key: Enum) -> int:
    kind = type(key)
    return _hash_tuple((kind.__module__, kind.__qualname__, key.name))


_HASHERS: dict[type, Callable[[Any], int]] = {
    int: _hash_exact_int,
    bool: _hash_exact_int,
    float: _hash_number,
    str: _hash_text,
    bytes: _hash_bytes,
    type(None): _hash_none,
    tuple: _hash_tuple,
    frozenset: _hash_frozenset,
    datetime: _hash_datetime,
    date: _hash_date,
    time: _hash_time,
    timedelta: _hash_timedelta,
}


def _find_hasher(key: Any, kind: type) -> Callable[[Any], int]:
    hasher = _hasher_of_type(kind)
    if hasher is None:
        raise _refusal(key, kind)
    _HASHERS[kind] = hasher
    return hasher


#: a subclass hashes like its base as long as it also compares like it
_BY_BASE: tuple[tuple[type, Callable[[Any], int]], ...] = (
    (str, _hash_text),
    (bytes, _hash_bytes),
    (tuple, _hash_tuple),
    (frozenset, _hash_frozenset),
    (datetime, _hash_datetime),
    (date, _hash_date),
    (time, _hash_time),
    (timedelta, _hash_timedelta),
)


def _hasher_of_type(kind: type) -> Callable[[Any], int] | None:
    if kind.__module__ == "numpy" and kind.__name__ in {"datetime64", "timedelta64"}:
        return None  # equal to dates, datetimes and integers in ways that no hash can follow
    if issubclass(kind, Number) or (kind.__module__ == "numpy" and kind.__name__ in {"bool", "bool_"}):
        return _hash_number
    for base, hasher in _BY_BASE:
        if issubclass(kind, base):
            return hasher if _compares_like(kind, base) or _is_foreign_scalar(kind) else None
    if issubclass(kind, Enum):
        return _hash_enum if _compares_like(kind, object) else None
    if kind.__module__ == "uuid" and kind.__name__ == "UUID":
        return _hash_uuid
    if _is_plain_dataclass(kind):
        return _dataclass_hasher(kind)
    return None


def _compares_like(kind: Any, base: Any) -> bool:
    return kind.__eq__ is base.__eq__


def _is_foreign_scalar(kind: type) -> bool:
    # numpy.str_, numpy.bytes_ and pandas.Timestamp define comparisons of their own that agree with the base's.
    return kind.__module__.partition(".")[0] in {"numpy", "pandas"}


def _is_plain_dataclass(kind: type) -> bool:
    # Only where dataclasses wrote both methods is equality known to be that of the fields.
    if not hasattr(kind, "__dataclass_fields__") or kind.__hash__ is None:
        return False
    methods = (getattr(kind, name, None) for name in ("__eq__", "__hash__"))
    return all(getattr(getattr(method, "__code__", None), "co_filename", "") == "<string>" for method in methods)


def _dataclass_hasher(kind: Any) -> Callable[[Any], int]:
    names = tuple(
        each.name
        for each in kind.__dataclass_fields__.values()
        if each.compare and (each.hash is None or each.hash) and each._field_type.name == "_FIELD"
    )
    label = f"{kind.__module__}.{kind.__qualname__}"

    def hash_fields(key: Any) -> int:
        return _hash_tuple((label, *(getattr(key, name) for name in names)))

    return hash_fields


def _refusal(key: Any, kind: type) -> UnstableHash:
    hash(key)  # what cannot be hashed at all says so itself, with Python's own TypeError
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return UnstableHash(
        f"keys of type {name} cannot be told apart alike in every process: their hash goes by address, by a random seed, "
        "or by a method flowkit cannot know. Use a str, a number, a tuple of those or a frozen dataclass as the key, e.g. "
        "rdd.key_by(lambda x: (x.field, ...)), or partition by a function of your own: rdd.partition_by(n, fn).",
        key_type=name,
    )


# -- many keys ---------------------------------------------------------------------------------------------------------


def _mix_array(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    import numpy as np

    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(_MULTIPLIER_1)
    values ^= values >> np.uint64(27)
    values *= np.uint64(_MULTIPLIER_2)
    values ^= values >> np.uint64(31)
    return values


def _raw_array(keys: Sequence[Any] | NDArray[np.signedinteger[Any]]) -> NDArray[np.uint64]:
    import numpy as np

    if isinstance(keys, np.ndarray):
        return _raw_integers(keys)
    count = len(keys)
    kinds = set(map(type, keys))
    if kinds <= {int, bool}:
        return np.fromiter(map(hash, keys), np.int64, count).view(np.uint64)
    if len(kinds) == 1:
        kind = next(iter(kinds))
        if kind is str:
            return np.fromiter(_crc_of_texts(keys), np.uint64, count)
        if kind is bytes:
            return np.fromiter(map(crc32, keys), np.uint64, count)
        if kind is tuple:
            return _raw_tuples(keys)
    return np.fromiter(map(_raw, keys), np.uint64, count)


def _raw_integers(keys: NDArray[np.signedinteger[Any]]) -> NDArray[np.uint64]:
    # What Python's hash(int) does: the value modulo 2**61 - 1 with its sign, and -2 in the place of -1.
    import numpy as np

    hashes = keys.astype(np.int64)
    if len(keys) and (hashes.max() >= _NUMBER_MODULUS or hashes.min() <= -_NUMBER_MODULUS):
        hashes = np.fmod(hashes, np.int64(_NUMBER_MODULUS))
    if len(keys) and hashes.min() < 0:
        hashes = np.where(hashes == -1, np.int64(-2), hashes)
    return hashes.view(np.uint64)


def _crc_of_texts(keys: Sequence[str]) -> Iterable[int]:
    try:
        return list(map(crc32, map(str.encode, keys)))
    except UnicodeEncodeError:  # lone surrogates
        return map(_hash_text, keys)


def _raw_tuples(keys: Sequence[tuple[Any, ...]]) -> NDArray[np.uint64]:
    import numpy as np

    lengths = set(map(len, keys))
    if len(lengths) != 1:
        return np.fromiter(map(_hash_tuple, keys), np.uint64, len(keys))
    (length,) = lengths
    state = np.full(len(keys), _SEED_TUPLE, np.uint64)
    for place in range(length):
        state = _mix_array(state + _raw_array(list(map(itemgetter(place), keys))))
    return state ^ np.uint64(length)
