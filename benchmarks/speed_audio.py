"""mp3 to stored log-mel: the librosa script, ours without and with the child process, and decoding alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rivals
from pairs import in_turn, spread, table

from mgc.cache.schema import MelRecipe
from mgc.pipeline.clip_child import extract
from mgc.pipeline.clips import Caps, ClipReader

LIBROSA, BARE, CHILD, DECODE = "librosa script", "mgc, bare function", "mgc, child process", "decoding alone"
FLOAT16_STEP_DB = 0.0625
"""Between neighbouring float16 values near -100 dB; librosa itself is met within 0.05 dB before rounding."""


def run(clips: list[Path], saved: Path, rounds: int) -> str:
    recipe, caps = MelRecipe(), Caps()

    def save(path: Path, mel: np.ndarray) -> np.ndarray:
        np.save(saved / f"{path.stem}.npy", mel)
        return mel

    with ClipReader(recipe) as reader:
        entrants = {
            LIBROSA: lambda: [rivals.librosa_script(path, saved / f"{path.stem}.npy") for path in clips],
            BARE: lambda: [save(path, extract(path, recipe, caps).mel) for path in clips],
            CHILD: lambda: [save(path, reader.read(path).mel) for path in clips],
            DECODE: lambda: decode_all(clips),
        }
        times = in_turn(entrants, rounds=rounds, agree=agree)
    rows: list[list[Any]] = []
    for name in entrants:
        against = "-" if name == LIBROSA else times.ratio(LIBROSA, name)
        of_decoding = "-" if name == DECODE else times.ratio(name, DECODE)
        rows.append([name, spread(times.seconds[name], 1e3 / len(clips), 1), against, of_decoding])
    title = f"Audio: mp3 to stored log-mel, one core ({len(clips)} clips of 30 s, 44.1 kHz stereo)"
    return table(title, ["", "ms a clip", "times the librosa script", "times decoding"], rows)


def decode_all(clips: list[Path]) -> None:
    for path in clips:
        rivals.decode_only(path)  # thrown away at once: kept, they would cost memory anew


def agree(reference: list[np.ndarray], other: list[np.ndarray] | None) -> str | None:
    if other is None:  # decoded samples are no spectrogram
        return None
    for one, two in zip(reference, other, strict=True):
        frames = min(one.shape[1], two.shape[1])  # ours pads what a decoder trims off the end
        if frames < two.shape[1] - 12:
            return f"{one.shape[1]} frames against {two.shape[1]}"
        worst = float(np.abs(one[:, : frames - 8] - two[:, : frames - 8].astype(np.float32)).max())
        if worst > 0.05 + FLOAT16_STEP_DB:
            return f"{worst:.3f} dB apart"
    return None
