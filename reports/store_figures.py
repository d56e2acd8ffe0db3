"""Sections of a store's report with figures: lengths, languages, lyrics, genres, and a few mels as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..cache.format.recipe import MelRecipe, TextRecipe
from .charts import RANGE_DB, bar_chart, histogram_chart, mel_chart
from .html import count, figure, table, text
from .store_survey import SPLIT_ORDER, Histogram, Picture, Survey

MAX_LANGUAGES = 20
MAX_DRAWN, MAX_LISTED = 100, 1000
"""Genres in the chart and in the table; of more, those with most tracks."""


def lengths_section(found: Survey, mel: MelRecipe | None, lyrics: TextRecipe | None) -> str:
    """How long files and lyrics are."""
    figures = []
    if found.seconds is not None and mel is not None:
        figures.append(_seconds_figure(found.seconds, mel))
    if found.tokens is not None and lyrics is not None:
        figures.append(_tokens_figure(found.tokens, lyrics))
    missing = []
    if found.seconds is None:
        missing.append("No track here has sound." if mel is not None else "This store holds no sound features.")
    if found.tokens is None:
        missing.append("No track here has lyrics." if lyrics is not None else "This store holds no lyrics features.")
    said = f"<p>{text(' '.join(missing))}</p>\n" if missing else ""
    shown = f"<div class=figures>{''.join(figures)}</div>" if figures else ""
    return f"<h2>Lengths</h2>\n{said}{shown}"


def _seconds_figure(seconds: Histogram, mel: MelRecipe) -> str:
    title = "Length of the audio files"
    chart = histogram_chart(seconds, title=title, x_label="length (s)", mark=(mel.clip_s, f"clip: {mel.clip_s:g} s"))
    said = (
        f"{seconds.n:,} files, {_time(seconds.total)} in all; the shortest {seconds.low:,.1f} s, the median "
        f"{seconds.median:,.1f} s, the longest {seconds.high:,.1f} s. Files shorter than the clip of {mel.clip_s:g} s "
        f"are padded with zeros (SHORT), of longer ones (LONG) the {mel.offset} is kept."
    )
    return figure(chart, title, said + _beyond(seconds, "s"))


def _time(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def _tokens_figure(tokens: Histogram, lyrics: TextRecipe) -> str:
    title = "Length of the lyrics"
    mark = (float(lyrics.max_tokens), f"kept: {lyrics.max_tokens}")
    chart = histogram_chart(tokens, title=title, x_label="tokens of the text encoder, before cutting", mark=mark)
    said = (
        f"{tokens.n:,} tracks with lyrics; the shortest {tokens.low:,.0f} tokens, the median {tokens.median:,.0f}, the "
        f"longest {tokens.high:,.0f}, the encoder's two marks included. "
    )
    said += (
        f"What is right of the dashed line (LYRICS_TRUNCATED) was read up to its {lyrics.max_tokens:,} only."
        if tokens.high > lyrics.max_tokens
        else f"All are within the {lyrics.max_tokens:,} that are kept."
    )
    return figure(chart, title, said + _beyond(tokens, "tokens"))


def _beyond(shown: Histogram, unit: str) -> str:
    if not shown.n_beyond:
        return ""
    return f" The last bar also counts {shown.n_beyond:,} longer than {shown.edges[-1]:,.0f} {unit}."


def languages_section(languages: dict[str, int]) -> str:
    told = {tag: n for tag, n in languages.items() if tag}
    untold = languages.get("", 0)
    if not told:
        return "<h2>Languages</h2>\n<p>The source told no track's language.</p>"
    shown = dict(list(told.items())[:MAX_LANGUAGES])
    rest = sum(told.values()) - sum(shown.values())
    rows = {tag: [n] for tag, n in shown.items()}
    rows |= {f"{len(told) - len(shown)} others": [rest]} if rest else {}
    rows |= {"not told": [untold]} if untold else {}
    title = "Languages of the planned tracks"
    chart = bar_chart(rows, ["tracks"], title=title, x_label="tracks", y_label="language (tag)")
    first, n = next(iter(told.items()))
    said = (
        f"As the source tells them: the most frequent of {len(told):,} is {first}, {n / sum(languages.values()):.1%} "
        "of all planned tracks. A text encoder that knows other languages only reads the rest badly."
    )
    if "zxx" in told:
        said += " zxx stands for tracks without words."
    return f"<h2>Languages</h2>\n<div class=figures>{figure(chart, title, said)}</div>"


def genres_section(found: Survey) -> str:
    """How many tracks a genre has, by split: a chart and a table."""
    if not found.genres:
        return (
            "<h2>Genres</h2>\n<p>No track has a genre: nothing can be learned from this store as it is. Other labels "
            "can be given to mgc train with --labels.</p>"
        )
    return (
        f"<h2>Genres</h2>\n<p>{text(_label_sentence(found))}</p>\n"
        f"<div class=figures>{_genre_figure(found)}<div class=beside>{_genre_table(found)}</div></div>"
    )


def _genre_figure(found: Survey) -> str:
    if not any(counts["ok"] for counts in found.genres.values()):
        return "<p>No track of any genre has features, so there is nothing to draw.</p>"
    drawn, title = dict(list(found.genres.items())[:MAX_DRAWN]), "Tracks with features, by genre"
    known = [name for name in SPLIT_ORDER if name in found.splits]
    parts, rows = [*known, "no split"], {name: _by_part(counts, known) for name, counts in drawn.items()}
    if not any(row[-1] for row in rows.values()):
        parts, rows = known, {name: row[:-1] for name, row in rows.items()}
    if not known:
        parts = ["tracks"]
    chart = bar_chart(rows, parts, title=title, x_label="tracks with features", y_label="genre")
    smallest = min(found.genres, key=lambda name: found.genres[name]["ok"])
    said = (
        "Long bars are genres that a model hears often, short ones those that it can hardly learn; the fewest tracks, "
        f"{found.genres[smallest]['ok']:,}, has {smallest}."
    )
    if len(parts) > 1:
        said += " Where a bar's colours stand in another proportion than its neighbours', that genre is split unevenly."
    if len(drawn) < len(found.genres):
        said += f" Drawn are the {len(drawn)} most frequent of {len(found.genres):,}."
    return figure(chart, title, said)


def _by_part(counts: dict[str, int], known: Sequence[str]) -> list[int]:
    in_known = [counts.get(f"in {name}", 0) for name in known]
    return [*in_known, counts["ok"] - sum(in_known)]


def _label_sentence(found: Survey) -> str:
    labels, planned = found.labels, sum(found.labels.values())
    mean = sum(n * tracks for n, tracks in labels.items()) / planned
    return (
        f"{count(len(found.genres), 'genre')} over {count(planned, 'planned track')}, {mean:.2f} a track on average, "
        f"{max(labels)} at most; {labels.get(0, 0):,} tracks have none. A track counts in each of its genres."
    )


def _genre_table(found: Survey) -> str:
    splits = [name for name in found.splits if name]
    heads = ["genre", "planned", "with features", "share", "with lyrics", *splits]
    rows = [
        [text(name), f"{counts['planned']:,}", f"{counts['ok']:,}", f"{counts['ok'] / counts['planned']:.1%}",
         f"{counts['lyrics']:,}", *(f"{counts.get(f'in {split}', 0):,}" for split in splits)]
        for name, counts in list(found.genres.items())[:MAX_LISTED]
    ]  # fmt: skip
    said = "" if len(rows) == len(found.genres) else f"<p>The {len(rows):,} most frequent of {len(found.genres):,}.</p>"
    return said + table(heads, rows, about="Tracks by genre", sortable=True, find="Find a genre", tall=len(rows) > 20)


def pictures_section(shown: Sequence[Picture], mel: MelRecipe | None) -> str:
    if mel is None or not shown:
        return ""
    top_db = max(float(one.mel.max()) for one in shown)
    figures = "".join(
        figure(mel_chart(one, mel, top_db, title=_picture_title(one)), _picture_title(one), _picture_said(one, mel))
        for one in shown
    )
    which = "One track of each of the most frequent genres" if shown[0].genre is not None else "Tracks drawn evenly"
    return (
        f"<h2>A few mel spectrograms</h2>\n<p>{which}, as stored. Bright is loud: level lines are held notes, upright "
        f"ones are beats, an empty top is a low sample rate or a lossy codec. All have the same colours, from the "
        f"loudest value here ({_db(top_db)}) to {RANGE_DB:.0f} dB below it, where what is quieter ends too.</p>\n"
        f"<div class=figures>{figures}</div>"
    )


def _picture_title(one: Picture) -> str:
    return one.id if one.genre is None else f"{one.genre}: {one.id}"


def _picture_said(one: Picture, mel: MelRecipe) -> str:
    seconds = one.mel.shape[1] * mel.hop_length / mel.sample_rate_hz
    return (
        f"{seconds:.1f} s of sound from {one.offset_s:.1f} s of the file on; the loudest value {_db(one.mel.max())}, "
        f"the median {_db(np.median(one.mel))}."
    )


def _db(value: float | np.floating[Any]) -> str:
    return f"{round(float(value))} dB".replace("-", "−")
