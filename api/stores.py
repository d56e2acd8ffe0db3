"""Maintenance of a store: verify, repair, select, merge, export, drop, compact."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache.errors import ConfigError, TextModelError
from ..cache.exporting.export import StoreExport, export_view
from ..cache.format.plan import read_plan
from ..cache.format.recipe import FeatureSetRecipe, TextRecipe
from ..cache.messages import counted
from ..cache.places import ObjectPath, place, refuse_object_store
from ..cache.reading.store import FeatureStore
from ..cache.reading.view import Names, StoreView
from ..cache.steps import Progress, silent
from ..cache.upkeep.compact import compact
from ..cache.upkeep.copy import StoreCopy, copy_store
from ..cache.upkeep.info import FeatureSetInfo, describe_feature, feature_bytes
from ..cache.upkeep.object_stores import verify_remote
from ..cache.upkeep.quarantine import quarantine
from ..cache.upkeep.seal import verify_sealed
from ..cache.upkeep.select import merge, select
from ..cache.upkeep.verify import Damage, verify
from ..cache.writing.feature_removal import remove_feature_set
from ..cache.writing.takedowns import drop
from ..heads.data.duplicates import THRESHOLD, DuplicateGroup, find_duplicates
from ..pipeline.extraction.options import ExtractOptions
from .shared import extra

if TYPE_CHECKING:
    from ..pipeline.extractors.pretrained import AudioSource
    from ..pipeline.sources.manifest import Source
    from ..pipeline.text.encoder import TextSource


@dataclass(frozen=True, kw_only=True)
class RepairReport:
    """Result of a repair.

    Attributes
    ----------
    damages : all damages before the repair.
    left : damages whose repair needs a copy of the store, or the source.
    pending : pending tracks; None where damage is left.
    pending_added : name of an added feature set -> its pending tracks, if there are any.
    not_built : name of an added feature set -> the reason why it could not be built.
    parts_built : parts that were built again.
    """

    store: str
    damages: list[Damage]
    left: list[Damage]
    pending: int | None
    pending_added: dict[str, int]
    not_built: dict[str, str]
    parts_built: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class FeatureRemoval:
    """Result of the removal of an added feature set; of a dry run also its `info`, and the `bytes` of its arrays."""

    store: str
    feature: str
    dry_run: bool
    info: FeatureSetInfo | None = None
    bytes: int | None = None

    def to_dict(self) -> dict[str, Any]:
        removal = {"store": self.store, "feature": self.feature, "dry_run": self.dry_run}
        return removal if self.info is None else {**removal, **asdict(self.info), "bytes": self.bytes}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Result of a selection: the `store` written, `tracks` in it, `of` how many with features, and remarks."""

    store: str
    tracks: int
    of: int
    remarks: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class StoreMerge:
    """Result of a merge: the `store` written, `tracks` in it, those from each of the `merged` stores, and remarks."""

    store: str
    tracks: int
    merged: dict[str, int]
    remarks: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def store_verify(path: Path, *, full: bool = False, on_progress: Progress = silent) -> list[Damage]:
    """Compare a store with its commit records; see :func:`mgc.cache.upkeep.verify.verify`. Reads an HDF5 file whole."""
    if isinstance(location := place(path), ObjectPath):
        return verify_remote(location, full=full, on_progress=on_progress)
    if path.is_file():
        return verify_sealed(path)
    return verify(path, full=full, on_progress=on_progress)


def store_repair(
    path: Path,
    source: Source | None = None,
    *,
    text_model: str | None = None,
    text_device: str = "cpu",
    audio_model: str | None = None,
    audio_device: str = "cpu",
    workers: int = 0,
    on_progress: Progress = silent,
) -> RepairReport:
    """Quarantine damaged parts, rewrite metadata, and with `source` extract the pending parts."""
    _refuse_sealed(path)
    damages = store_verify(path, full=True, on_progress=on_progress)
    left, parts_built = quarantine(path, damages), 0
    not_built: dict[str, str] = {}
    if source is not None:
        with extra("extract"):
            from ..pipeline.extraction.repair import restore_plan_objects
            from ..pipeline.extractors.pretrained import AudioSource
            from ..pipeline.text.encoder import TextSource

        options = ExtractOptions(text_model=text_model, text_device=text_device, workers=workers)
        audio = AudioSource(model=audio_model, device=audio_device)
        recipe = read_plan(path).recipe.lyrics
        text = None if recipe is None else TextSource(model=text_model or recipe.model, device=text_device)
        left = restore_plan_objects(path, left, source, text)
        if not left:
            parts_built, not_built = _build_pending(path, source, text, audio, options, on_progress)
    pending: int | None = None
    pending_added: dict[str, int] = {}
    if not left:
        with FeatureStore.open(path) as store:
            pending = store.counts().pending
            pending_added = {name: n for name in store.added if (n := store.counts(name).pending)}
    return RepairReport(
        store=str(path),
        damages=damages,
        left=left,
        pending=pending,
        pending_added=pending_added,
        not_built=not_built,
        parts_built=parts_built,
    )


