"""What every function of the API takes or needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from ..cache.distribution import install_command
from ..cache.errors import MissingExtraError
from ..cache.machine import is_out_of_memory
from ..cache.messages import did_you_mean

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Imports that an optional part of mgc brings; a missing one is reported by the name of the extra."""
    try:
        yield
    except ImportError as error:
        if isinstance(error, MissingExtraError) or is_out_of_memory(error):
            raise
        missing = error.name or str(error)
        raise MissingExtraError(f"{missing} is not installed; run: {install_command(name)}") from error


def with_changes(options: Options, changes: Mapping[str, Any]) -> Options:
    """Return options with some values changed by name, as the keyword arguments of a function of the API.

    Raises
    ------
    TypeError
        If there is no option of a name, as for any unknown keyword argument.
    """
    names = [field.name for field in dataclasses.fields(options)]
    for name in changes:
        if name not in names:
            raise TypeError(f"{type(options).__name__} has no option {name!r}; {did_you_mean(name, names)}")
    return dataclasses.replace(options, **changes)
