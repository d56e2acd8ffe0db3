"""From a collection to a store: extract, plan, extractors."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..cache.durable import fsync_dir
from ..cache.errors import ConfigError, MgcError
from ..cache.format.plan import SEALED_SUFFIXES, is_store, read_plan
from ..cache.format.recipe import FeatureSetRecipe, MelRecipe, Recipe, TextRecipe
from ..cache.format.records import committed
from ..cache.reading.store import FeatureStore
from ..cache.steps import Progress, silent
from ..cache.upkeep.hdf5_writer import only_writer, seal_store, unpack_records, unpack_store
from .shared import extra

if TYPE_CHECKING:
    from ..pipeline.extraction.cluster import Scheduler
    from ..pipeline.extraction.forecast import Forecast
    from ..pipeline.extraction.pending import ExtractReport
    from ..pipeline.sources.manifest import Source
    from ..pipeline.text.encoder import TextSource


def extract(
    source: Source,
    store: Path,
    *,
    features: Sequence[str] = ("mel", "lyrics", "genres"),
    workers: int | None = None,
    part_rows: int | None = None,
    audio_backend: Literal["fast", "librosa"] = "fast",
    clip_s: float = 30.0,
    offset: Literal["start", "middle"] = "middle",
    text_model: str | None = None,
    text_precision: Literal["auto", "fp32", "bf16"] = "auto",
    text_device: str = "cpu",
    genre_names: str | None = None,
    append: bool = False,
    retry_failed: bool = False,
    shard: tuple[int, int] | None = None,
    scheduler: Scheduler | None = None,
    add: str | None = None,
    on_progress: Progress = silent,
) -> ExtractReport:
    """Make or continue a feature store; see :func:`mgc.pipeline.extraction.extract.extract`.

    Parameters
    ----------
    features : any of ``mel``, ``lyrics``, ``genres`` (names of genres; needs ``lyrics``'s encoder).
    workers : worker processes; None takes one a core, 0 runs in this process.
    text_model, text_precision : None and ``auto`` take what the store has, if there is one.
    genre_names : how genres are read aloud to the text encoder: ``common`` (a built-in map of frequent spellings) or a
        table with the columns genre and text; None takes what the store has, else each name as it stands.
    append, retry_failed, shard : see :func:`mgc.pipeline.extraction.extract.extract`. A shard runs in this process
        unless `workers` says otherwise.
    add : name under which the features of `text_model` join a store that is there; without one, name of the extractor
        whose features join it, or with `retry_failed` are tried again where they failed. See
        :func:`mgc.pipeline.extraction.add_features.add_features`.
    scheduler : of a Dask cluster that runs already; its workers must see the store and the source at the same paths.

    Raises
    ------
    ConfigError, TextModelError, RecipeMismatchError
    """
    with extra("extract"):
        from ..pipeline.extraction.add_features import add_features
        from ..pipeline.extraction.cluster import default_workers
        from ..pipeline.extraction.extract import extract as run
        from ..pipeline.text.encoder import TextSource

    if scheduler is not None and workers is not None:
        raise ConfigError("--workers counts local processes; a scheduler has workers of its own")
    if workers is None:
        workers = default_workers() if shard is None else 0

    if add is not None:
        if not (store.is_dir() and is_store(store)) or append:
            raise ConfigError(f"--add {add}: features join a Zarr store that is there, in a run of their own")
        if genre_names is not None:
            raise ConfigError(f"--add {add}: genres are read aloud as the store does; leave --genre-names out")
        encoder = None if text_model is None else TextSource(model=text_model, device=text_device)
        return add_features(
            source, store, add, recipe=_added_recipe(store, add, encoder, text_precision), text=encoder,
            workers=scheduler or workers, shard=shard, retry_failed=retry_failed, on_progress=on_progress,
        )  # fmt: skip
    before = _recipe_of(store) if is_store(store) else None
    wanted, text = _wanted(before, features, audio_backend, clip_s, offset, text_model, text_precision, text_device)
    recipe = dataclasses.replace(wanted, genre_names=_genre_names(genre_names, features, before))

    def fill(path: Path) -> ExtractReport:
        return run(
            source,
            path,
            recipe=recipe,
            text=text,
            embed_genres="genres" in features,
            part_rows=part_rows,
            append=append,
            retry_failed=retry_failed,
            workers=scheduler or workers,
            shard=shard,
            on_progress=on_progress,
        )

    if shard is not None and retry_failed:
        raise ConfigError("--retry-failed plans a retry for the whole store: run it once, without --shard")
    if store.suffix not in SEALED_SUFFIXES:
        return _beside_forecast(fill(store), store)
    if shard is not None:
        raise ConfigError(f"{store}: shards of a job array fill a Zarr store; `mgc store convert` seals it afterwards")
    report = _fill_sealed(store, fill, on_progress, may_grow=append or retry_failed)
    return _beside_forecast(report, store)


def _beside_forecast(report: ExtractReport, store: Path) -> ExtractReport:
    """The report with what :func:`plan` predicted for the parts that were built, if it was asked."""
    from ..pipeline.extraction.forecast import load_forecast

    predicted = load_forecast(store) if report.parts_built else None
    return report if predicted is None else dataclasses.replace(report, forecast=predicted.of_parts(report.parts_built))


def _wanted(
    before: Recipe | None,
    features: Sequence[str],
    audio_backend: Literal["fast", "librosa"],
    clip_s: float,
    offset: Literal["start", "middle"],
    text_model: str | None,
    text_precision: str,
    text_device: str,
) -> tuple[Recipe, TextSource | None]:
    """What an extraction is to make; where nothing else is said, the text features that a store had `before`."""
    from ..pipeline.text.encoder import TextSource

    unknown = sorted(set(features) - {"mel", "lyrics", "genres"})
    if unknown or not set(features) & {"mel", "lyrics"}:
        raise ConfigError(f"features {','.join(features)!r}: want mel, lyrics or both, and genres with lyrics")
    if "genres" in features and "lyrics" not in features:
        raise ConfigError(
            "features: genres are embedded by the encoder of the lyrics; name lyrics too, or leave genres"
        )
    mel = MelRecipe(backend=audio_backend, clip_s=clip_s, offset=offset) if "mel" in features else None
    if "lyrics" not in features:
        return Recipe(mel=mel, lyrics=None), None
    known = before.lyrics if before is not None else None
    text = TextSource(model=text_model or (known.model if known is not None else None), device=text_device)
    return Recipe(mel=mel, lyrics=_text_recipe(text, text_precision, known)), text


def plan(
    source: Source,
    store: Path | None = None,
    *,
    features: Sequence[str] = ("mel", "lyrics", "genres"),
    workers: int | None = None,
    part_rows: int | None = None,
    audio_backend: Literal["fast", "librosa"] = "fast",
    clip_s: float = 30.0,
    offset: Literal["start", "middle"] = "middle",
    text_model: str | None = None,
    text_precision: Literal["auto", "fp32", "bf16"] = "auto",
    text_device: str = "cpu",
    sample: int | None = None,
    on_progress: Progress = silent,
) -> Forecast:
    """Predict what :func:`extract` takes, from a sample (:func:`mgc.pipeline.extraction.trial.forecast`).

    Parameters
    ----------
    store : the prediction is kept beside it, and :func:`extract` tells it beside what happened.
    sample : tracks to try; None takes 64, or a tenth of a small collection.
    """
    with extra("extract"):
        from ..pipeline.extraction.cluster import default_workers
        from ..pipeline.extraction.trial import forecast

    if not source.tracks:
        raise ConfigError("no tracks to plan for: the source is empty, or the filters kept nothing")
    recipe, text = _wanted(None, features, audio_backend, clip_s, offset, text_model, text_precision, text_device)
    found = forecast(
        source, recipe=recipe, text=text, embed_genres="genres" in features, part_rows=part_rows,
        workers=default_workers() if workers is None else workers, sample=sample,
        on_progress=on_progress,
    )  # fmt: skip
    if store is not None:
        found.save(store)
    return found


def _added_recipe(store: Path, name: str, text: TextSource | None, precision: str) -> FeatureSetRecipe:
    """Of the text encoder that the user named, else of the extractor of that name."""
    from ..pipeline.extractors.registry import extractor_names, load_extractor

    if text is not None:
        if name in extractor_names():
            raise ConfigError(
                f"--add {name}: an extractor's name, but a text encoder is named too. Leave --text-model out for the "
                "extractor's features, or call the text features something else"
            )
        return _text_recipe(text, precision, None)
    try:
        return load_extractor(name).recipe(read_plan(store).recipe.mel)
    except ConfigError as error:
        raise ConfigError(f"--add {name}: {error}; or name a text encoder with --text-model") from error


def extractors() -> list[dict[str, Any]]:
    """The extractors that are installed: ``name``, who brings it (``from``), and what it makes of each track; of one
    that cannot be loaded the ``error`` instead."""
    with extra("extract"):
        from ..pipeline.extractors.registry import extractor_names, load_extractor

    found: list[dict[str, Any]] = []
    for name, package in extractor_names().items():
        try:
            one = load_extractor(name)
        except ConfigError as error:
            found.append({"name": name, "from": package, "error": str(error)})
            continue
        found.append(
            {"name": name, "from": package, "version": one.version, "input": one.input, "dims": list(one.dims),
             "shape": list(one.shape), "dtype": one.dtype, "unit": one.unit, "description": one.description}
        )  # fmt: skip
    return found


def _genre_names(choice: str | None, features: Sequence[str], before: Recipe | None) -> Mapping[str, str]:
    from ..pipeline.sources.genre_prompts import genre_names

    if choice is None:
        return before.genre_names if before is not None and "genres" in features else {}
    if "genres" not in features:
        raise ConfigError(f"--genre-names {choice}: no genre is read aloud; name genres among --features")
    return genre_names(choice)


def _recipe_of(store: Path) -> Recipe:
    if store.is_dir():
        return read_plan(store).recipe
    with FeatureStore.open(store) as opened:
        return opened.recipe


def _fill_sealed(
    sealed: Path, fill: Callable[[Path], ExtractReport], on_progress: Progress, *, may_grow: bool
) -> ExtractReport:
    """Fill a hidden Zarr store beside a sealed one, then seal it; killed in between, the next call goes on with it.

    A sealed store lacks nothing: unless it may grow, its records suffice to see if it is of this source and recipe.
    """
    with only_writer(sealed) as folder:
        store, draft = folder / "store.zarr", folder / f"sealed{sealed.suffix}"
        cut_off = is_store(store)  # an earlier run did not come to seal what it had built
        finished = sealed.exists() and not cut_off
        if finished and not may_grow:
            store = folder / "records.zarr"  # by another name, so that nobody takes it for one to be sealed
            shutil.rmtree(store, ignore_errors=True)
        before = None
        try:
            if finished:
                (unpack_store if may_grow else unpack_records)(sealed, store)
                before = _extent(store)
            report = fill(store)
        except MgcError as error:
            if finished and (not may_grow or (before is not None and _extent(store) == before)):
                shutil.rmtree(store, ignore_errors=True)  # the sealed one says the same
            raise type(error)(str(error).replace(str(store), str(sealed))) from error
        if report.parts_built or not finished:
            draft.unlink(missing_ok=True)
            seal_store(store, draft, on_progress=on_progress)
            draft.replace(sealed)
            fsync_dir(sealed.parent)
        shutil.rmtree(folder)
    return dataclasses.replace(report, store=str(sealed))


def _extent(store: Path) -> tuple[int, int]:
    return len(read_plan(store).generations), len(committed(store))


def _text_recipe(text: TextSource, precision: str, known: TextRecipe | None) -> TextRecipe:
    from ..pipeline.text.encoder import resolve_precision, text_recipe
    from ..pipeline.text.models import find_text_model

    if precision == "auto" and known is not None:
        precision = known.precision
    return text_recipe(find_text_model(text.model), precision=resolve_precision(precision))