def _build_pending(
    path: Path,
    source: Source,
    text: TextSource | None,
    audio: AudioSource,
    options: ExtractOptions,
    on_progress: Progress,
) -> tuple[int, dict[str, str]]:
    """Extract pending parts, with those of added feature sets.

    Returns
    -------
    int, dict
        Number of parts built; name of a feature set -> the reason why it could not be built.
    """
    from ..pipeline.extraction.pending import PendingParts
    from ..pipeline.extractors.pretrained import find_source, is_pretrained

    own = PendingParts(source=source, path=path, text=text, options=options, on_progress=on_progress)
    parts_built, not_built = own.build_covered(), {}
    plan = read_plan(path)
    with FeatureStore.open(path) as store:
        lacking_genres = [name for name in store.texts if plan.added[name].n_genres < plan.n_genres]
        unfinished = [name for name in plan.added if store.counts(name).pending or name in lacking_genres]
    for name in unfinished:
        try:
            recipe = plan.added[name].recipe
            encoder = _encoder_of(recipe, options)
            own_audio = find_source(recipe, audio) if is_pretrained(recipe) else None
            parts_built += dataclasses.replace(own, text=encoder, audio=own_audio, feature_set=name).build_covered()
        except (ConfigError, TextModelError) as error:  # other feature sets can still be built
            not_built[name] = str(error)
    return parts_built, not_built


def _encoder_of(recipe: FeatureSetRecipe, options: ExtractOptions) -> TextSource | None:
    """Return the encoder of an added feature set: the given one if its hash matches, else the one of the recipe."""
    from ..pipeline.text.encoder import TextSource
    from ..pipeline.text.models import find_text_model

    if not isinstance(recipe, TextRecipe):
        return None
    model = options.text_model
    if model is None or find_text_model(model).weights_sha256 != recipe.weights_sha256:
        model = recipe.model
    return TextSource(model=model, device=options.text_device)


def _refuse_sealed(path: Path) -> None:
    refuse_object_store(
        path, "Copy the store to a local folder with `mgc store copy`, change it there, then copy it back."
    )
    if path.is_file():
        raise ConfigError(
            f"{path}: a sealed store cannot be changed. Convert it (mgc store convert {path} "
            f"{path.with_suffix('.zarr')}), change the Zarr store, and seal it again."
        )


def store_drop(path: Path, ids: Iterable[str], *, dry_run: bool = False) -> list[str]:
    """Take tracks down; return those that were not taken down before. See :func:`mgc.cache.writing.takedowns.drop`."""
    _refuse_sealed(path)
    with FeatureStore.open(path) as store:
        planned = store.tracks.column("id").to_pylist()
    return drop(path, ids, planned=planned, dry_run=dry_run)


def store_drop_feature(path: Path, name: str, *, dry_run: bool = False) -> FeatureRemoval:
    """Remove an added feature set; see :func:`mgc.cache.writing.feature_removal.remove_feature_set`."""
    _refuse_sealed(path)
    removal = FeatureRemoval(store=str(path), feature=name, dry_run=dry_run)
    if not dry_run:
        remove_feature_set(path, name)
        return removal
    with FeatureStore.open(path) as store:
        info = describe_feature(store, name)
        return dataclasses.replace(removal, info=info, bytes=feature_bytes(store, name))


def store_duplicates(
    path: Path, *, near: bool = False, threshold: float = THRESHOLD, on_progress: Progress = silent
) -> list[DuplicateGroup]:
    """List tracks that hold one recording; see :func:`mgc.heads.data.duplicates.find_duplicates`."""
    with FeatureStore.open(path) as store:
        return find_duplicates(store, near=near, threshold=threshold, on_progress=on_progress)


