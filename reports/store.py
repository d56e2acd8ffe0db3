"""The report of a feature store, complete or not. A section without data states what is missing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from ..cache.errors import ConfigError
from ..cache.format.meanings import FLAG_MEANINGS, REASON_MEANINGS, unusual_flags
from ..cache.format.plan import is_store
from ..cache.format.recipe import FeatureSetRecipe, MelRecipe, TextRecipe
from ..cache.format.schema import FAILED, Flag, Reason
from ..cache.places import ObjectPath, place
from ..cache.reading.store import FeatureStore
from ..cache.upkeep.info import describe
from .charts import RANGE_DB, Chart, bar_chart, histogram_chart, mel_chart
from .html import Json, write_page
from .store_survey import SPLIT_ORDER, Histogram, Picture, Survey, pictures, survey

N_EXAMPLES = 3
"""Number of example tracks per reason code."""
MAX_LISTED = 1000
"""Maximum number of genres in the table; the most frequent ones."""
MAX_LANGUAGES = 20
"""Maximum number of languages in the chart."""
MAX_DRAWN = 100
"""Maximum number of genres in the chart; the most frequent ones."""
NO_SPLIT = "no split"


def write_store_report(path: Path, out: Path | None = None, *, similar: Sequence[Json] = ()) -> Path:
    """Write the report of a feature store and return its path.

    Parameters
    ----------
    path : feature store, Zarr or HDF5, complete or not.
    similar : genres that are probably spellings of others: from, to, tracks, tracks_to, reason.
    out : output file; default ``NAME.report.html`` next to the store NAME, or in the current folder for the URL of one.

    Raises
    ------
    ConfigError
        `out` is a store or inside a store.
    StoreNotFoundError, StoreFormatError, StoreCorruptError
    MissingExtraError
        jinja2 or matplotlib is not installed (extra ``report``).
    """
    path = place(path)
    if isinstance(path, ObjectPath):
        out = Path(f"{path.name}.report.html") if out is None else out
    else:
        path = Path(os.path.abspath(path))  # noqa: PTH100 - a link to a store has its page next to the link
    out = path.with_name(f"{path.name}.report.html") if out is None else out
    _refuse_inside(out)
    with FeatureStore.open(path) as store:
        info, counts, recipe = describe(store), survey(store), store.recipe
        heads, n_planned = _coverage_heads(store), sum(counts.labels.values())
        flags = sorted(unusual_flags(info.flags).items(), key=lambda item: -item[1])
        return write_page(
            out,
            "store.html",
            title=f"Feature store {store.path.name}: contents and coverage",
            name=store.path.name,
            info=info,
            survey=counts,
            mel=recipe.mel,
            lyrics=recipe.lyrics,
            features=[*(["audio"] if recipe.mel else []), *(["lyrics"] if recipe.lyrics else []), *store.added],
            failures=_failures(store, info.reasons) if info.failed else [],
            coverage_heads=heads,
            coverage=_coverage(counts, heads),
            added=[(added, _made_by(added.recipe), _reasons(added.reasons)) for added in counts.added],
            flags=[(name, n, FLAG_MEANINGS[Flag[name]]) for name, n in flags],
            n_planned=n_planned,
            mean_labels=sum(n * tracks for n, tracks in counts.labels.items()) / n_planned if n_planned else 0.0,
            similar=similar,
            genre_chart=_genre_chart(counts),
            genre_rows=list(counts.genres.items())[:MAX_LISTED],
            genre_splits=[name for name in counts.splits if name],
            seconds_chart=_seconds_chart(counts.seconds, recipe.mel),
            tokens_chart=_tokens_chart(counts.tokens, recipe.lyrics),
            languages=_language_chart(counts.languages),
            range_db=RANGE_DB,
            **_mel_charts(pictures(store, list(counts.genres)), recipe.mel),
            settings={f"{part}.{key}": value for part, v in info.recipe.to_dict().items() for key, value in v.items()},
            versions={
                **{f"fingerprint of {name}": value for name, value in info.fingerprints.items()},
                **store.library_versions,
                "store format": info.format_version,
                "tracks per part": info.part_rows,
            },
        )


def _refuse_inside(out: Path) -> None:
    """Refuse an output file that is a store or inside a store."""
    target = out.resolve()
    for folder in (target, *target.parents):
        if is_store(folder):
            raise ConfigError(f"{out}: {folder} is a feature store. Write the page to a folder outside of it.")


def _failures(store: FeatureStore, reasons: Json) -> list[dict[str, Any]]:
    """Return one row per reason code, with example tracks."""
    failed = store.newest_tracks(["id", "status", "reason", "detail"])
    failed = failed.filter(pc.equal(failed.column("status"), FAILED))
    rows = []
    for reason, n in reasons.items():
        tracks = failed.filter(pc.equal(failed.column("reason"), reason)).slice(0, N_EXAMPLES).to_pylist()
        examples = [f"{track['id']}: {track['detail']}" if track["detail"] else track["id"] for track in tracks]
        rows.append({"reason": reason, "n": n, "meaning": _meaning(reason), "examples": examples})
    return rows


def _meaning(reason: str) -> tuple[str, str]:
    """Return the cause and the remedy."""
    if reason not in Reason.__members__:
        return "Reason code of a later version of mgc.", "–"
    return REASON_MEANINGS[Reason(reason)]


def _coverage_heads(store: FeatureStore) -> dict[str, str]:
    """Return the keys of :class:`Survey` counts in the coverage table, with their column headers."""
    mel, lyrics = store.recipe.mel, store.recipe.lyrics
    return {
        "planned": "planned",
        "failed": "failed",
        "pending": "pending",
        **({"sound": "with audio"} if mel else {}),
        **({"lyrics": "with lyrics"} if lyrics else {}),
        **({"both": "with both"} if mel and lyrics else {}),
        **{f"+{name}": f"with {name}" for name in store.added},
    }


def _coverage(counts: Survey, heads: Iterable[str]) -> dict[str, dict[str, int]]:
    """Return the counts per split and for all tracks."""
    by_split = {name or NO_SPLIT: of_split for name, of_split in counts.splits.items()}
    if list(by_split) == [NO_SPLIT]:
        return {f"all ({NO_SPLIT})": by_split[NO_SPLIT]}
    return {**by_split, "all": {key: sum(of_split[key] for of_split in by_split.values()) for key in heads}}


def _made_by(recipe: FeatureSetRecipe) -> str:
    if isinstance(recipe, TextRecipe):
        return f"text encoder {recipe.model}"
    return f"extractor {recipe.extractor} {recipe.version}, from {'lyrics' if recipe.input == 'text' else 'audio'}"


def _reasons(reasons: dict[str, int]) -> list[str]:
    return [f"{n:,} {reason}: {' '.join(_meaning(reason))}" for reason, n in reasons.items()]


def _seconds_chart(seconds: Histogram | None, mel: MelRecipe | None) -> Chart | None:
    """Draw the lengths of the audio files; None without audio."""
    if seconds is None or mel is None:
        return None
    mark = (mel.clip_s, f"clip, {mel.clip_s:g} s")
    return histogram_chart(seconds, title="Length of the audio files", x_label="length (s)", mark=mark)


def _tokens_chart(tokens: Histogram | None, lyrics: TextRecipe | None) -> Chart | None:
    """Draw the lengths of the lyrics; None without lyrics."""
    if tokens is None or lyrics is None:
        return None
    x_label = "tokens of the text encoder, before truncation"
    mark = (float(lyrics.max_tokens), f"limit, {lyrics.max_tokens}")
    return histogram_chart(tokens, title="Length of the lyrics", x_label=x_label, mark=mark)


def _language_chart(languages: dict[str, int]) -> dict[str, Any] | None:
    """Draw the most frequent languages; None if the source has no language tags."""
    tagged = {tag: n for tag, n in languages.items() if tag}
    if not tagged:
        return None
    drawn = dict(list(tagged.items())[:MAX_LANGUAGES])
    n_others, n_untagged = sum(tagged.values()) - sum(drawn.values()), languages.get("", 0)
    rows = {tag: [n] for tag, n in drawn.items()}
    rows |= {f"{len(tagged) - len(drawn)} others": [n_others]} if n_others else {}
    rows |= {"no tag": [n_untagged]} if n_untagged else {}
    title = "Languages of the planned tracks"
    chart = bar_chart(rows, ["tracks"], title=title, x_label="tracks", y_label="language tag")
    first, n = next(iter(tagged.items()))
    return {"chart": chart, "n": len(tagged), "first": first, "share": n / sum(languages.values())}


def _genre_chart(counts: Survey) -> dict[str, Any] | None:
    """Draw the number of tracks with features per genre and split; None if no genre has any."""
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
    title = "Tracks with features, per genre"
    smallest = min(with_features, key=lambda name: with_features[name])
    return {
        "chart": bar_chart(rows, parts, title=title, x_label="tracks with features", y_label="genre"),
        "by_split": len(parts) > 1,
        "n_drawn": len(rows),
        "smallest": smallest,
        "fewest": with_features[smallest],
    }


def _mel_charts(pictures: Sequence[Picture], mel: MelRecipe | None) -> dict[str, Any]:
    """Draw mel spectrograms on one colour scale, relative to the loudest value of all."""
    if mel is None or not pictures:
        return {"pictures": []}
    top_db = max(float(picture.mel.max()) for picture in pictures)
    return {
        "top_db": _db(top_db),
        "pictures": [
            {
                "genre": picture.genre,
                "chart": mel_chart(picture, mel, top_db),
                "seconds": picture.mel.shape[1] * mel.hop_length / mel.sample_rate_hz,
                "offset_s": picture.offset_s,
                "high_db": _db(picture.mel.max()),
                "median_db": _db(np.median(picture.mel)),
            }
            for picture in pictures
        ],
    }


def _db(value: float | np.floating[Any]) -> str:
    return f"{round(float(value))} dB".replace("-", "−")
