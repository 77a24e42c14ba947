"""What a setting is: a field with its reason and check; and what values may be, said as objects, texts or JSON. Pure."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, field, fields
from typing import Any, Final, Literal

from flowkit.errors import ConfigError

ENVIRONMENT_PREFIX = "FLOWKIT_"
MOST_ADDRESSES = 10_000
"""Of one named resource of an executor: each is a text that travels and is looked through."""

_SIZES: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SIZE: Final = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*(?:([kmgtp])(i?))?b?\s*", re.IGNORECASE)

_MOST_FLOAT: Final = 1e9
"""Seconds are some thirty years; nobody waits for longer."""

POOL_FIELDS = ("weight", "min_share", "parent", "guarantee", "maximum")
"""What a pool may be described by; see ``scheduling.policies.pools``."""


def positive(value: float) -> str | None:
    """Above 0."""
    return None if value > 0 else "must be above 0"


def at_least(least: float) -> Callable[[float], str | None]:
    """Not below ``least``."""
    return lambda value: None if value >= least else f"must be {least:g} or more"


def not_negative(value: float) -> str | None:
    """0 or more."""
    return None if value >= 0 else "must be 0 or more"


def at_least_one(value: float) -> str | None:
    """1 or more, and not without end."""
    return None if 1 <= value < math.inf else "must be 1 or more"


def fraction(value: float) -> str | None:
    """Above 0, up to 1."""
    return None if 0 < value <= 1 else "must be above 0 and at most 1"


def beyond(value: object) -> str | None:
    """What no setting can be, whatever it is for: not a number, without end, or more than a message between processes can say.

    >>> beyond(float("inf")), beyond(1 << 64), beyond(60.0)
    ('must be a finite number, up to 1e9', 'must be below 2**63', None)
    """
    if isinstance(value, float) and not abs(value) <= _MOST_FLOAT:
        return "must be a finite number, up to 1e9"
    return "must be below 2**63" if isinstance(value, int) and not -(1 << 63) < value < 1 << 63 else None


def pool_complaint(told: Any) -> str | None:
    """What is wrong under whatever policy; what one makes of it is checked when it is made."""
    if isinstance(told, Mapping):
        unknown = [str(name) for name in told if name not in POOL_FIELDS]
        return f"has no {', '.join(unknown)}; known: {', '.join(POOL_FIELDS)}" if unknown else None
    if isinstance(told, int | float) and not isinstance(told, bool):
        return None if math.isfinite(told) else "must be a finite number"
    if all(hasattr(told, name) for name in POOL_FIELDS):
        return None
    return f"must be a number, or a mapping of {', '.join(POOL_FIELDS)}"


def resource_complaint(told: Any) -> str | None:
    """What can be seen to be wrong here; what a function or a script finds is known where executors run."""
    if callable(told):
        return None
    if isinstance(told, str):
        return None if told.strip() and not told.strip().isdigit() else "a text must be the path of a script"
    if isinstance(told, int) and not isinstance(told, bool):
        return None if 0 <= told <= MOST_ADDRESSES else f"must be a whole number from 0 to {MOST_ADDRESSES:,}"
    if not isinstance(told, Sequence) or isinstance(told, bytes | bytearray):
        return "must be a whole number, a list of addresses, a function that returns it, or the path of a script"
    if len(told) > MOST_ADDRESSES:
        return f"has {len(told):,} addresses: must be {MOST_ADDRESSES:,} at most"
    if not all(isinstance(each, str | int) and not isinstance(each, bool) and str(each).strip() for each in told):
        return "addresses must be texts or numbers"
    return None if len(set(map(str, told))) == len(told) else "addresses must differ"


def one_of(*allowed: str) -> Callable[[str], str | None]:
    """One of these texts."""
    return lambda value: None if value in allowed else f"must be one of {', '.join(allowed)}"


def declared(
    default: Any,
    doc: str,
    check: Callable[[Any], str | None] | None = None,
    *,
    unit: str = "",
    method: str = "",
    switch: str = "",
    mapping: bool = False,
    plain: bool = False,
    scope: Literal["cluster", "driver"] = "cluster",
) -> Any:
    """A field. With ``method`` its value is a name, or an object that has the method, and with ``switch`` True stands for that name, False
    for ``off``; with ``mapping`` it is such, or stores, by name; with ``plain`` as well, numbers and mappings by name. Of ``scope`` ``cluster`` it
    holds for all drivers of a cluster, as the first one said it; of ``driver`` each has its own, and nobody else reads it.
    """
    metadata = {
        "doc": doc,
        "check": check,
        "unit": unit,
        "since": "0.1",
        "method": method,
        "switch": switch,
        "mapping": mapping,
        "plain": plain,
        "scope": scope,
    }
    return field(default_factory=dict, hash=False, metadata=metadata) if mapping else field(default=default, metadata=metadata)


def default_of(setting: Field[Any]) -> Any:
    """What a setting is where nobody says anything."""
    return {} if setting.metadata["mapping"] else setting.default


def settings_of(config: Any) -> tuple[Field[Any], ...]:
    """The fields of a ``Config``, or of the class, that are settings, in their order."""
    return tuple(each for each in fields(config) if "doc" in each.metadata)


def shown(setting: Field[Any], value: Any) -> str:
    """A value as people are told it: stores without what they connect with."""
    # What a store connects with is nobody's business.
    hidden = setting.metadata["mapping"] and not setting.metadata["plain"]
    return f"{{{', '.join(sorted(value))}}}" if hidden else repr(value)


def in_words(setting: Field[Any], value: Any) -> str:
    """A value as people read it, with its unit: ``1 GiB``, ``15 s``.

    >>> from flowkit.config import Config
    >>> [
    ...     in_words(each, default_of(each))
    ...     for each in settings_of(Config)
    ...     if each.name in {"lease_s", "max_result_bytes", "progress"}
    ... ]
    ['60 s', '1 GiB', 'auto']
    """
    unit = setting.metadata["unit"]
    if unit == "bytes" and value:
        size, shift = int(value), 0
        while size % 1024 == 0 and shift + 1 < len(_SIZES):
            size, shift = size // 1024, shift + 1
        return f"{size:,} {_SIZES[shift]}"
    if unit and isinstance(value, int | float):
        return f"{value:g} {unit}"
    return value if isinstance(value, str) and value else shown(setting, value)


def _size_in_bytes(text: str) -> int:
    """The bytes that ``2GiB``, ``500 MB`` or ``1024`` say; raises ``ValueError``."""
    with contextlib.suppress(ValueError):
        return int(text)
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(text)
    number, prefix, binary = float(found[1]), (found[2] or "").upper(), found[3]
    size = number * (1024 if binary else 1000) ** ("KMGTP".index(prefix) + 1 if prefix else 0)
    if size != int(size):
        raise ValueError(text)
    return int(size)


def named(setting: Field[Any], name: str) -> str:
    """Names of resources are those that Dask's workers and ``with_resources`` have: in lower case."""
    return name.lower() if setting.name == "resources" else name


