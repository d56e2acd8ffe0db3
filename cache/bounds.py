"""Bounds declared on the fields of dataclasses and typed dictionaries: ``lambda_: Annotated[float, Between(0, 1)]``.

:func:`check_options` checks options, :func:`problem` checks JSON that other people may have written.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

from .errors import ConfigError
from .messages import printable

_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True)
class Between:
    """Numbers from `low` to `high`; with `below`, those less than `high`."""

    low: float = -math.inf
    high: float = math.inf
    below: bool = False

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and not (self.below and value == self.high)

    def __str__(self) -> str:
        if self.high == math.inf:
            return "" if self.low == -math.inf else f" of at least {self.low:g}"
        return f" from {self.low:g} to {'below ' if self.below else ''}{self.high:g}"


@dataclass(frozen=True)
class Matching:
    """Text that matches a regular expression from its first to its last character."""

    pattern: str
    meaning: str

    def __contains__(self, value: str) -> bool:
        return re.fullmatch(self.pattern, value) is not None

    def __str__(self) -> str:
        return f" that is {self.meaning}"


@dataclass(frozen=True)
class AtMost:
    """Lists, objects and texts of at most so many items or characters."""

    length: int

    def __contains__(self, value: Any) -> bool:
        return len(value) <= self.length

    def __str__(self) -> str:
        return f" of at most {self.length} items or characters"


class EncodingName:
    """Names of text encodings that Python supports."""

    def __contains__(self, value: object) -> bool:
        try:
            "a".encode(str(value))
        except (LookupError, UnicodeError, ValueError):
            return False
        return True


Count = Annotated[int, Between(1)]
PartRows = Annotated[int, Between(1, 2**16)]
Encoding = Annotated[str, EncodingName()]


def check_options(options: Any) -> None:
    """Check every field of a dataclass whose type is bool, int, float, Literal or Encoding, or one of these or None.

    Raises
    ------
    ConfigError
        If a value has another type, is out of bounds, or not one of the choices.
    """
    for name, hint in _type_hints(options.__class__).items():
        _check(name, getattr(options, name), hint)


@functools.cache
def _type_hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _check(name: str, value: Any, hint: Any) -> None:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        if value is not None:
            _check(name, value, next(each for each in arguments if each is not NoneType))
    elif origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{name}={value!r}: unknown choice. Choose one of {', '.join(arguments)}.")
    else:
        kind, *bounds = arguments if origin is Annotated else (hint,)
        if any(isinstance(each, EncodingName) and value not in each for each in bounds):
            raise ConfigError(f"{name} is {value!r}: unknown encoding. Use a name such as cp1251 or gb18030.")
        if kind in (bool, int, float) and (fault := problem(value, hint, name)):
            raise ConfigError(f"{fault}.")


def problem(value: Any, hint: Any, name: str = "") -> str | None:
    """Return the first way in which a JSON value is not of a type; None if it is.

    Parameters
    ----------
    hint : bool, int, float, str, None, Any, Literal, list, tuple, dict, Mapping or a union of these; a TypedDict or a
        dataclass for an object with these keys and no others (fields with a default may be missing); each may be
        Annotated with bounds, of which `value` must be ``in`` all.
    name : name of the value in the message.
    """
    return next(_problems(value, hint, name), None)


def _problems(value: Any, hint: Any, name: str) -> Iterator[str]:
    bounds: list[Any] = []
    while get_origin(hint) in (Annotated, NotRequired):
        bounds = [*get_args(hint)[1:], *bounds]
        hint = get_args(hint)[0]
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return
    if origin in (Union, UnionType):
        if value is not None or NoneType not in arguments:
            mismatches = {problem(value, each, name): each for each in arguments if each is not NoneType}
            if None not in mismatches:  # of several objects, the message is about the one that has most of the keys
                yield max(mismatches, key=lambda message: _n_shared_keys(value, mismatches[message])) or ""
        return
    if origin is Literal:
        if not any(type(value) is type(choice) and value == choice for choice in arguments):
            yield f"{name} is {_shorten(value)}: expected one of {', '.join(map(str, arguments))}"
        return
    if is_typeddict(hint) or dataclasses.is_dataclass(hint):
        yield from _object_problems(value, hint, name)
        return
    kind = origin or hint
    kinds, wanted = _KINDS[kind]
    wrong_type = not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool)
    if (
        wrong_type
        or (kind is float and not abs(value) <= sys.float_info.max)
        or not all(value in each for each in bounds)
    ):
        yield f"{name} is {_shorten(value)}: expected {wanted}{' and'.join(map(str, bounds))}"
    elif kind in (list, tuple):
        for i, item in enumerate(value):
            yield from _problems(item, arguments[0], f"{name}[{i}]")
    elif kind in (dict, Mapping):
        for key, item in value.items():
            yield from _problems(key, arguments[0], f"a key of {name}")
            yield from _problems(item, arguments[1], f"{name}.{key}")


_KINDS: dict[Any, tuple[Any, str]] = {
    bool: (bool, "true or false"),
    int: (int, "a whole number"),
    float: (int | float, "a number"),
    str: (str, "text"),
    list: (list, "a list"),
    tuple: (list, "a list"),
    dict: (dict, "an object"),
    Mapping: (dict, "an object"),
}


def _object_problems(value: Any, kind: Any, name: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{name or 'it'} is {_shorten(value)}: expected an object"
        return
    hints, required = _keys(kind)
    prefix = f"{name}." if name else ""
    for key in sorted(value.keys() - hints.keys()):
        yield f"{prefix}{_shorten(key)} is not a documented key"
    for key in sorted(required - value.keys()):
        yield f"{prefix}{key} is missing"
    for key, hint in hints.items():
        if key in value:
            yield from _problems(value[key], hint, f"{prefix}{key}")


@functools.cache
def _keys(kind: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """Return the types of the keys of an object, and the names of those that must be there."""
    hints = _type_hints(kind)
    if is_typeddict(kind):  # not its __required_keys__, which are wrong under postponed annotations
        return hints, frozenset(key for key, hint in hints.items() if get_origin(hint) is not NotRequired)
    missing = dataclasses.MISSING
    fields = [item for item in dataclasses.fields(kind) if item.default is missing and item.default_factory is missing]
    return hints, frozenset(item.name for item in fields)


def _n_shared_keys(value: Any, kind: Any) -> int:
    is_object = isinstance(value, dict) and (is_typeddict(kind) or dataclasses.is_dataclass(kind))
    return len(value.keys() & _keys(kind)[0].keys()) if is_object else 0


def _shorten(value: Any) -> str:
    text = printable(repr(value))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
