"""A store looked after: verified, repaired, selected from, dropped from, compacted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
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


def store_repair(
    path: Path,
    source: Source | None = None,
    *,
    text_model: str | None = None,
    text_device: str = "cpu",
    workers: int = 0,
    on_progress: Progress = silent,
) -> dict[str, Any]:
    """Put damaged parts aside, write metadata anew, and with `source` extract again what is then pending.

    Returns
    -------
    dict
        ``damages`` found, those ``left`` (they need a copy, or the source), ``pending`` tracks, ``pending_added`` by
        features that joined, ``not_built`` by such features what hindered it, ``parts_built``.
    """
    _refuse_sealed(path)
    damages = store_verify(path, full=True, on_progress=on_progress)
    left, built = put_aside(path, damages), 0
    not_built: dict[str, str] = {}
    if source is not None:
        with extra("extract"):
            from ..pipeline.extraction.repair import write_again
            from ..pipeline.text.encoder import TextSource

        options = ExtractOptions(text_model=text_model, text_device=text_device, workers=workers)
        known = read_plan(path).recipe.lyrics
        text = None if known is None else TextSource(model=text_model or known.model, device=text_device)
        left = write_again(path, left, source, text)
        if not left:
            built, not_built = _build_again(path, source, text, options, on_progress)
    pending: int | None = None
    added: dict[str, int] = {}
    if not left:
        with FeatureStore.open(path) as store:
            pending = store.counts().pending
            added = {name: n for name in store.added if (n := store.counts(name).pending)}
    return {
        "store": str(path),
        "damages": [damage.to_dict() for damage in damages],
        "left": [damage.to_dict() for damage in left],
        "pending": pending,
        "pending_added": added,
        "not_built": not_built,
        "parts_built": built,
    }


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


def store_drop_feature(path: Path, name: str, *, dry_run: bool = False) -> dict[str, Any]:
    """Take out features that joined a store; see :func:`mgc.cache.writing.feature_removal.drop_feature`.

    Returns
    -------
    dict
        ``store``, ``feature``, ``dry_run``; of a dry run also ``made_by``, how many tracks are ``ok``, and ``bytes``.
    """
    _refuse_sealed(path)
    said = {"store": str(path), "feature": name, "dry_run": dry_run}
    if not dry_run:
        drop_feature(path, name)
        return said
    return said | describe_feature(path, name)


def store_compact(path: Path, *, on_progress: Progress = silent) -> int:
    """Make parts anew without the tracks taken down; see :func:`mgc.cache.upkeep.compact.compact`."""
    _refuse_sealed(path)
    return compact(path, on_progress=on_progress)


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
) -> dict[str, Any]:
    """Write a smaller store with the tracks that have features and what is named; see :meth:`StoreView.sel`.

    Parameters
    ----------
    genre_names : read the genres aloud by these names instead, as in :func:`extract`; only they are embedded again.
    text_model : where the store's own text encoder lies on this machine, for that; its hashes must match.

    Returns
    -------
    dict
        ``store`` written, ``tracks`` in it, ``of`` how many with features, ``remarks``.
    """
    with StoreView(FeatureStore.open(path)) as view:
        if genre_names is not None:
            _rename_genres(view.store, genre_names, text_model, text_device)
        chosen = view.sel(genre=genre, artist=artist, language=language, split=split)
        remarks = select(chosen, output, on_progress=on_progress)
        return {"store": str(output), "tracks": len(chosen), "of": len(view), "remarks": remarks}


def _rename_genres(store: FeatureStore, choice: str, text_model: str | None, text_device: str) -> None:
    with extra("extract"):
        from ..pipeline.sources.genre_prompts import genre_names
        from ..pipeline.text.encoder import TextSource
        from ..pipeline.text.genre_embedding import embedded_genres

    if store.recipe.lyrics is None or not store.embeds_genres:
        raise ConfigError(f"{store.path}: no genre embeddings in this store, so no names to read aloud by others")
    recipe = dataclasses.replace(store.recipe, genre_names=genre_names(choice))
    source = TextSource(model=text_model or store.recipe.lyrics.model, device=text_device)
    store.use_genre_names(recipe.genre_names, embedded_genres(store.genres, recipe, source))
