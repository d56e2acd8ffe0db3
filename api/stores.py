"""Maintenance of a store: verify, repair, drop, compact, select."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache.errors import ConfigError, TextModelError
from ..cache.format.plan import read_plan
from ..cache.format.recipe import FeatureSetRecipe, TextRecipe
from ..cache.reading.store import FeatureStore
from ..cache.reading.view import Names, StoreView
from ..cache.steps import Progress, silent
from ..cache.upkeep.compact import compact
from ..cache.upkeep.hdf5_writer import seal_problem
from ..cache.upkeep.info import describe_feature
from ..cache.upkeep.quarantine import put_aside
from ..cache.upkeep.select import select
from ..cache.upkeep.verify import Damage, verify
from ..cache.writing.feature_removal import drop_feature
from ..cache.writing.takedowns import drop
from ..pipeline.extraction.options import ExtractOptions
from .shared import extra

if TYPE_CHECKING:
    from ..pipeline.sources.manifest import Source
    from ..pipeline.text.encoder import TextSource


def store_verify(path: Path, *, full: bool = False, on_progress: Progress = silent) -> list[Damage]:
    """Compare a store with its records (:func:`mgc.cache.upkeep.verify.verify`); read the HDF5 form whole."""
    if path.is_file():
        problem = seal_problem(path)
        return [Damage(kind="altered", key=path.name, detail=problem)] if problem else []
    return verify(path, full=full, on_progress=on_progress)


@dataclass(frozen=True, kw_only=True)
class RepairReport:
    """What a repair found and did.

    Attributes
    ----------
    left : damages that need a copy, or the source.
    pending : tracks that are not extracted yet; None while damage is left. `pending_added` has the counts of added
        feature sets that lack some.
    not_built : by name of an added feature set, why it cannot be built.
    """

    store: str
    damages: list[Damage]
    left: list[Damage]
    pending: int | None = None
    pending_added: dict[str, int] = field(default_factory=dict)
    not_built: dict[str, str]
    parts_built: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def store_repair(
    path: Path,
    source: Source | None = None,
    *,
    text_model: str | None = None,
    text_device: str = "cpu",
    workers: int = 0,
    on_progress: Progress = silent,
) -> RepairReport:
    """Quarantine damaged parts, write metadata anew, and with `source` extract again what is then pending."""
    _refuse_sealed(path)
    damages = store_verify(path, full=True, on_progress=on_progress)
    left, built = put_aside(path, damages), 0
    not_built: dict[str, str] = {}
    if source is not None:
        with extra("extract"):
            from ..pipeline.extraction.repair import restore_plan_objects
            from ..pipeline.text.encoder import TextSource

        options = ExtractOptions(text_model=text_model, text_device=text_device, workers=workers)
        lyrics = read_plan(path).recipe.lyrics
        text = None if lyrics is None else TextSource(model=text_model or lyrics.model, device=text_device)
        left = restore_plan_objects(path, left, source, text)
        if not left:
            built, not_built = _build_again(path, source, text, options, on_progress)
    report = RepairReport(store=str(path), damages=damages, left=left, not_built=not_built, parts_built=built)
    if left:
        return report
    with FeatureStore.open(path) as store:
        added = {name: n for name in store.added if (n := store.counts(name).pending)}
        return dataclasses.replace(report, pending=store.counts().pending, pending_added=added)


def _build_again(
    path: Path, source: Source, text: TextSource | None, options: ExtractOptions, on_progress: Progress
) -> tuple[int, dict[str, str]]:
    """Build what is pending, also of added feature sets.

    Returns
    -------
    built : parts that were built.
    errors : by name of a feature set, why it cannot be built.
    """
    from ..pipeline.extraction.pending import build_pending

    built, errors = build_pending(source, path, options, text=text, on_progress=on_progress), {}
    plan = read_plan(path)
    with FeatureStore.open(path) as store:
        unfinished = [
            name
            for name, added in plan.added.items()
            if store.counts(name).pending or (name in store.texts and added.n_genres < plan.n_genres)
        ]
    for name in unfinished:
        try:
            encoder = _encoder_of(plan.added[name].recipe, options)
            built += build_pending(source, path, options, text=encoder, feature_set=name, on_progress=on_progress)
        except (ConfigError, TextModelError) as error:  # the others can be built nevertheless
            errors[name] = str(error)
    return built, errors


def _encoder_of(recipe: FeatureSetRecipe, options: ExtractOptions) -> TextSource | None:
    """Return the text encoder of an added feature set: the user's model if it is the same, else the one of its name."""
    from ..pipeline.text.encoder import TextSource
    from ..pipeline.text.models import find_text_model

    if not isinstance(recipe, TextRecipe):
        return None
    model = options.text_model
    if model is None or find_text_model(model).weights_sha256 != recipe.weights_sha256:
        model = recipe.model
    return TextSource(model=model, device=options.text_device)


