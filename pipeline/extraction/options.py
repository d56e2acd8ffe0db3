"""What an extraction computes, how, and on which workers, as chosen by the user.

The command line imports this module before it runs a command, so nothing heavy is imported here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from ...cache.bounds import Between, PartRows, check_options
from ...cache.errors import ConfigError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    """A Dask scheduler that is running already.

    Attributes
    ----------
    address, file : one of the two: ``tls://host:8786``, or the file of ``dask scheduler --scheduler-file``.
    tls_ca, tls_cert, tls_key : PEM files, as for ``dask scheduler --tls-ca-file`` and so on.
    insecure_network : allow plain TCP beyond this machine: whoever reaches the port can run code on every worker.
    """

    address: str | None = None
    file: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure_network: bool = False

    def checked_address(self) -> str:
        """Return the address at which the scheduler listens.

        Raises
        ------
        ConfigError
            If there is none, or it is plain TCP beyond this machine and that is not allowed.
        """
        if (self.address is None) == (self.file is None):
            raise ConfigError("name a scheduler by --scheduler or by --scheduler-file, not both")
        address = self.address or _read_address(self.file or Path())
        parts = urlsplit(address if "://" in address else f"tcp://{address}")
        if parts.scheme != "tls" and parts.hostname not in LOOPBACK and not self.insecure_network:
            raise ConfigError(
                f"scheduler {address}: plain TCP over a network lets anyone who reaches it run code on the workers; "
                "use tls:// with --tls-ca, --tls-cert and --tls-key, or say --insecure-network"
            )
        if parts.scheme == "tls" and None in (self.tls_ca, self.tls_cert, self.tls_key):
            raise ConfigError(f"scheduler {address}: TLS needs --tls-ca, --tls-cert and --tls-key")
        return address


def _read_address(file: Path) -> str:
    try:
        address: str = json.loads(file.read_text(encoding="utf-8"))["address"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--scheduler-file {file}: no scheduler's address in it ({error})") from error
    return address


@dataclass(frozen=True, kw_only=True)
class ExtractOptions:
    """What to extract from a source, and how.

    Attributes
    ----------
    features : any of ``mel``, ``lyrics``, ``genres`` (genre names; they need the encoder of ``lyrics``).
    audio_backend, clip_s, offset : of the clips; see :class:`mgc.cache.format.recipe.MelRecipe`.
    text_model, text_precision : text encoder. None and ``auto`` take those of a store that exists.
    text_device : torch device of the text encoder.
    genre_names : genre name prompts: ``common`` (a built-in map of frequent spellings) or a table with the columns
        genre and text. None takes those of the store, else each name as it is.
    part_rows : rows per part, frozen when the store is made. None takes 128, or 16 below 2 048 tracks.
    workers : local Dask worker processes; 0 is this process. None is one per core, or for a shard this process.
    scheduler : a Dask cluster that is running already. Its workers must see store and source at the same paths.
    shard : (i, n), i from 1 to n: build only every n-th part, for job arrays.
    append : add the tracks of the source that the store does not plan. Those of the store may be missing in the source.
    retry_failed : extract failed tracks of the source again, in new rows. A retry that was interrupted is finished
        first, and then nothing else is retried. With `add`: retry the tracks that failed on that feature set.
    add : name of a feature set to add to a store that exists: of `text_model`, or without one of the extractor of that
        name.

    Raises
    ------
    ConfigError
        If a value is out of bounds, or options exclude each other.
    """

    features: Sequence[str] = ("mel", "lyrics", "genres")
    audio_backend: Literal["fast", "librosa"] = "fast"
    clip_s: Annotated[float, Between(0.1)] = 30.0
    offset: Literal["start", "middle"] = "middle"
    text_model: str | None = None
    text_precision: Literal["auto", "fp32", "bf16"] = "auto"
    text_device: str = "cpu"
    genre_names: str | None = None
    part_rows: PartRows | None = None
    workers: Annotated[int, Between(0)] | None = None
    scheduler: Scheduler | None = None
    shard: tuple[int, int] | None = None
    append: bool = False
    retry_failed: bool = False
    add: str | None = None

    def __post_init__(self) -> None:
        check_options(self)
        unknown = set(self.features) - {"mel", "lyrics", "genres"}
        if unknown or not set(self.features) & {"mel", "lyrics"}:
            raise ConfigError(f"features {','.join(self.features)!r}: want mel, lyrics or both, and genres with lyrics")
        if self.embeds_genres and "lyrics" not in self.features:
            raise ConfigError(
                "features: genres are embedded by the encoder of the lyrics; name lyrics too, or leave genres"
            )
        if self.scheduler is not None and self.workers is not None:
            raise ConfigError("--workers counts local processes; a scheduler has workers of its own")
        if self.add is not None and self.genre_names is not None:
            raise ConfigError(f"--add {self.add}: genres are read aloud as the store does; leave --genre-names out")
        if self.genre_names is not None and not self.embeds_genres:
            raise ConfigError(f"--genre-names {self.genre_names}: no genre is read aloud; name genres among --features")
        if self.add is None and self.shard is not None and self.retry_failed:
            raise ConfigError("--retry-failed plans a retry for the whole store: run it once, without --shard")

    @property
    def embeds_genres(self) -> bool:
        """Whether genre names are embedded when the store is made."""
        return "genres" in self.features

    @property
    def workforce(self) -> int | Scheduler:
        """Where parts are built: on local worker processes (their number; 0 is this process), or on a cluster."""
        if self.scheduler is not None:
            return self.scheduler
        if self.workers is not None:
            return self.workers
        return default_workers() if self.shard is None else 0


def default_workers() -> int:
    """Return the number of cores that this process may use: one worker per core."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
