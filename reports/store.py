"""One self-contained HTML page about a feature store, finished or still growing: nothing is loaded from elsewhere.

The summary comes first; then what failed and what to do, which features are there, what was unusual; lengths,
languages, genres, a few mels as pictures; the recipe. What a store does not have is said, not left out silently.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from ..cache.durable import replace_file
from ..cache.errors import ConfigError
from ..cache.format.meanings import FLAG_MEANINGS, REASON_MEANINGS
from ..cache.format.plan import is_store
from ..cache.format.recipe import TextRecipe
from ..cache.format.schema import FAILED, Flag, Reason
from ..cache.reading.store import FeatureStore
from ..cache.upkeep.info import describe
from .html import Cell, Json, count, page, table, text
from .store_figures import genres_section, languages_section, lengths_section, pictures_section
from .store_survey import AddedSet, Survey, pictures, survey

N_EXAMPLES = 3


def write_store_report(path: Path, out: Path | None = None) -> Path:
    """Write a store's report.

    Parameters
    ----------
    path : a feature store in either form, finished or growing.
    out : the page to write; default: beside the store, its name and ``.report.html``.

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
        matplotlib is not installed (extra ``report``).
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - a link to a store has its page beside the link
    out = path.with_name(f"{path.name}.report.html") if out is None else out
    _refuse_inside(out)
    with FeatureStore.open(path) as store:
        whole = render_store_report(store)
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, whole.encode())
    return out


def _refuse_inside(out: Path) -> None:
    """A page in a store would be no part of it, and one in its place would destroy it."""
    target = out.resolve()
    for place in (target, *target.parents):
        if is_store(place):
            raise ConfigError(f"{out}: {place} is a feature store; write the page somewhere else, such as beside it")


def render_store_report(store: FeatureStore) -> str:
    """The page of a store."""
    info, found = describe(store).to_dict(), survey(store)
    mel, lyrics = store.recipe.mel, store.recipe.lyrics
    sections = [
        _summary(store, info, found),
        _failures_section(store, info),
        _coverage_section(store, found),
        _flags_section(info),
        genres_section(found),
        lengths_section(found, mel, lyrics),
        languages_section(found.languages),
        pictures_section(pictures(store, list(found.genres)), mel),
        _recipe_section(store, info),
    ]
    return page(f"store {store.path.name}", "\n".join(part for part in sections if part))


def _summary(store: FeatureStore, info: Json, found: Survey) -> str:
    planned, ok, failed, pending = (info[key] for key in ("planned", "ok", "failed", "pending"))
    features = [name for name, part in (("sound", store.recipe.mel), ("lyrics", store.recipe.lyrics)) if part]
    by = f" by {count(found.n_artists, 'artist')}" if found.n_artists else "; the source names no artist"
    told = [
        f"{store.path.name} has features ({', '.join((*features, *store.added)) or 'none'}) of {ok:,} of {planned:,} "
        f"planned tracks{by}."
    ]
    if pending:
        told.append(f"It is not finished: {pending:,} are not extracted yet, and this page tells what was there when "
                    "it was written.")  # fmt: skip
    told.append("No track failed." if not failed else f"{failed:,} failed; each has a reason, below.")
    tiles = [
        *((name, f"{info[name]:,}", _share(info[name], planned)) for name in ("ok", "failed", "pending")),
        ("planned", f"{planned:,}", count(len(found.genres), "genre")),
        ("in the store", size(info["bytes"]), f"{info['bytes']:,} bytes"),
    ]
    shown = "".join(
        f"<div class=tile><b>{value}</b><span>{name}</span><small>{small}</small></div>" for name, value, small in tiles
    )
    return f"<p class=lead>{text(' '.join(told))}</p>\n<div class=tiles>{shown}</div>"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%} of planned" if whole else "–"


def size(n_bytes: int) -> str:
    """Bytes as people read them, by powers of 1000."""
    value, units = float(n_bytes), ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g} {units[0]}"


def _failures_section(store: FeatureStore, info: Json) -> str:
    """A row a reason, with some of its tracks."""
    if not info["failed"]:
        return ""
    failed = store.newest_tracks(["id", "status", "reason", "detail"])
    failed = failed.filter(pc.equal(failed.column("status"), FAILED))
    rows: list[list[Cell]] = []
    for reason, n in info["reasons"].items():
        meaning, what_to_do = _meaning(reason)
        some = failed.filter(pc.equal(failed.column("reason"), reason)).slice(0, N_EXAMPLES).to_pylist()
        examples = "<br>".join(_example(one) for one in some)
        said = f"<div class=said>{text(meaning)}<br>{text(what_to_do)}</div>"
        rows.append([_code(reason), f"{n:,}", said, f"<div class=said>{examples}</div>"])
    heads = ("reason", "tracks", "what happened, and what to do", "for example")
    return (
        f"<h2>Failures</h2>\n<p>Every one of them: <code>mgc store failures {text(store.path.name)}</code>. Once files "
        "are mended, the command that made the store tries them again with <code>--retry-failed</code>.</p>\n"
        + table(heads, rows, about="Failures by reason", sortable=True)
    )