def _refuse_sealed(path: Path) -> None:
    if path.is_file():
        raise ConfigError(
            f"{path}: a sealed store stays as it is; make its Zarr form (mgc store convert {path} "
            f"{path.with_suffix('.zarr')}), change that, and seal it again"
        )


def store_drop(path: Path, ids: Iterable[str], *, dry_run: bool = False) -> list[str]:
    """Take tracks down; see :func:`mgc.cache.writing.takedowns.drop`. Returns those that were not down already."""
    _refuse_sealed(path)
    with FeatureStore.open(path) as store:
        planned = store.tracks.column("id").to_pylist()
    return drop(path, ids, planned=planned, dry_run=dry_run)


@dataclass(frozen=True, kw_only=True)
class FeatureRemoval:
    """The removal of a feature set, or a dry run with a description: ``made_by``, tracks that are ``ok``, ``bytes``."""

    store: str
    feature: str
    dry_run: bool
    description: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"store": self.store, "feature": self.feature, "dry_run": self.dry_run, **self.description}


def store_drop_feature(path: Path, name: str, *, dry_run: bool = False) -> FeatureRemoval:
    """Remove a feature set that was added; see :func:`mgc.cache.writing.feature_removal.drop_feature`."""
    _refuse_sealed(path)
    if dry_run:
        description = describe_feature(path, name)
        return FeatureRemoval(store=str(path), feature=name, dry_run=True, description=description)
    drop_feature(path, name)
    return FeatureRemoval(store=str(path), feature=name, dry_run=False)


def store_compact(path: Path, *, on_progress: Progress = silent) -> int:
    """Make parts anew without the tracks taken down; see :func:`mgc.cache.upkeep.compact.compact`."""
    _refuse_sealed(path)
    return compact(path, on_progress=on_progress)


@dataclass(frozen=True, kw_only=True)
class SelectReport:
    """The smaller store that was written: `tracks` of the `of` tracks that have features."""

    store: str
    tracks: int
    of: int
    remarks: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def store_select(
    path: Path,
    output: Path,
    *,
    genre: Names | None = None,
    artist: Names | None = None,
    language: Names | None = None,
    split: Names | None = None,
    genre_names: str | None = None,
    text_model: str | None = None,
    text_device: str = "cpu",
    on_progress: Progress = silent,
) -> SelectReport:
    """Write a smaller store with the tracks that have features and match; see :meth:`StoreView.sel`.

    Parameters
    ----------
    genre_names : other genre name prompts, as in :func:`extract`; only genres are embedded again.
    text_model : path of the store's own text encoder on this machine, for that; its hashes must match.
    """
    with StoreView(FeatureStore.open(path)) as view:
        if genre_names is not None:
            _rename_genres(view.store, genre_names, text_model, text_device)
        chosen = view.sel(genre=genre, artist=artist, language=language, split=split)
        remarks = select(chosen, output, on_progress=on_progress)
        return SelectReport(store=str(output), tracks=len(chosen), of=len(view), remarks=remarks)


def _rename_genres(store: FeatureStore, choice: str, text_model: str | None, text_device: str) -> None:
    with extra("extract"):
        from ..pipeline.sources.genre_prompts import genre_names
        from ..pipeline.text.encoder import TextSource
        from ..pipeline.text.genre_embedding import embed_prompts

    if store.recipe.lyrics is None or not store.embeds_genres:
        raise ConfigError(f"{store.path}: no genre embeddings in this store, so no names to read aloud by others")
    recipe = dataclasses.replace(store.recipe, genre_names=genre_names(choice))
    source = TextSource(model=text_model or store.recipe.lyrics.model, device=text_device)
    store.use_genre_names(recipe.genre_names, embed_prompts(store.genres, recipe, source))
