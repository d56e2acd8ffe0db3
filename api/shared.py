"""Functions that the whole API shares."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from ..cache.distribution import explain_missing_extra
from ..cache.errors import ConfigError, MissingExtraError, RunError, TextModelError
from ..cache.format.plan import is_store
from ..cache.machine import is_out_of_memory
from ..cache.messages import did_you_mean
from ..cache.places import refuse_object_store
from ..heads.runs.documents import PartName

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


def model_folder(run: str | os.PathLike[str]) -> Path:
    """Return the folder of a model: a path, or the local copy of ``hf://OWNER/NAME``, downloaded if it is missing.

    Raises
    ------
    RunError
        If the hub does not deliver it, or it is no model of mgc.
    """
    if not str(run).startswith("hf:") or Path(run).exists():
        return Path(run)
    with extra("extract"):
        from ..pipeline.text.models import hub_folder, hub_repository
    if (repository := hub_repository(str(run))) is None:
        raise RunError(f"{run}: not a model of the hub. Write hf://OWNER/NAME.")
    try:
        files = ("config.json", *get_args(PartName))
        folder = hub_folder(repository, files, needed=files)
    except TextModelError as error:
        raise RunError(str(error)) from error
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise RunError(f"{run}: no model of mgc: no {', '.join(missing)}. Give a repository with the files of best/.")
    return folder


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