def _code(name: str) -> str:
    """A code in capitals, which may be broken after an underscore."""
    return text(name).replace("_", "_<wbr>")


def _meaning(reason: str) -> tuple[str, str]:
    known = reason in Reason.__members__
    return REASON_MEANINGS[Reason(reason)] if known else ("A reason that a later version of mgc gave.", "–")


def _example(track: Mapping[str, Any]) -> str:
    return text(f"{track['id']}: {track['detail']}" if track["detail"] else track["id"])


def _coverage_section(store: FeatureStore, found: Survey) -> str:
    """Which features are there, by split; and what became of those that joined."""
    kinds = {"planned": "planned", "failed": "failed", "pending": "pending"}
    if store.recipe.mel:
        kinds["sound"] = "with sound"
    if store.recipe.lyrics:
        kinds["lyrics"] = "with lyrics"
    if store.recipe.mel and store.recipe.lyrics:
        kinds["both"] = "with both"
    kinds |= {f"+{one.name}": f"with {one.name}" for one in found.added}
    every = {key: sum(counts[key] for counts in found.splits.values()) for key in kinds}
    named = {name or "no split told": counts for name, counts in found.splits.items()}
    if len(named) > 1 or "no split told" not in named:
        named = {**named, "all": every}
    else:
        named = {"all (no split told)": every}
    rows = [[text(name), *(_of(counts, key) for key in kinds)] for name, counts in named.items()]
    return (
        "<h2>Coverage</h2>\n<p>How many tracks have which features, by the split that the source gave; shares are of "
        "the planned tracks of the row. A track without lyrics is no failure.</p>\n"
        + table(["split", *kinds.values()], rows, about="Coverage by split")
        + _added_table(found.added)
    )


def _of(counts: Mapping[str, int], key: str) -> str:
    n, planned = counts[key], counts["planned"]
    return f"{n:,}" if key == "planned" or not planned else f"{n:,}<small>{n / planned:.1%}</small>"


def _added_table(added: tuple[AddedSet, ...]) -> str:
    if not added:
        return ""
    rows = [
        [text(one.name), text(_made_by(one)), f"{one.ok:,}", f"{one.failed:,}", f"{one.pending:,}",
         f"<div class=said>{_added_reasons(one)}</div>"]
        for one in added
    ]  # fmt: skip
    heads = ("features", "made by", "ok", "failed", "pending", "why tracks failed")
    said = "<p>Features that joined later, and what became in them of the tracks that are ok:</p>"
    return "\n" + said + table(heads, rows, about="Features that joined later")


def _added_reasons(one: AddedSet) -> str:
    told = (f"{n:,} {reason}: {' '.join(_meaning(reason))}" for reason, n in one.reasons.items())
    return "<br>".join(map(text, told)) or "–"


def _made_by(one: AddedSet) -> str:
    made = one.recipe
    if isinstance(made, TextRecipe):
        return f"text encoder {made.model}"
    return f"extractor {made.extractor} {made.version}, of the {'lyrics' if made.input == 'text' else 'sound'}"


def _flags_section(info: Json) -> str:
    if not info["flags"]:
        return "<h2>Flags</h2>\n<p>No track that was extracted is unusual in any way that is looked for.</p>"
    rows: list[list[Cell]] = [
        [_code(name), (f"{n:,}<small>{n / info['planned']:.1%}</small>", n),
         f"<div class=said>{text(FLAG_MEANINGS[Flag[name]])}</div>"]
        for name, n in sorted(info["flags"].items(), key=lambda item: -item[1])
    ]  # fmt: skip
    heads = ("flag", "tracks", "meaning")
    return (
        "<h2>Flags</h2>\n<p>What was unusual about tracks, and about which share of those planned. Flagged tracks have "
        "features all the same, unless they failed for a reason of their own; a track may have several flags.</p>\n"
        + table(heads, rows, about="Flags", sortable=True)
    )


def _recipe_section(store: FeatureStore, info: Json) -> str:
    """How the features were made, and what they are as arrays."""
    arrays = [[text(one[key]) for key in ("name", "dims", "shape", "dtype", "unit")] for one in info["arrays"]]
    settings = [
        [text(f"{part}.{key}"), text(value)] for part, values in info["recipe"].items() for key, value in values.items()
    ]
    made = {f"sha256 of the recipe of {name}": value for name, value in info["fingerprints"].items()}
    made |= store.library_versions
    made |= {"store format": info["format_version"], "tracks a part": info["part_rows"]}
    return (
        "<h2>Recipe and provenance</h2>\n<p>What decides the values: two stores with equal sums below hold features "
        "made alike. Versions are those that the first extraction ran with.</p>\n"
        + table(("array", "dims", "shape", "dtype", "unit"), arrays, about="Arrays")
        + f"\n<details><summary>Recipe: {len(settings)} settings</summary>"
        + table(("setting", "value"), settings, about="Recipe")
        + f"</details>\n<details><summary>Sums and versions: {len(made)}</summary>"
        + table(("what", "value"), [[text(k), text(v)] for k, v in made.items()], about="Sums and versions")
        + "</details>"
    )
