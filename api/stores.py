"""A store looked after: verified, repaired, selected from, dropped from, compacted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache.compact import compact
from ..cache.drops import drop
from ..cache.errors import ConfigError
from ..cache.hdf5_store import seal_problem
from ..cache.plan import read_plan
from ..cache.quarantine import put_aside
from ..cache.select import select
from ..cache.store import FeatureStore
from ..cache.verify import Damage, verify
from ..cache.view import Names, StoreView
from .shared import Steps, extra, silent

if TYPE_CHECKING:
    from ..pipeline.manifest import Source


def store_verify(path: Path, *, full: bool = False, on_progress: Steps = silent) -> list[Damage]:
    """Compare a store with its records; see :func:`mgc.cache.verify.verify`. The HDF5 form is always read whole."""
    if path.is_file():
        problem = seal_problem(path)
        return [Damage(kind="altered", key=path.name, detail=problem)] if problem else []
    return verify(path, full=full, on_progress=lambda done, total: on_progress("verify", done, total, ""))


def store_repair(
    path: Path,
    source: Source | None = None,
    *,
    text_model: str | None = None,
    text_device: str = "cpu",
    workers: int = 0,
    on_progress: Steps = silent,
) -> dict[str, Any]:
    """Put damaged parts aside, write metadata anew, and with `source` extract again what is then pending.

    Returns
    -------
    dict
        ``damages`` found, those ``left`` (they need a copy, or the source), ``pending`` tracks, those
        of text features that joined (by name), ``parts_built``.
    """
    _refuse_sealed(path)
    damages = store_verify(path, full=True, on_progress=on_progress)
    left, built = put_aside(path, damages), 0
    if source is not None:
        with extra("extract"):
            from ..pipeline.extract import build_pending
            from ..pipeline.parts import TextSource
            from ..pipeline.repair import write_again

        known = read_plan(path).recipe.lyrics
        text = None if known is None else TextSource(model=text_model or known.model, device=text_device)
        left = write_again(path, left, source, text)
        if not left:
            built = build_pending(
                source, path, text=text, workers=workers,
                on_progress=lambda progress: on_progress("extract", progress.done, progress.planned, ""),
            )  # fmt: skip
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
        "parts_built": built,
    }


def _refuse_sealed(path: Path) -> None:
    if path.is_file():
        raise ConfigError(f"{path}: a sealed store stays as it is; convert it to Zarr, change that, and seal it again")


def store_drop(path: Path, ids: Iterable[str]) -> list[str]:
    """Take tracks down; see :func:`mgc.cache.drops.drop`. Returns those that were not down already."""
    _refuse_sealed(path)
    with FeatureStore.open(path) as store:
        planned = store.tracks.column("id").to_pylist()
    return drop(path, ids, planned=planned)


def store_compact(path: Path, *, on_progress: Steps = silent) -> int:
    """Make parts anew without the tracks taken down; see :func:`mgc.cache.compact.compact`."""
    _refuse_sealed(path)
    return compact(path, on_progress=lambda done, total: on_progress("compact", done, total, ""))


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
    on_progress: Steps = silent,
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
        remarks = select(chosen, output, on_progress=lambda done, total: on_progress("select", done, total, ""))
        return {"store": str(output), "tracks": len(chosen), "of": len(view), "remarks": remarks}


def _rename_genres(store: FeatureStore, choice: str, text_model: str | None, text_device: str) -> None:
    with extra("extract"):
        from ..pipeline.genre_names import genre_names
        from ..pipeline.parts import TextSource
        from ..pipeline.planning import embedded_genres

    if store.recipe.lyrics is None or not store.embeds_genres:
        raise ConfigError(f"{store.path}: no genre embeddings in this store, so no names to read aloud by others")
    recipe = dataclasses.replace(store.recipe, genre_names=genre_names(choice))
    source = TextSource(model=text_model or store.recipe.lyrics.model, device=text_device)
    store.use_genre_names(recipe.genre_names, embedded_genres(store.genres, recipe, source))
