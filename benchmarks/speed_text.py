"""Lyrics to token states: transformers padded to 512 in float32, and ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rivals
from pairs import in_turn, spread, table

from mgc.cache.processor import cpu_has_bf16
from mgc.pipeline.text import TextEncoder, find_text_model

PADDED = "transformers, padded to 512, batches of 16, fp32"
LEAST_COSINE = {"fp32": 0.99999, "bf16": 0.999}


def run(encoder: str | Path, name: str, lyrics: list[str], rounds: int) -> str:
    padded = rivals.PaddedEncoder(find_text_model(str(encoder)).folder)
    entrants: dict[str, Any] = {PADDED: lambda: padded(lyrics)}
    least = {}
    for precision in ("fp32", "bf16") if cpu_has_bf16() else ("fp32",):
        ours = TextEncoder(find_text_model(str(encoder)), precision=precision)  # type: ignore[arg-type]
        entrants[f"mgc, {precision}"] = lambda ours=ours: [ours.encode(text).states for text in lyrics]
        least[f"mgc, {precision}"] = LEAST_COSINE[precision]
    n_tokens = sum(len(states) for states in padded(lyrics))
    times = in_turn(entrants, rounds=rounds, agree=lambda one, two: _agree(one, two, min(least.values())))
    rows = []
    for entrant in entrants:
        rate = [n_tokens / seconds for seconds in times.seconds[entrant]]
        rows.append([entrant, spread(rate, 1, 0), "-" if entrant == PADDED else times.ratio(PADDED, entrant)])
    title = f"Text: {name}, one core ({len(lyrics)} lyrics, {n_tokens / len(lyrics):.0f} tokens on average)"
    return table(title, ["", "tokens/s", "times padded"], rows)


def _agree(reference: list[np.ndarray], other: list[np.ndarray], least: float) -> str | None:
    for one, two in zip(reference, other, strict=True):
        if one.shape != two.shape:
            return f"{one.shape} states against {two.shape}"
        cosine = float(((one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)).min())
        if cosine < least:
            return f"a token at cosine {cosine:.6f}"
    return None
