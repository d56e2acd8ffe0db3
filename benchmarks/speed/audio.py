"""Time mp3 to stored log-mel: a script with librosa, peers, mgc with and without a decoder process, decoding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed import rivals
from benchmarks.timing import in_turn, spread, table
from mgc.cache.format.recipe import MelRecipe
from mgc.pipeline.audio.clip_child import extract
from mgc.pipeline.audio.clip_reader import ClipReader
from mgc.pipeline.audio.containers import Caps

LIBROSA, BARE, CHILD, DECODE = "librosa script", "mgc, bare function", "mgc, child process", "decoding only"
PEERS: Mapping[str, tuple[str, Callable[[Path, Path], object]]] = {
    "torchcodec, mel by librosa": ("torchcodec.decoders", rivals.torchcodec_script),
    "nnAudio, audio by librosa": ("nnAudio", rivals.nnaudio_script),
    "lhotse": ("lhotse", rivals.lhotse_script),
}
"""Package and function of peers, which are left out where the package or FFmpeg is missing."""
NOTE = (
    "Spectrograms of mgc are compared with those of the script. Those of peers are not: torchcodec resamples and mixes "
    "with FFmpeg, and lhotse takes logarithms of amplitudes."
)
FLOAT16_STEP_DB = 0.0625
"""Spacing of float16 values near -100 dB. Before rounding, mgc is within 0.05 dB of librosa."""


def run(clips: list[Path], saved: Path, rounds: int) -> str:
    """Time all implementations on `clips` and return the table."""
    recipe, caps = MelRecipe(), Caps()
    peers = {name: script for name, (package, script) in PEERS.items() if rivals.is_usable(package)}
    folders = {name: saved / str(index) for index, name in enumerate((LIBROSA, BARE, CHILD, *peers))}
    for folder in folders.values():
        folder.mkdir()

    def stored(name: str, write: Callable[[Path, Path], object]) -> Callable[[], Path | None]:
        """Write the spectrogram of every clip; the files are compared, which saves memory."""

        def write_all() -> Path | None:
            for path in clips:
                write(path, folders[name] / f"{path.stem}.npy")
            return None if name in peers else folders[name]

        return write_all

    with ClipReader(recipe) as reader:
        functions: dict[str, Callable[[], Any]] = {
            LIBROSA: stored(LIBROSA, rivals.librosa_script),
            BARE: stored(BARE, lambda path, to: np.save(to, extract(path, recipe, caps).mel)),
            CHILD: stored(CHILD, lambda path, to: np.save(to, reader.read(path).mel)),
            DECODE: lambda: decode_all(clips),
            **{name: stored(name, script) for name, script in peers.items()},
        }
        times = in_turn(functions, rounds=rounds, agree=agree)
    rows: list[list[Any]] = []
    for name in functions:
        against_script = "-" if name == LIBROSA else times.ratio(LIBROSA, name)
        against_decoding = "-" if name == DECODE else times.ratio(name, DECODE)
        rows.append([name, spread(times.seconds[name], 1e3 / len(clips), 1), against_script, against_decoding])
    title = f"Audio: mp3 to stored log-mel, one core ({len(clips)} clips of 30 s, 44.1 kHz stereo)"
    shown = table(title, ["", "ms per clip", "times the librosa script", "times decoding"], rows)
    return f"{shown}\n\n{NOTE}" if peers else shown


def decode_all(clips: list[Path]) -> None:
    for path in clips:
        rivals.decode_only(path)


def agree(reference: Path, other: Path | None) -> str | None:
    """Return the first difference between two folders of spectrograms, or None."""
    if other is None:  # decoding only, or a peer with other definitions
        return None
    differences = (difference(np.load(path), np.load(other / path.name)) for path in reference.iterdir())
    return next(filter(None, differences), None)


def difference(expected: np.ndarray, mel: np.ndarray) -> str | None:
    """Return the difference between two spectrograms as text, or None if they agree."""
    frames = min(expected.shape[1], mel.shape[1])  # mgc pads samples that a decoder trims at the end
    if frames < mel.shape[1] - 12:
        return f"{expected.shape[1]} frames against {mel.shape[1]}"
    worst = float(np.abs(expected[:, : frames - 8] - mel[:, : frames - 8].astype(np.float32)).max())
    return f"{worst:.3f} dB apart" if worst > 0.05 + FLOAT16_STEP_DB else None
