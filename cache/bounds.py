"""Bounds of options, declared on the field of a dataclass: ``lambda_: Annotated[float, Between(0, 1)] = 0.3``."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import ConfigError


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


class EncodingName:
    """Names of text encodings that Python knows."""

    def __contains__(self, value: str) -> bool:
        try:
            "a".encode(value)
        except (LookupError, UnicodeError, ValueError):
            return False
        return True


Count = Annotated[int, Between(1)]
Encoding = Annotated[str, EncodingName()]


def check_options(options: Any) -> None:
    """Check every field of a dataclass whose type is bool, int, float, Literal or Encoding, or one of these or None.

    Raises
    ------
    ConfigError
        If a value is of another type, out of bounds, or none of the choices.
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
        kind, bounds = arguments if origin is Annotated else (hint, Between())
        if kind is str and isinstance(bounds, EncodingName) and not (isinstance(value, str) and value in bounds):
            raise ConfigError(f"{name} is {value!r}: unknown encoding. Use a name such as cp1251 or gb18030.")
        if kind is bool and not isinstance(value, bool):
            raise ConfigError(f"{name} is {value!r}: want true or false.")
        if kind in (int, float):
            allowed = int if kind is int else int | float
            if isinstance(value, bool) or not isinstance(value, allowed) or value not in bounds:
                raise ConfigError(f"{name} is {value!r}: want a {'whole ' if kind is int else ''}number{bounds}.")
