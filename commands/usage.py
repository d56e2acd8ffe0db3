"""Errors of arguments: typer checks values with pydantic, whose terms mean nothing to users."""

from __future__ import annotations

import re
from typing import Any

import typer
from typer.core import TyperGroup


class PlainErrors(TyperGroup):
    """Print why an argument is refused without the terms of pydantic."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = without_pydantic(error.message)
            raise


def without_pydantic(message: str) -> str:
    """Return a message of typer in plain words.

    >>> without_pydantic("Value error, 'x' is not one of 'a', 'b'.")
    "'x' is not one of 'a', 'b'."
    >>> without_pydantic("Input should be a valid integer, unable to parse string as an integer")
    'the value should be a valid integer'
    """
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return re.sub(r"^Input should be (.*?)(, unable to parse .*)?$", r"the value should be \1", message)
