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
    """`alternatives`: also what was tried and not taken (docs/design/008-speed.md)."""
    files = find_text_model(str(encoder))
    padded, by_length = rivals.PaddedEncoder(files.folder), rivals.SortedEncoder(files.folder)
    entrants: dict[str, Any] = {PADDED: lambda: padded(lyrics)}
    least = {}
    if alternatives:
        entrants[SORTED] = lambda: by_length(lyrics)
    for precision in ("fp32", "bf16") if cpu_has_bf16() else ("fp32",):
        taken = f"mgc, {precision}"
        for label, pack_tokens in {
            taken: None,
            f"{taken}, one at a time": 0,
            f"{taken}, packed": PACKED_TOKENS,
        }.items():
            is_default = (pack_tokens == 0) == (precision == "fp32")
            if pack_tokens is not None and (is_default or not alternatives):
                continue
            ours = TextEncoder(files, precision=precision, pack_tokens=pack_tokens)  # type: ignore[arg-type]
            entrants[label] = lambda ours=ours: [one.states for one in ours.encode_all(lyrics)]
            least[label] = LEAST_COSINE[precision]
    n_tokens = sum(len(states) for states in padded(lyrics))
    times = in_turn(entrants, rounds=rounds, agree=lambda one, two: agree(one, two, min(least.values())))
    rows = []
    for entrant in entrants:
        rate = [n_tokens / seconds for seconds in times.seconds[entrant]]
        rows.append([entrant, spread(rate, 1, 0), "-" if entrant == PADDED else times.ratio(PADDED, entrant)])
    title = f"Text: {name}, one core ({len(lyrics)} lyrics, {n_tokens / len(lyrics):.0f} tokens on average)"
    return table(title, ["", "tokens/s", "times padded"], rows)


def agree(reference: list[np.ndarray], other: list[np.ndarray], least: float) -> str | None:
    for one, two in zip(reference, other, strict=True):
        if one.shape != two.shape:
            return f"{one.shape} states against {two.shape}"
        cosine = float(((one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)).min())
        if cosine < least:
            return f"a token at cosine {cosine:.6f}"
    return None
