"""Read batches from the feature store, through a cache in the fastest memory that fits.

All placements give identical batches. Token states are stored concatenated, and padded to the longest lyrics of a
batch. Spectrograms are cut to its longest clip. Both lengths are rounded up to multiples of `STEPS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from ...cache.errors import ConfigError
from ...cache.messages import size
from ...cache.reading.store import FeatureStore
from ..device import free_bytes
from ..model.batch import Batch, to_device
from ..model.config import MEL
from .embeddings import layout_of, read_embeddings, read_steps

Index = npt.NDArray[np.int64]
DEVICE_SHARE, HOST_SHARE = 0.6, 0.5
"""Shares of the free memory for cached features; the rest is for the model and other processes."""
STEPS = {"cpu": (32, 1), "cuda": (320, 128)}
"""Mel frames and tokens whose multiples a batch is padded to. A compiled training step is recorded once per shape, so
that CUDA has few shapes. Tracks are not sorted by length, so that shuffling stays uniform."""
STEPS_OF_SEQUENCES = {"cpu": 1, "cuda": 256}
"""Multiples of the steps of added feature sets, likewise."""
_READ_AT_ONCE = 64


_PER_TRACK = ("mel_frames", "lyrics_tokens", "labels", "track_key", "lyrics_key", "rows")


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Tracks to train on or to score, without their large tensors.

    Attributes
    ----------
    rows : (n,) int64 array rows of the store.
    ids : track ids.
    labels : (n, C) bool over the kept genres.
    mel_frames, lyrics_tokens : (n,) int64 numbers of valid frames and tokens; 0 tokens without lyrics.
    track_key, lyrics_key : (n,) int64; equal for equal audio files, equal lyrics; ``lyrics_key`` is -1 without lyrics.
    audio : names of the audio inputs to read; ``mel`` is read if the store has it.
    steps : name of an added feature set among them -> (n,) int64 numbers of valid steps.
    """

    rows: Index
    ids: tuple[str, ...]
    labels: npt.NDArray[np.bool_]
    mel_frames: Index
    lyrics_tokens: Index
    track_key: Index
    lyrics_key: Index
    audio: tuple[str, ...] = (MEL,)
    steps: Mapping[str, Index] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(
        cls, store: FeatureStore, rows: Index, labels: npt.NDArray[np.bool_], audio: tuple[str, ...] = (MEL,)
    ) -> Examples:
        """Return the examples of `rows`, all with status ok and with the feature sets of `audio`."""
        tracks = store.tracks.take(np.searchsorted(np.asarray(store.tracks.column("row")), rows))
        has = {spec.name for spec in store.arrays}
        frames = store.read("mel_frames", rows) if "mel" in has else np.ones(len(rows))
        tokens = store.read("lyrics_tokens", rows) if "lyrics" in has else np.zeros(len(rows))
        lyrics_key = _keys(tracks.column("lyrics_sha256"), rows)
        return cls(
            rows=np.asarray(rows, dtype=np.int64),
            ids=tuple(tracks.column("id").to_pylist()),
            labels=np.asarray(labels, dtype=np.bool_),
            mel_frames=frames.astype(np.int64),
            lyrics_tokens=tokens.astype(np.int64),
            track_key=_keys(tracks.column("source_sha256"), rows),
            lyrics_key=np.where(tokens > 0, lyrics_key, -1),
            audio=audio,
            steps={name: read_steps(store, name, rows) for name in audio if name != MEL},
        )

    def take(self, index: Index) -> Examples:
        """Return the examples at positions `index`."""
        arrays: dict[str, Any] = {n: value[index] for n, value in vars(self).items() if isinstance(value, np.ndarray)}
        steps = {name: counts[index] for name, counts in self.steps.items()}
        return dataclasses.replace(self, ids=tuple(self.ids[i] for i in index.tolist()), steps=steps, **arrays)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Feature placement: where features are kept during training.

    Attributes
    ----------
    name : ``device``, ``host`` or ``mapped`` (read from the store per batch).
    n_bytes : size of the features.
    free_bytes : free memory of the device or, without a GPU, of the host.
    """

    name: str
    n_bytes: int
    free_bytes: int

    def __str__(self) -> str:
        memories = {"device": "device memory", "host": "host memory", "mapped": "the store, read per batch"}
        return f"{size(self.n_bytes)} of features in {memories[self.name]} ({size(self.free_bytes)} free)"


def choose_placement(
    store: FeatureStore, examples: Examples, *, device: torch.device, wanted: str = "auto"
) -> Placement:
    """Return the placement `wanted`; for ``auto`` the fastest that fits: device memory, host memory, else the store.

    Raises
    ------
    ConfigError
        If ``device`` is given without a GPU.
    """
    tail_bytes = {spec.name: int(np.prod(spec.tail)) * np.dtype(spec.dtype).itemsize for spec in store.arrays}
    names = (*examples.audio, "lyrics_pooled")
    n_bytes = len(examples) * sum(tail_bytes.get(name, 0) for name in names)
    if "lyrics" in tail_bytes:
        width = next(spec.tail[1] for spec in store.arrays if spec.name == "lyrics")
        n_bytes += int(examples.lyrics_tokens.sum()) * width * 2
    host_free = free_bytes(torch.device("cpu"))
    on_gpu = device.type == "cuda"
    free = free_bytes(device) if on_gpu else host_free
    if wanted == "device" and not on_gpu:
        raise ConfigError("--set placement=device: training on the CPU has no GPU memory. Use auto, host or mapped.")
    if wanted == "auto":
        if on_gpu and n_bytes <= DEVICE_SHARE * free:
            wanted = "device"
        else:
            wanted = "host" if n_bytes <= HOST_SHARE * host_free else "mapped"
    return Placement(name=wanted, n_bytes=n_bytes, free_bytes=free)


class FeatureBatches:
    """Batches of a fixed set of examples.

    Parameters
    ----------
    placement : from :func:`choose_placement`; ``device`` and ``host`` read all features once, at construction.
    text_dim : width of lyrics that a model needs from a store without text features.
    """

    def __init__(
        self, store: FeatureStore, examples: Examples, *, placement: Placement, device: torch.device, text_dim: int = 1
    ) -> None:
        self.examples = examples
        self.placement = placement
        self._store = store
        self._device = device
        shapes = {spec.name: spec.tail for spec in store.arrays}
        self._mel_shape = shapes.get(MEL) if MEL in examples.audio else None
        self._text_dim = shapes["lyrics"][1] if "lyrics" in shapes else text_dim
        self._has_lyrics = "lyrics" in shapes
        self._n_steps = {name: layout_of(store, name).n_steps for name in examples.steps}
        self._starts = np.concatenate([[0], np.cumsum(examples.lyrics_tokens)]).astype(np.int64)
        self._cache: _Cache | None = None
        cached_on = device if placement.name == "device" else torch.device("cpu")
        if placement.name != "mapped":
            self._cache = self._read_all(cached_on)
        self._tracks = {name: torch.tensor(getattr(examples, name), device=cached_on) for name in _PER_TRACK}
        self._tracks["labels"] = self._tracks["labels"].float()
        self._first_state = torch.from_numpy(self._starts[:-1]).to(cached_on)

    def batch(self, index: npt.NDArray[np.integer[Any]]) -> Batch:
        """Return the batch of examples at positions `index`, on the device; features in float16, as stored."""
        return self._gather(np.asarray(index, dtype=np.int64)).map(lambda tensor: to_device(tensor, self._device))

    def __call__(self, indices: Iterable[npt.NDArray[np.integer[Any]]]) -> Iterator[Batch]:
        """Yield one batch per index array; the next one is read while the caller uses the current one."""
        if self._cache is not None and self._device.type == "cpu":
            yield from map(self.batch, indices)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="mgc-batches") as reader:
            waiting: Future[Batch] | None = None
            for index in indices:
                following = reader.submit(self.batch, index)
                if waiting is not None:
                    yield waiting.result()
                waiting = following
            if waiting is not None:
                yield waiting.result()

    def _gather(self, index: Index) -> Batch:
        """Return the batch on the device of the cache; only the index is copied there."""
        frames, tokens = self.examples.mel_frames[index], self.examples.lyrics_tokens[index]
        n_frames, n_tokens = (
            -(-int(counts.max(initial=least)) // step) * step
            for counts, step, least in zip((frames, tokens), STEPS[self._device.type], (1, 0), strict=True)
        )
        if self._cache is None:
            mel, flat, pooled, embeddings = self._read(index, n_tokens)
            place = torch.from_numpy(index)
            first_state = torch.arange(len(index)) * (len(flat) // len(index))
        else:
            flat = self._cache.lyrics
            place = to_device(torch.from_numpy(index), flat.device)
            mel, pooled, first_state = self._cache.mel[place], self._cache.pooled[place], self._first_state[place]
            embeddings = {
                name: (values[place, :, : self._longest(name, index)], steps[place])
                for name, (values, steps) in self._cache.embeddings.items()
            }
        tracks = {name: values[place] for name, values in self._tracks.items()}
        batch = Batch(
            mel=mel[:, :, :n_frames],
            lyrics=_padded(flat, first_state, tracks["lyrics_tokens"], n_tokens),
            lyrics_pooled=pooled,
            embeddings=embeddings,
            **{**tracks, "mel_frames": torch.from_numpy(frames)},  # on the host, where the batch reads them
        )
        return batch.with_tensors(mel_frames=tracks["mel_frames"])

    def _longest(self, name: str, index: Index) -> int:
        """Return the number of steps of a batch of an added feature set."""
        step, n_steps = STEPS_OF_SEQUENCES[self._device.type], self._n_steps[name]
        return min(-(-int(self.examples.steps[name][index].max(initial=1)) // step) * step, n_steps)

    def _read(self, index: Index, longest: int) -> tuple[Tensor, Tensor, Tensor, Embeddings]:
        """Read mel, concatenated token states (`longest` per track), pooled lyrics, and embeddings."""
        rows = self.examples.rows[index]
        mel = np.zeros((len(rows), 1, 1), dtype=np.float16)
        if self._mel_shape is not None:
            mel = self._store.read("mel", rows)
        pooled = np.zeros((len(rows), self._text_dim), dtype=np.float32)
        flat = np.zeros((0, self._text_dim), dtype=np.float16)
        if self._has_lyrics:
            flat = self._store.read("lyrics", rows, length=longest).reshape(-1, self._text_dim)
            pooled = self._store.read("lyrics_pooled", rows)
            pooled[self.examples.lyrics_tokens[index] == 0] = 0.0  # NaN in the store marks missing lyrics
        embeddings = {}
        for name, counts in self.examples.steps.items():
            steps = counts[index]
            values = read_embeddings(self._store, name, rows, steps, longest=self._longest(name, index))
            embeddings[name] = torch.from_numpy(values), torch.from_numpy(steps)
        return torch.from_numpy(mel), torch.from_numpy(flat), torch.from_numpy(pooled), embeddings

    def _read_all(self, device: torch.device) -> _Cache:
        n = len(self.examples)
        mel_shape = self._mel_shape or (1, 1)
        cache = _Cache(
            mel=torch.zeros((n, *mel_shape), dtype=torch.float16, device=device),
            lyrics=torch.zeros((int(self._starts[-1]), self._text_dim), dtype=torch.float16, device=device),
            pooled=torch.zeros((n, self._text_dim), device=device),
            embeddings={
                name: (self._empty(name, n, device), torch.tensor(steps, device=device))
                for name, steps in self.examples.steps.items()
            },
        )
        for first in range(0, n, _READ_AT_ONCE):
            index = np.arange(first, min(first + _READ_AT_ONCE, n), dtype=np.int64)
            tokens = self.examples.lyrics_tokens[index]
            longest = int(tokens.max(initial=0))
            mel, flat, pooled, embeddings = self._read(index, longest)
            for name, (values, _) in embeddings.items():
                cache.embeddings[name][0][first : first + len(index), :, : values.shape[2]] = values
            cache.mel[first : first + len(index)] = mel
            cache.pooled[first : first + len(index)] = pooled
            for k, position in enumerate(index.tolist()):
                states = flat[k * longest : k * longest + int(tokens[k])]
                cache.lyrics[int(self._starts[position]) : int(self._starts[position + 1])] = states
        return cache

    def _empty(self, name: str, n: int, device: torch.device) -> Tensor:
        """Return zeros for the embeddings of n tracks, in their stored precision."""
        layout = layout_of(self._store, name)
        dtype = torch.float16 if self._store.array(name).dtype == "float16" else torch.float32
        longest = self._longest(name, np.arange(n))
        return torch.zeros((n, layout.widths.layers, longest, layout.widths.dim), dtype=dtype, device=device)


Embeddings = dict[str, tuple[Tensor, Tensor]]
"""Name of an added feature set -> values (n, V, N, W), and numbers of valid steps (n,)."""


@dataclass(frozen=True, kw_only=True)
class _Cache:
    """Features of all examples: mel (n, M, T), token states (tokens of all lyrics, D), pooled lyrics (n, D)."""

    mel: Tensor
    lyrics: Tensor
    pooled: Tensor
    embeddings: Embeddings


def epoch_batches(n_examples: int, batch_size: int, *, seed: int, epoch: int) -> list[Index]:
    """Return the positions of each training batch of an epoch, a function of the arguments only.

    A single last example is added to the batch before it, since batch statistics and the contrastive loss need two.
    """
    bits = np.random.Philox(np.random.SeedSequence([seed, epoch]))
    return in_batches(np.random.Generator(bits).permutation(n_examples), batch_size)


def in_batches(order: Index, batch_size: int) -> list[Index]:
    """Split `order` into batches; a single last example is added to the batch before it."""
    cuts = list(range(batch_size, len(order), batch_size))
    if cuts and len(order) - cuts[-1] == 1:
        cuts.pop()
    return np.split(order, cuts) if len(order) else []


def _padded(flat: Tensor, first: Tensor, tokens: Tensor, n_tokens: int) -> Tensor:
    """Return (B, n_tokens, D) from concatenated states, with 0 beyond each length."""
    if not len(flat):
        return flat.new_zeros((len(first), n_tokens, flat.shape[1]))
    step = torch.arange(n_tokens, device=flat.device)
    inside = step < tokens[:, None]
    states = flat[torch.where(inside, first[:, None] + step, 0)]
    return states.masked_fill_(~inside[..., None], 0.0)


def _keys(hashes: pa.ChunkedArray, rows: Index) -> Index:
    """Return equal integers for equal hashes, and a unique one for a track without a hash."""
    names: Sequence[str] = [name or f"row {row}" for name, row in zip(hashes.to_pylist(), rows.tolist(), strict=True)]
    return np.unique(np.asarray(names), return_inverse=True)[1].astype(np.int64)