def check_by_name(setting: Field[Any], value: Any) -> None:
    """Raise ``ConfigError`` unless a mapping holds what the setting may by names."""
    if setting.metadata["plain"]:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) and name for name in value):
            raise ConfigError(
                f"{setting.name} = {value!r}: must be a mapping of names, as {{'adhoc': 2}}", setting=setting.name, value=value
            )
        if len({named(setting, name) for name in value}) < len(value):
            raise ConfigError(f"{setting.name} = {value!r}: names differ by case alone", setting=setting.name, value=value)
        for name, each in value.items():
            if (complaint := setting.metadata["check"](each)) is not None:
                raise ConfigError(f"{setting.name}[{name!r}] = {each!r}: {complaint}", setting=setting.name, value=each)
        return
    if setting.metadata["method"]:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) and 0 < len(name) < 100 for name in value):
            raise ConfigError(
                f"{setting.name} = {value!r}: must be a mapping of names, as {{'msgpack': 'msgpack'}}",
                setting=setting.name,
                value=value,
            )
        for each in value.values():
            check_component(setting, each)
        return
    if not isinstance(value, Mapping) or not all(isinstance(name, str) and name.isidentifier() for name in value):
        raise ConfigError(f"{setting.name}: must be a mapping of schemes, as {{'s3': store}}", setting=setting.name, value=None)
    for scheme, store in value.items():
        if scheme != scheme.lower() or scheme == "file" or store is None or isinstance(store, str):
            raise ConfigError(
                f"{setting.name}: {scheme!r} names a {type(store).__name__}: must be lower case, not file, and name a file system or a "
                "function that makes one",
                setting=setting.name,
                value=None,
            )


def check_component(setting: Field[Any], value: Any) -> None:
    """Raise ``ConfigError`` unless it is a name, or an object with the method."""
    method = setting.metadata["method"]
    if isinstance(value, str):
        if value:
            return
    elif callable(getattr(value, method, None)) and not isinstance(value, type):
        return
    raise ConfigError(
        f"{setting.name} = {value!r}: must be a name, or an object with a method {method}(...)", setting=setting.name, value=value
    )


def parsed(setting: Field[Any], name: str, text: str) -> Any:
    """The value that a text stands for; ``name`` is who said it, for the error."""
    if setting.metadata["plain"]:
        return parsed_json(name, text)
    if setting.metadata["mapping"]:
        raise ConfigError(
            f"{name}: {setting.name} holds objects, which cannot be given as text; say it in the program, as Context({setting.name}=...)",
            setting=setting.name,
            value=None,
        )
    kind: type = type(default_of(setting))
    if kind is bool:
        if text.lower() in {"1", "true", "yes", "on"}:
            return True
        if text.lower() in {"0", "false", "no", "off"}:
            return False
        raise ConfigError(f"{name} = {text!r}: must be true or false", setting=name, value=text)
    if setting.metadata["unit"] == "bytes":
        try:
            return _size_in_bytes(text)
        except (ValueError, OverflowError):
            raise ConfigError(f"{name} = {text!r}: must be a size, as 1048576 or 1MiB", setting=name, value=text) from None
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"{name} = {text!r}: must be {kind.__name__}", setting=name, value=text) from None


def parsed_json(name: str, text: str) -> Any:
    """The same for a mapping, said as JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f'{name} = {text!r:.200}: must be a mapping as JSON, such as {{"a": 2}}: {error}', setting=name, value=text
        ) from None
