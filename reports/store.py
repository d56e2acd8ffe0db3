"""The page about a feature store, finished or still growing. A section without data says what is missing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from ..cache.durable import replace_file
from ..cache.errors import ConfigError
from ..cache.format.meanings import FLAG_MEANINGS, REASON_MEANINGS
from ..cache.format.plan import is_store
from ..cache.format.recipe import FeatureSetRecipe, TextRecipe
from ..cache.format.schema import FAILED, Flag, Reason
from ..cache.reading.store import FeatureStore
from ..cache.upkeep.info import describe
from .charts import RANGE_DB
from .html import Json, render
from .store_figures import genre_chart, language_chart, mel_charts, seconds_chart, tokens_chart
from .store_survey import Survey, pictures, survey

N_EXAMPLES = 3
"""Failed tracks that are listed per reason."""
MAX_LISTED = 1000
"""Genres in the table; of more, those with most tracks."""
NO_SPLIT = "no split told"


def write_store_report(path: Path, out: Path | None = None) -> Path:
    """Write a store's report.

    Parameters
    ----------
    path : a feature store in either form, finished or growing.
    out : the page to write; default: next to the store, its name and ``.report.html``.

    Returns
    -------
    Path
        Of the page.

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
        page = render_store_report(store)
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, page.encode())
    return out


def render_store_report(store: FeatureStore) -> str:
    """Render the page of a store."""
    info, counts = describe(store), survey(store)
    mel, lyrics = store.recipe.mel, store.recipe.lyrics
    heads, n_planned = _coverage_heads(store), sum(counts.labels.values())
    return render(
        "store.html",
        title=f"store {store.path.name}",
        name=store.path.name,
        info=info,
        survey=counts,
        mel=mel,
        lyrics=lyrics,
        features=[*(["sound"] if mel else []), *(["lyrics"] if lyrics else []), *store.added],
        failures=_failures(store, info.reasons) if info.failed else [],
        coverage_heads=heads,
        coverage=_coverage(counts, heads),
        added=[(added, _made_by(added.recipe), _reasons(added.reasons)) for added in counts.added],
        flags=[
            (name, n, FLAG_MEANINGS[Flag[name]]) for name, n in sorted(info.flags.items(), key=lambda item: -item[1])
        ],
        n_planned=n_planned,
        mean_labels=sum(n * tracks for n, tracks in counts.labels.items()) / n_planned if n_planned else 0.0,
        genre_chart=genre_chart(counts),
        genre_rows=list(counts.genres.items())[:MAX_LISTED],
        genre_splits=[name for name in counts.splits if name],
        seconds_chart=seconds_chart(counts.seconds, mel),
        tokens_chart=tokens_chart(counts.tokens, lyrics),
        languages=language_chart(counts.languages),
        range_db=RANGE_DB,
        **mel_charts(pictures(store, list(counts.genres)), mel),
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
