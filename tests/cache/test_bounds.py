"""Bounds declared on the fields of options: accepted values, and messages on refused ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from mgc.cache.bounds import Between, check_options
from mgc.cache.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Options:
    count: Annotated[int, Between(1)] = 1
    share: Annotated[float, Between(0, 1)] = 0
    rate: Annotated[float, Between(0, 1, below=True)] | None = None
    anything: float = 1.0
    switch: bool = False
    form: Literal["long", "short"] = "long"
    names: tuple[str, ...] | None = None


@pytest.mark.parametrize(
    "values", [{}, {"share": 1}, {"rate": 0.999}, {"anything": -1e300}, {"names": (3,)}, {"count": 10**20}]
)
def test_values_within_bounds_and_of_unchecked_types_pass(values: dict[str, Any]) -> None:
    check_options(Options(**values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "count is 0: expected a whole number of at least 1."),
        ({"count": 1.0}, "count is 1.0: expected a whole number of at least 1."),
        ({"count": True}, "count is True: expected a whole number of at least 1."),
        ({"count": None}, "count is None: expected a whole number of at least 1."),
        ({"share": float("nan")}, "share is nan: expected a number from 0 to 1."),
        ({"share": "0.5"}, "share is '0.5': expected a number from 0 to 1."),
        ({"rate": 1}, "rate is 1: expected a number from 0 to below 1."),
        ({"anything": "x"}, "anything is 'x': expected a number."),
        ({"anything": 10**400}, f"anything is 1{'0' * 59}...: expected a number."),
        ({"anything": float("-inf")}, "anything is -inf: expected a number."),
        ({"switch": 1}, "switch is 1: expected true or false."),
        ({"form": ["long"]}, "form=['long']: unknown choice. Choose one of long, short."),
    ],
)
def test_invalid_values_are_refused_with_the_expected_type(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_options(Options(**values))
    assert str(refused.value) == message
