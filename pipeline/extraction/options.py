"""Options of an extraction: features, models, workers.

The command line imports this module before it runs a command, so it must not import anything heavy.
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
    """A Dask scheduler that is already running.

    Attributes
    ----------
    address, file : exactly one of them: ``tls://host:8786``, or the file of ``dask scheduler --scheduler-file``.
    tls_ca, tls_cert, tls_key : PEM files, as for ``dask scheduler --tls-ca-file`` and so on.
    insecure_network : allow plain TCP beyond this machine. Anyone who can reach the port can run code on every worker.
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
            If there is none, it is plain TCP beyond this machine without `insecure_network`, or a PEM file is missing.
        """
        if (self.address is None) == (self.file is None):
            raise ConfigError("exactly one address of a scheduler is needed. Use --scheduler or --scheduler-file.")
        address = self.address or _read_address(self.file or Path())
        parts = urlsplit(address if "://" in address else f"tcp://{address}")
        if parts.scheme != "tls" and parts.hostname not in LOOPBACK and not self.insecure_network:
            raise ConfigError(
                f"plain TCP over a network lets anyone who can reach it run code on the workers: scheduler {address}. "
                "Use tls:// with --tls-ca, --tls-cert and --tls-key, or add --insecure-network."
            )
        if parts.scheme == "tls" and None in (self.tls_ca, self.tls_cert, self.tls_key):
            raise ConfigError(f"no TLS certificates: scheduler {address}. Add --tls-ca, --tls-cert and --tls-key.")
        for name in ("tls_ca", "tls_cert", "tls_key"):
            if (file := getattr(self, name)) is not None and not file.is_file():
                raise ConfigError(f"no such file: {file}. Correct --{name.replace('_', '-')}.")
        return address


def _read_address(file: Path) -> str:
    try:
        address: str = json.loads(file.read_text(encoding="utf-8"))["address"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"no scheduler address: --scheduler-file {file} ({error}). Use the file that `dask scheduler` writes."
        ) from error
    return address


@dataclass(frozen=True, kw_only=True)
class ExtractOptions:
    """Features to extract from a source, and how to extract them.

    Attributes
    ----------
    features : any of ``mel``, ``lyrics``, ``genres`` (genre name embeddings, which need the encoder of ``lyrics``).
    audio_backend, clip_s, offset : of the clips; see :class:`mgc.cache.format.recipe.MelRecipe`.
    text_model, text_precision, text_backend : text encoder. None and ``auto`` take those of an existing store.
    text_max_tokens : maximum length of lyrics in tokens, at most 128 or a multiple of 64, because the store has chunks
        of up to 128 tokens. None takes 512, or the positions of a model with fewer, or the value of an existing store.
    text_device : torch device of the text encoder.
    audio_model : pretrained audio encoder of `add`: ``hf:FOLDER`` or ``hf:OWNER/NAME``.
    audio_layers, audio_pooling, audio_precision : what to store of it; see
        :class:`mgc.pipeline.extractors.pretrained.AudioSettings`.
    audio_device : torch device of the audio encoder.
    genre_names : genre name prompts: ``common`` (a built-in map of frequent spellings) or a table with the columns
        genre and text. None takes the prompts of an existing store; without a prompt, the genre name is embedded.
    part_rows : rows per part, frozen when the store is created. None takes 128, or 16 below 2 048 tracks, or
        fewer where a part would have more than 256 MiB.
    workers : number of local Dask worker processes; 0 builds in this process. None takes 0 for a shard
        and for little work (:data:`mgc.pipeline.extraction.forecast.IN_PROCESS_S`), else one worker per core.
    scheduler : a running Dask cluster. Its workers must see the store and the source at the same paths.
    shard : (i, n), i from 1 to n: build every n-th part only, for job arrays.
    append : add the tracks of the source that the plan lacks. Planned tracks may be missing in the source.
    retry_failed : extract failed tracks of the source again, in new rows. An interrupted retry is completed first, and
        then no other track is retried. With `add`: retry the tracks that failed on that feature set.
    add : name of a feature set to add to an existing store: features of `text_model` or `audio_model`, or without one,
        of the extractor of that name.

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
    text_precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    text_backend: Literal["auto", "torch", "openvino"] = "auto"
    text_max_tokens: Annotated[int, Between(16, 2**15)] | None = None
    text_device: str = "cpu"
    audio_model: str | None = None
    audio_layers: str = "last"
    audio_pooling: Literal["mean", "frames"] = "mean"
    audio_precision: Literal["fp32", "bf16"] = "fp32"
    audio_device: str = "cpu"
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
            raise ConfigError(
                f"invalid features: {','.join(self.features)!r}. Use mel, lyrics or both. Add genres only with lyrics."
            )
        if (n_tokens := self.text_max_tokens or 0) > 128 and n_tokens % 64:
            raise ConfigError(f"--text-max-tokens {n_tokens}: not a multiple of 64. Use {n_tokens // 64 * 64 + 64}.")
        if self.embeds_genres and "lyrics" not in self.features:
            raise ConfigError(
                "features genres without lyrics: the encoder of the lyrics embeds the genre names. "
                "Add lyrics, or remove genres."
            )
        if self.scheduler is not None and self.workers is not None:
            raise ConfigError("--workers and --scheduler exclude each other. Remove --workers to use the scheduler's.")
        if self.add is not None and self.genre_names is not None:
            raise ConfigError(f"--add {self.add}: the store has genre name prompts already. Remove --genre-names.")
        if self.audio_model is not None and self.add is None:
            raise ConfigError(
                f"--audio-model {self.audio_model}: its features can only be added to a store. Use --add NAME."
            )
        if self.audio_model is not None and self.text_model is not None:
            raise ConfigError("--audio-model and --text-model exclude each other. Add one feature set at a time.")
        if self.genre_names is not None and not self.embeds_genres:
            raise ConfigError(f"--genre-names {self.genre_names}: genres are not embedded. Add genres to --features.")
        if self.add is None and self.shard is not None and self.retry_failed:
            raise ConfigError("--retry-failed plans a retry for the whole store. Run it once, without --shard.")

    @property
    def embeds_genres(self) -> bool:
        """Whether genre names are embedded when the store is created."""
        return "genres" in self.features

    @property
    def workforce(self) -> int | Scheduler:
        """Number of local worker processes (0: this process), or the scheduler of a cluster."""
        if self.scheduler is not None:
            return self.scheduler
        if self.workers is not None:
            return self.workers
        return default_workers() if self.shard is None else 0


def default_workers() -> int:
    """Return the number of cores that this process may use: one worker per core."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
