"""Page with an explanation of one track: player, effects over time and bands, highlighted lyrics, attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..heads.evaluation.explain import BANDS, MODALITIES, SECONDS, WORDS, Explanation, Regions
from .html import audio_url, environment, policy, static, write_page
from .timeline import clock, ticks

MAX_ATTENDED = 40
"""Maximum number of words whose attention is drawn: those with the largest effect on any explained genre."""


def write_explanation(page: Path, found: Explanation) -> Path:
    """Write the page of an explanation, and return its path. It refers to the audio file by a relative path."""
    script = static("report.js") + static("timeline.js")
    start_s, end_s = found.start_s, found.end_s
    columns = list(found.explained)
    return write_page(
        page,
        "explanation.html",
        title=f"{Path(found.id).name}: explanation",
        found=found,
        source=None if found.file is None else audio_url(found.file, page.parent),
        genres=[
            {"name": found.genres[i], "score": float(found.scores[i]), "threshold": float(found.thresholds[i])}
            for i in columns
        ],
        maps={kind: _heat_map(found.regions[kind], columns) for kind in (SECONDS, BANDS) if kind in found.regions},
        modalities=_rows(found.regions[MODALITIES], columns),
        ticks=[
            (100 * tick / (end_s - start_s), clock(start_s + tick))
            for tick in (ticks(end_s - start_s) if end_s else ())
        ],
        clock=clock,
        lyrics=_lyrics(found, columns),
        attention=_attention(found, columns),
        script=script,
        policy=policy(script),
        style=f"{environment().globals['style']}{static('timeline.css')}{static('explanation.css')}",
    )


def _rows(regions: Regions, columns: list[int]) -> list[dict[str, Any]]:
    """Return the place of each region with its effects on the explained genres."""
    return [
        {**place, "effects": effects}
        for place, effects in zip(regions.places, regions.effects[:, columns].tolist(), strict=True)
    ]


def _heat_map(regions: Regions, columns: list[int]) -> dict[str, Any]:
    """Return equally wide cells, effects as shares of the largest one."""
    effects = regions.effects[:, columns]
    scale = _scale(effects)
    return {"rows": _rows(regions, columns), "scale": scale, "shares": (effects / scale).T.tolist()}


def _scale(effects: npt.NDArray[np.float32]) -> float:
    return float(np.abs(effects).max(initial=0.0)) or 1.0


def _lyrics(found: Explanation, columns: list[int]) -> list[dict[str, Any]]:
    """Return the lyrics for each explained genre: pieces of text, with the effect and its share for words."""
    if WORDS not in found.regions or found.lyrics is None:
        return []
    regions = found.regions[WORDS]
    scale = _scale(regions.effects[:, columns])
    versions = []
    for column in columns:
        pieces: list[tuple[str, float | None, float]] = []
        end = 0
        for place, effect in zip(regions.places, regions.effects[:, column].tolist(), strict=True):
            pieces.append((found.lyrics[end : place["start"]], None, 0.0))
            pieces.append((place["word"], effect, effect / scale))
            end = place["end"]
        versions.append({"genre": found.genres[column], "pieces": [*pieces, (found.lyrics[end:], None, 0.0)]})
    return versions


def _attention(found: Explanation, columns: list[int]) -> dict[str, Any] | None:
    """Return the attention of the words with the largest effects over the frames, as shares of the largest value."""
    if found.attention is None or WORDS not in found.regions:
        return None
    regions, weights = found.regions[WORDS], found.attention.of_words
    largest = np.abs(regions.effects[:, columns]).max(axis=1)
    drawn = np.sort(np.argsort(-largest, kind="stable")[:MAX_ATTENDED])
    return {
        "words": [regions.places[i]["word"] for i in drawn],
        "n_words": len(regions.places),
        "largest": float(weights.max()),
        "shares": (weights[drawn] / weights.max()).tolist(),
    }
