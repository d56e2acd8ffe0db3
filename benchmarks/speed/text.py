"""Lyrics to token states: transformers padded to 512 or sorted by length, ours one at a time and packed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed import rivals
from benchmarks.timing import in_turn, spread, table
from mgc.cache.machine import cpu_has_bf16
from mgc.pipeline.text.encoder import TextEncoder
from mgc.pipeline.text.models import find_text_model

PADDED = "transformers, padded to 512, batches of 16, fp32"
SORTED = "transformers, sorted by length, padded to the longest of 8, fp32"
PACKED_TOKENS = 1024
LEAST_COSINE = {"fp32": 0.99999, "bf16": 0.999}


def run(encoder: str | Path, name: str, lyrics: list[str], rounds: int, *, alternatives: bool) -> str:
    """Time all entrants on `lyrics`; with `alternatives` also those that were rejected (docs/design/008-speed.md)."""
    files = find_text_model(str(encoder))
    padded, by_length = rivals.PaddedEncoder(files.folder), rivals.SortedEncoder(files.folder)
    entrants: dict[str, Any] = {PADDED: lambda: padded(lyrics)}
    least = {}
    if alternatives:
        entrants[SORTED] = lambda: by_length(lyrics)
    for precision in ("fp32", "bf16") if cpu_has_bf16() else ("fp32",):
        default = f"mgc, {precision}"
        for label, pack_tokens in {
            default: None,
            f"{default}, one at a time": 0,
            f"{default}, packed": PACKED_TOKENS,
        }.items():
            is_default = (pack_tokens == 0) == (precision == "fp32")
            if pack_tokens is not None and (is_default or not alternatives):
                continue
            ours = TextEncoder(files, precision=precision, pack_tokens=pack_tokens)  # type: ignore[arg-type]
            entrants[label] = lambda ours=ours: [text.states for text in ours.encode_all(lyrics)]
            least[label] = LEAST_COSINE[precision]
    n_tokens = sum(len(states) for states in padded(lyrics))
    times = in_turn(entrants, rounds=rounds, agree=lambda theirs, ours: agree(theirs, ours, min(least.values())))
    rows = []
    for entrant in entrants:
        rate = [n_tokens / seconds for seconds in times.seconds[entrant]]
        rows.append([entrant, spread(rate, 1, 0), "-" if entrant == PADDED else times.ratio(PADDED, entrant)])
    title = f"Text: {name}, one core ({len(lyrics)} lyrics, {n_tokens / len(lyrics):.0f} tokens on average)"
    return table(title, ["", "tokens/s", "times padded"], rows)


def agree(reference: list[np.ndarray], other: list[np.ndarray], least: float) -> str | None:
    """Return what is wrong with the token states of a text, or None; `least` is the smallest cosine allowed."""
    for theirs, ours in zip(reference, other, strict=True):
        if theirs.shape != ours.shape:
            return f"{theirs.shape} states against {ours.shape}"
        norms = np.linalg.norm(theirs, axis=1) * np.linalg.norm(ours, axis=1)
        cosine = float(((theirs * ours).sum(1) / norms).min())
        if cosine < least:
            return f"a token at cosine {cosine:.6f}"
    return None
