"""Errors: each subclasses :class:`MgcError` and a built-in, so both kinds of ``except`` work.

A message says what was wrong, where (file, row, key) and what to do about it.
"""

from __future__ import annotations


class MgcError(Exception):
    """Base of every error that mgc raises on purpose."""


class ManifestError(MgcError, ValueError):
    """A source of tracks cannot be read, or breaks a rule (missing column, duplicate id, escaping path)."""


class ConfigError(MgcError, ValueError):
    """An option has no meaning, or contradicts another."""


class MissingExtraError(MgcError, ImportError):
    """A command needs an optional part of mgc that is not installed; the message names the extra."""


class StoreError(MgcError, RuntimeError):
    """A feature store is not what it should be."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no feature store at the path given."""


class StoreFormatError(StoreError, ValueError):
    """The store was written by a format version, or holds metadata, that this code does not understand."""


class StoreCorruptError(StoreError, ValueError):
    """Bytes in the store do not match their own checksum."""


class RecipeMismatchError(StoreError, ValueError):
    """Features of another recipe (or tracks of another plan) meet a store; the message lists the differences."""


class TrackUnavailableError(StoreError, KeyError):
    """Rows were asked for that the store does not hold as ``ok``; the message names them."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class ClipError(MgcError, ValueError):
    """One audio file cannot become a clip. `reason` is a code of :class:`mgc.cache.format.schema.Reason`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class TextModelError(MgcError, ValueError):
    """A text model is not here, is not what its name or hash says, or differs from the one a model was trained with."""


class RunError(MgcError, ValueError):
    """A run folder or checkpoint is missing, cut short, altered, or does not fit the store."""


class SaveError(MgcError, OSError):
    """The disk did not take what had to be written; the message says what is safe, and what to do."""


class StoppedError(MgcError, RuntimeError):
    """Work ended because somebody asked for it; the message says what is saved and how to go on."""


class TrainingError(MgcError, RuntimeError):
    """Training cannot go on (a non-finite loss, no track left); the message names the tracks."""


class WorkerError(MgcError, RuntimeError):
    """A worker process died over and over; the message says what to try."""
