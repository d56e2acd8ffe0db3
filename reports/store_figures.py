"""The charts of a store's page: lengths, languages, genres, and a few mels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..cache.format.recipe import MelRecipe, TextRecipe
from .charts import Chart, bar_chart, histogram_chart, mel_chart
from .store_survey import SPLIT_ORDER, Histogram, Picture, Survey

MAX_LANGUAGES = 20
MAX_DRAWN = 100
"""Genres in the chart; of more, those with most tracks."""


def seconds_chart(seconds: Histogram | None, mel: MelRecipe | None) -> Chart | None:
    """Draw how long the audio files are; None without audio."""
    if seconds is None or mel is None:
        return None
    mark = (mel.clip_s, f"clip: {mel.clip_s:g} s")
    return histogram_chart(seconds, title="Length of the audio files", x_label="length (s)", mark=mark)


def tokens_chart(tokens: Histogram | None, lyrics: TextRecipe | None) -> Chart | None:
    """Draw how long lyrics are; None without lyrics."""
    if tokens is None or lyrics is None:
        return None
    x_label = "tokens of the text encoder, before cutting"
    mark = (float(lyrics.max_tokens), f"kept: {lyrics.max_tokens}")
    return histogram_chart(tokens, title="Length of the lyrics", x_label=x_label, mark=mark)


def language_chart(languages: dict[str, int]) -> dict[str, Any] | None:
    """Draw the most frequent languages; None where the source has none."""
    tagged = {tag: n for tag, n in languages.items() if tag}
    if not tagged:
        return None
    drawn = dict(list(tagged.items())[:MAX_LANGUAGES])
    n_others, n_untagged = sum(tagged.values()) - sum(drawn.values()), languages.get("", 0)
    rows = {tag: [n] for tag, n in drawn.items()}
    rows |= {f"{len(tagged) - len(drawn)} others": [n_others]} if n_others else {}
    rows |= {"not told": [n_untagged]} if n_untagged else {}
    title = "Languages of the planned tracks"
    first, n = next(iter(tagged.items()))
    return {
        "chart": bar_chart(rows, ["tracks"], title=title, x_label="tracks", y_label="language (tag)"),
        "n": len(tagged),
        "first": first,
        "share": n / sum(languages.values()),
    }


def genre_chart(counts: Survey) -> dict[str, Any] | None:
    """Draw how many tracks with features a genre has, by split; None where no genre has any."""
    with_features = {name: of_genre["ok"] for name, of_genre in counts.genres.items()}
    if not any(with_features.values()):
        return None
    splits = [name for name in SPLIT_ORDER if name in counts.splits]
    rows = {}
    for name, of_genre in list(counts.genres.items())[:MAX_DRAWN]:
        by_split = [of_genre.get(f"in {split}", 0) for split in splits]
        rows[name] = [*by_split, of_genre["ok"] - sum(by_split)]
    parts = [*splits, "no split"] if splits else ["tracks"]
    if splits and not any(row[-1] for row in rows.values()):
        parts, rows = splits, {name: row[:-1] for name, row in rows.items()}
    title = "Tracks with features, by genre"
    smallest = min(with_features, key=lambda name: with_features[name])
    return {
        "chart": bar_chart(rows, parts, title=title, x_label="tracks with features", y_label="genre"),
        "by_split": len(parts) > 1,
        "n_drawn": len(rows),
        "smallest": smallest,
        "fewest": with_features[smallest],
    }


def mel_charts(pictures: Sequence[Picture], mel: MelRecipe | None) -> dict[str, Any]:
    """Draw mels on one scale of colours, from the loudest value of all of them."""
    if mel is None or not pictures:
        return {"pictures": []}
    top_db = max(float(picture.mel.max()) for picture in pictures)
    return {
        "top_db": _db(top_db),
        "pictures": [
            {
                "genre": picture.genre,
                "chart": mel_chart(picture, mel, top_db, title=_title(picture)),
                "seconds": picture.mel.shape[1] * mel.hop_length / mel.sample_rate_hz,
                "offset_s": picture.offset_s,
                "high_db": _db(picture.mel.max()),
                "median_db": _db(np.median(picture.mel)),
            }
            for picture in pictures
        ],
    }


def _title(picture: Picture) -> str:
    return picture.id if picture.genre is None else f"{picture.genre}: {picture.id}"


def _db(value: float | np.floating[Any]) -> str:
    return f"{round(float(value))} dB".replace("-", "−")
