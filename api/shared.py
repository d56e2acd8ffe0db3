"""Functions that the whole API shares."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..cache.distribution import explain_missing_extra
from ..cache.errors import ConfigError, MissingExtraError
from ..cache.format.plan import is_store
from ..cache.machine import is_out_of_memory
from ..cache.messages import did_you_mean
from ..cache.places import refuse_object_store

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import what the extra `name` installs; a missing module is reported with the extra and how to install it."""
    try:
        yield
    except ImportError as error:
        if isinstance(error, MissingExtraError) or is_out_of_memory(error):
            raise
        raise MissingExtraError(explain_missing_extra(name, error.name or str(error))) from error


def with_changes(options: Options, changes: Mapping[str, Any]) -> Options:
    """Return options with some values changed by name, as the keyword arguments of a function of the API.

    Raises
    ------
    TypeError
        If a name is not an option, as for any unknown keyword argument.
    """
    names = [field.name for field in dataclasses.fields(options)]
    for name in changes:
        if name not in names:
            raise TypeError(f"{type(options).__name__} has no option {name!r}; {did_you_mean(name, names)}")
    return dataclasses.replace(options, **changes)


def refuse_store_as_output(folder: Path) -> None:
    """Raise :class:`ConfigError` if runs would be written into a feature store."""
    refuse_object_store(folder, "Give a local folder for the run.")
    if is_store(folder):
        raise ConfigError(f"-o {folder}: a feature store. Give another folder for the run.")