def store_compact(path: Path, *, on_progress: Progress = silent) -> int:
    """Rewrite parts without the tracks taken down; see :func:`mgc.cache.upkeep.compact.compact`."""
    _refuse_sealed(path)
    return compact(path, on_progress=on_progress)


def store_copy(source: Path, target: Path, *, on_progress: Progress = silent) -> StoreCopy:
    """Copy a Zarr store between local folders and object stores; see :func:`mgc.cache.upkeep.copy.copy_store`."""
    return copy_store(source, target, on_progress=on_progress)


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
) -> Selection:
    """Write a smaller store with the selected tracks; see :meth:`StoreView.sel`.

    Parameters
    ----------
    genre_names : other genre name prompts, as in :func:`extract`.
    text_model : path of the store's text encoder, for `genre_names`; its hashes must match.
    """
    with StoreView(FeatureStore.open(path)) as view:
        if genre_names is not None:
            _rename_genres(view.store, genre_names, text_model, text_device)
        selected = view.sel(genre=genre, artist=artist, language=language, split=split)
        pending = view.store.pending_note
        if pending is not None and not len(view):
            raise ConfigError(pending)
        remarks = [*filter(None, [pending]), *select(selected, output, on_progress=on_progress)]
        return Selection(store=str(output), tracks=len(selected), of=len(view), remarks=remarks)


def store_merge(
    paths: Sequence[Path], output: Path, *, prefixes: Sequence[str] = (), on_progress: Progress = silent
) -> StoreMerge:
    """Write the tracks of several stores with one recipe as one store; see :func:`mgc.cache.upkeep.select.merge`.

    Parameters
    ----------
    prefixes : a name per store, with which its ids and paths begin; needed where two stores have the same id.
    """
    if len({path.resolve() for path in paths}) < max(2, len(paths)):
        raise ConfigError("a merge needs two or more different stores")
    with ExitStack() as opened:
        views = [opened.enter_context(StoreView(FeatureStore.open(path))) for path in paths]
        remarks = [note for view in views if (note := view.store.pending_note) is not None]
        for path, view in zip(paths, views, strict=True):
            if failed := view.store.counts().failed:
                remarks.append(f"{path}: {counted(failed, 'failed track')} left out")
        remarks += merge(views, output, prefixes=prefixes, on_progress=on_progress)
        merged = {str(path): len(view) for path, view in zip(paths, views, strict=True)}
    return StoreMerge(store=str(output), tracks=sum(merged.values()), merged=merged, remarks=remarks)


def store_export(
    path: Path,
    output: Path,
    to: str,
    *,
    genre: Names | None = None,
    artist: Names | None = None,
    language: Names | None = None,
    split: Names | None = None,
    features: Sequence[str] | None = None,
    licence: str | None = None,
    on_progress: Progress = silent,
) -> StoreExport:
    """Export the selected tracks for other tools; see :func:`mgc.cache.exporting.export.export_view`.

    Parameters
    ----------
    output : folder to write; repeat the call to continue an interrupted export.
    to : ``npy``, ``parquet``, ``lhotse`` or ``webdataset``.
    features : names of arrays; None takes all.
    licence : licence for the data set card of ``parquet``.
    """
    with StoreView(FeatureStore.open(path)) as view:
        selected = view.sel(genre=genre, artist=artist, language=language, split=split)
        pending = view.store.pending_note
        result = export_view(selected, output, to, features=features, licence=licence, on_progress=on_progress)
        return dataclasses.replace(result, remarks=[] if pending is None else [pending])


def _rename_genres(store: FeatureStore, choice: str, text_model: str | None, text_device: str) -> None:
    with extra("extract"):
        from ..pipeline.sources.label_tables import genre_names
        from ..pipeline.text.encoder import TextSource, embed_prompts

    if store.recipe.lyrics is None or not store.embeds_genres:
        raise ConfigError(f"{store.path}: has no genre embeddings, so genre name prompts do not apply")
    recipe = dataclasses.replace(store.recipe, genre_names=genre_names(choice))
    source = TextSource(model=text_model or store.recipe.lyrics.model, device=text_device)
    store.use_genre_names(recipe.genre_names, embed_prompts(store.genres, recipe, source))
