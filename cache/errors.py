"""Errors: each subclasses :class:`MgcError` and a built-in, so both kinds of ``except`` work.

A message states what is wrong, where (file, row, key), and what to do about it.
"""

from __future__ import annotations


class MgcError(Exception):
    """Base of all errors that mgc raises on purpose."""


class ManifestError(MgcError, ValueError):
    """A source of tracks cannot be read, or breaks a rule (missing column, duplicate id, escaping path)."""


class ConfigError(MgcError, ValueError):
    """An option is invalid, or contradicts another option."""


class MissingExtraError(MgcError, ImportError):
    """A command needs an optional part of mgc that is not installed; the message names the extra."""


class StoreError(MgcError, RuntimeError):
    """A feature store cannot be used as asked."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no feature store at the given path."""


class AccessDeniedError(StoreError, PermissionError):
    """A service refuses the credentials of the environment, or needs some."""


class StoreFormatError(StoreError, ValueError):
    """This code cannot read the format version or the metadata of the store."""


class StoreCorruptError(StoreError, ValueError):
    """Bytes of the store do not match their checksum, or their content breaks the format."""


class RecipeMismatchError(StoreError, ValueError):
    """Features have another recipe (or tracks another plan) than the store; the message lists the differences."""


class TrackUnavailableError(StoreError, KeyError):
    """Requested rows have no features in the store; the message lists their tracks."""

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
    """A text model is missing, does not match its name or hash, or is not the one that a model was trained with."""


class RunError(MgcError, ValueError):
    """A run folder or checkpoint is missing, truncated or altered, or does not fit the store."""


class SaveError(MgcError, OSError):
    """A write to disk failed; the message states which data are safe, and what to do."""


class StoppedError(MgcError, RuntimeError):
    """Work stopped on request; the message states what is saved and how to continue."""


class TrainingError(MgcError, RuntimeError):
    """Training cannot continue (a non-finite loss, no track left); the message lists the tracks."""


class WorkerError(MgcError, RuntimeError):
    """A worker process died repeatedly; the message states what to try."""
