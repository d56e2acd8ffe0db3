"""Two extractors for tests, a sequence of frames and a batched one, and songs of different lengths for them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from mgc.pipeline.extractors.extractor import Extractor
from mgc.pipeline.sources.manifest import Source, Track

OPTIONS: dict[str, Any] = {"workers": 0}
RATE_HZ, FRAME = 8_000, 800
SECONDS = (1.0, 0.35, 2.0, 0.7, 1.5, 0.1, 2.0)


def frames(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """Two layers of the levels of whole frames of 0.1 s, (2, n, 64); at least one."""
    n = max(1, len(samples) // FRAME)
    padded = np.pad(samples, (0, max(0, n * FRAME - len(samples))))[: n * FRAME].reshape(n, FRAME)
    bands = np.abs(np.fft.rfft(padded, axis=1))[:, :64]
    return np.stack([bands, np.sqrt(bands)])


def first_layer(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """The first layer of :func:`frames`, (n, 64)."""
    return frames(samples, rate_hz)[0]


def peak(samples: np.ndarray, rate_hz: int) -> float:
    return float(np.abs(samples).max())


def peaks(batch: list[np.ndarray], rate_hz: int) -> list[float]:
    return [peak(samples, rate_hz) for samples in batch]


def extractor(name: str, **changed: Any) -> Extractor:
    """Return a sequence extractor of that name."""
    fields: dict[str, Any] = {
        "name": name,
        "version": "1",
        "input": "clip",
        "dims": (f"{name}_frame", f"{name}_dim"),
        "shape": (20, 64),
        "length": f"{name}_frame",
        "dtype": "float32",
        "unit": "1",
        "description": "levels of a test",
        "compute": first_layer,
        "sample_rate_hz": RATE_HZ,
    }
    return Extractor(**{**fields, **changed})


SEQUENCE = extractor("levels")
LAYERS = extractor(
    "layers",
    dims=("layers_layer", "layers_frame", "layers_dim"),
    shape=(2, 20, 64),
    length="layers_frame",
    compute=frames,
)
COUNTS = extractor(
    "counts", dtype="int16", compute=lambda samples, rate_hz: first_layer(samples, rate_hz).astype(np.int16)
)
BATCHED = extractor("peak", dims=(), shape=(), length=None, compute=peak, compute_batch=peaks, batch_size=3)
ALL = {each.name: each for each in (SEQUENCE, LAYERS, COUNTS, BATCHED)}


def make_songs(folder: Path) -> Source:
    """Write tones of different lengths."""
    folder.mkdir(exist_ok=True)
    tracks = []
    for i, seconds in enumerate(SECONDS):
        t = np.arange(round(22_050 * seconds)) / 22_050
        soundfile.write(folder / f"{i}.wav", (0.1 * (i + 1) * np.sin(2 * np.pi * 50 * 2**i * t)).astype("f4"), 22_050)
        tracks.append(Track(id=f"t{i}", path=f"{i}.wav", genres=("jazz",), artists=(f"a{i}",), split="train"))
    return Source(root=folder, tracks=tracks)


def killed_after(n_tracks: int, name: str) -> Extractor:
    """Return the extractor, which kills its process when it has computed so many tracks."""
    done: list[int] = []

    def count(samples: np.ndarray, rate_hz: int) -> Any:
        done.append(1)
        if len(done) > n_tracks:
            os.kill(os.getpid(), signal.SIGKILL)
        return ALL[name].compute(samples, rate_hz)

    def count_batch(batch: list[np.ndarray], rate_hz: int) -> Any:
        return [count(samples, rate_hz) for samples in batch]

    batched = {"compute_batch": count_batch} if ALL[name].compute_batch else {}
    return Extractor(**{**vars(ALL[name]), "compute": count, **batched})


def tree(store: Path) -> dict[str, bytes]:
    """Return path -> content of the files of a store, without its log."""
    files = (path for path in store.rglob("*") if path.is_file() and path.relative_to(store).parts[0] != "log")
    return {str(path.relative_to(store)): path.read_bytes() for path in files}
