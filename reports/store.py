"""The page about a feature store, finished or still growing. A section without data says what is missing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from ..cache.errors import ConfigError
from ..cache.format.meanings import FLAG_MEANINGS, REASON_MEANINGS
from ..cache.format.plan import is_store
from ..cache.format.recipe import FeatureSetRecipe, MelRecipe, TextRecipe
from ..cache.format.schema import FAILED, Flag, Reason
from ..cache.reading.store import FeatureStore
from ..cache.upkeep.info import describe
from .charts import RANGE_DB, Chart, bar_chart, histogram_chart, mel_chart
from .html import Json, write_page
from .store_survey import SPLIT_ORDER, Histogram, Picture, Survey, pictures, survey

N_EXAMPLES = 3
"""Failed tracks that are listed per reason."""
MAX_LISTED = 1000
"""Genres in the table; of more, those with most tracks."""
MAX_LANGUAGES = 20
"""Languages in the chart."""
MAX_DRAWN = 100
"""Genres in the chart; of more, those with most tracks."""
NO_SPLIT = "no split told"


def write_store_report(path: Path, out: Path | None = None) -> Path:
    """Write a store's report and return its path.

    Parameters
    ----------
    path : a feature store in either form, finished or growing.
    out : the page to write; default: next to the store, its name and ``.report.html``.

    Raises
    ------
    ConfigError
        `out` is the store itself or lies in one.
    StoreNotFoundError, StoreFormatError, StoreCorruptError
    MissingExtraError
        jinja2 or matplotlib is not installed (extra ``report``).
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - a link to a store has its page next to the link
    out = path.with_name(f"{path.name}.report.html") if out is None else out
    _refuse_inside(out)
    with FeatureStore.open(path) as store:
        info, counts, recipe = describe(store), survey(store), store.recipe
        heads, n_planned = _coverage_heads(store), sum(counts.labels.values())
        flags = sorted(info.flags.items(), key=lambda item: -item[1])
        return write_page(
            out,
            "store.html",
            title=f"store {store.path.name}",
            name=store.path.name,
            info=info,
            survey=counts,
            mel=recipe.mel,
            lyrics=recipe.lyrics,
            features=[*(["sound"] if recipe.mel else []), *(["lyrics"] if recipe.lyrics else []), *store.added],
            failures=_failures(store, info.reasons) if info.failed else [],
            coverage_heads=heads,
            coverage=_coverage(counts, heads),
            added=[(added, _made_by(added.recipe), _reasons(added.reasons)) for added in counts.added],
            flags=[(name, n, FLAG_MEANINGS[Flag[name]]) for name, n in flags],
            n_planned=n_planned,
            mean_labels=sum(n * tracks for n, tracks in counts.labels.items()) / n_planned if n_planned else 0.0,
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
                **{f"sha256 of the recipe of {name}": value for name, value in info.fingerprints.items()},
                **store.library_versions,
                "store format": info.format_version,
                "tracks a part": info.part_rows,
            },
        )


def _refuse_inside(out: Path) -> None:
    """Refuse a page that would lie in a store, or replace it."""
    target = out.resolve()
    for place in (target, *target.parents):
        if is_store(place):
            raise ConfigError(f"{out}: {place} is a feature store; write the page somewhere else, such as beside it")


def _failures(store: FeatureStore, reasons: Json) -> list[dict[str, Any]]:
    """Return a row per reason, with some of its tracks."""
    failed = store.newest_tracks(["id", "status", "reason", "detail"])
    failed = failed.filter(pc.equal(failed.column("status"), FAILED))
    rows = []
    for reason, n in reasons.items():
        tracks = failed.filter(pc.equal(failed.column("reason"), reason)).slice(0, N_EXAMPLES).to_pylist()
        examples = [f"{track['id']}: {track['detail']}" if track["detail"] else track["id"] for track in tracks]
        rows.append({"reason": reason, "n": n, "meaning": _meaning(reason), "examples": examples})
    return rows


def _meaning(reason: str) -> tuple[str, str]:
    """Return what happened and what to do."""
    if reason not in Reason.__members__:
        return "A reason that a later version of mgc gave.", "–"
    return REASON_MEANINGS[Reason(reason)]


def _coverage_heads(store: FeatureStore) -> dict[str, str]:
    """Return the counts of :class:`Survey` that are columns, with their heads."""
    mel, lyrics = store.recipe.mel, store.recipe.lyrics
    return {
        "planned": "planned",
        "failed": "failed",
        "pending": "pending",
        **({"sound": "with sound"} if mel else {}),
        **({"lyrics": "with lyrics"} if lyrics else {}),
        **({"both": "with both"} if mel and lyrics else {}),
        **{f"+{name}": f"with {name}" for name in store.added},
    }


def _coverage(counts: Survey, heads: Iterable[str]) -> dict[str, dict[str, int]]:
    """Return the counts by split, and of all tracks."""
    by_split = {name or NO_SPLIT: of_split for name, of_split in counts.splits.items()}
    if list(by_split) == [NO_SPLIT]:
        return {f"all ({NO_SPLIT})": by_split[NO_SPLIT]}
    return {**by_split, "all": {key: sum(of_split[key] for of_split in by_split.values()) for key in heads}}


def _made_by(recipe: FeatureSetRecipe) -> str:
    if isinstance(recipe, TextRecipe):
        return f"text encoder {recipe.model}"
    return f"extractor {recipe.extractor} {recipe.version}, of the {'lyrics' if recipe.input == 'text' else 'sound'}"


def _reasons(reasons: dict[str, int]) -> list[str]:
    return [f"{n:,} {reason}: {' '.join(_meaning(reason))}" for reason, n in reasons.items()]


def _seconds_chart(seconds: Histogram | None, mel: MelRecipe | None) -> Chart | None:
    """Draw how long the audio files are; None without audio."""
    if seconds is None or mel is None:
        return None
    mark = (mel.clip_s, f"clip: {mel.clip_s:g} s")
    return histogram_chart(seconds, title="Length of the audio files", x_label="length (s)", mark=mark)


def _tokens_chart(tokens: Histogram | None, lyrics: TextRecipe | None) -> Chart | None:
    """Draw how long lyrics are; None without lyrics."""
    if tokens is None or lyrics is None:
        return None
    x_label = "tokens of the text encoder, before cutting"
    mark = (float(lyrics.max_tokens), f"kept: {lyrics.max_tokens}")
    return histogram_chart(tokens, title="Length of the lyrics", x_label=x_label, mark=mark)


def _language_chart(languages: dict[str, int]) -> dict[str, Any] | None:
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
    chart = bar_chart(rows, ["tracks"], title=title, x_label="tracks", y_label="language (tag)")
    first, n = next(iter(tagged.items()))
    return {"chart": chart, "n": len(tagged), "first": first, "share": n / sum(languages.values())}


def _genre_chart(counts: Survey) -> dict[str, Any] | None:
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


def _mel_charts(pictures: Sequence[Picture], mel: MelRecipe | None) -> dict[str, Any]:
    """Draw mels on one scale of colours, from the loudest value of all of them."""
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
