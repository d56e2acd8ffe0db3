"""From a collection to a store: extract, plan, extractors."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache.durable import fsync_dir, refuse_without_links
from ..cache.errors import ConfigError, MgcError
from ..cache.format.plan import SEALED_SUFFIXES, is_store, read_plan
from ..cache.format.recipe import Recipe
from ..cache.format.records import committed
from ..cache.places import ObjectPath, place, refuse_object_store
from ..cache.reading.store import FeatureStore
from ..cache.steps import Progress, silent
from ..cache.upkeep.hdf5_writer import only_writer, seal_store, unpack_records, unpack_store
from ..cache.writing.remote import remote_of, writable_folder
from ..pipeline.extraction.options import ExtractOptions
from .shared import extra, with_changes

if TYPE_CHECKING:
    from ..pipeline.extraction.forecast import Forecast
    from ..pipeline.extraction.pending import ExtractReport
    from ..pipeline.extractors.extractor import Extractor
    from ..pipeline.sources.manifest import Source


def extract(
    source: Source,
    store: Path,
    options: ExtractOptions | None = None,
    *,
    on_progress: Progress = silent,
    **changes: Any,
) -> ExtractReport:
    """Create or continue a feature store, or add a feature set to it.

    Parameters
    ----------
    source : tracks, such as ``read_source("songs/").source``.
    store : a Zarr store, locally or at the URL of an object store; or with the suffix ``.h5`` a local sealed one.
    options : features, workers and other settings.
    changes : options by name, in place of those in `options`: ``extract(source, store, clip_s=10.0)``.

    Raises
    ------
    ConfigError, TextModelError, RecipeMismatchError
    TypeError
        If a name in `changes` is not an option.
    """
    options = with_changes(options or ExtractOptions(), changes)
    if isinstance(url := place(store), ObjectPath):
        if url.suffix in SEALED_SUFFIXES:
            raise ConfigError(f"{url}: a sealed store is a local file. Use a .zarr name, or a local path.")
        store = writable_folder(url)
        if (remote := remote_of(store)) is not None:
            remote.refuse_other_contents()
            remote.refuse_without_conditions()
            remote.pull()
            with remote.errors():
                return _extract(source, store, options, on_progress)
    refuse_without_links(store)
    return _extract(source, store, options, on_progress)


def _extract(source: Source, store: Path, options: ExtractOptions, on_progress: Progress) -> ExtractReport:
    if options.scheduler is not None:
        options.scheduler.checked_address()
    with extra("extract"):
        from ..pipeline.extraction.extract import add_features
        from ..pipeline.extraction.extract import extract as run
        from ..pipeline.extraction.forecast import load_forecast
        from ..pipeline.extraction.reconcile import choose_recipe, describe_stored_choices, refuse_other_contents

    if options.add is not None:
        return add_features(source, store, options, on_progress=on_progress)
    before = _recipe_of(store) if is_store(store) else None
    if before is None and store.suffix not in SEALED_SUFFIXES:
        refuse_other_contents(store)
    recipe, text = choose_recipe(options, before)

    def fill(path: Path) -> ExtractReport:
        return run(source, path, options, recipe=recipe, text=text, on_progress=on_progress)

    if store.suffix not in SEALED_SUFFIXES:
        report = fill(store)
    elif options.shard is not None:
        raise ConfigError(
            f"{store}: --shard needs a Zarr store. Extract to .zarr, then seal it with `mgc store convert`."
        )
    else:
        report = _fill_sealed(store, fill, on_progress, may_grow=options.append or options.retry_failed)
    kept = [] if before is None else describe_stored_choices(options, before)
    predicted = load_forecast(store) if report.parts_built and options.shard is None else None
    return dataclasses.replace(
        report,
        remarks=(*kept, *report.remarks),
        forecast=None if predicted is None else predicted.of_parts(report.parts_built),
    )


def plan(
    source: Source,
    store: Path | None = None,
    options: ExtractOptions | None = None,
    *,
    sample: int | None = None,
    on_progress: Progress = silent,
    **changes: Any,
) -> Forecast:
    """Predict the duration and size of an extraction from a trial on a sample.

    Parameters
    ----------
    store : the forecast is saved next to it; :func:`extract` reports it with the actual duration.
    options, changes : as for :func:`extract`.
    sample : tracks of the trial; None takes 64, or a tenth of a small collection.
    """
    options = with_changes(options or ExtractOptions(), changes)
    with extra("extract"):
        from ..pipeline.extraction.trial import forecast

    if store is not None:
        refuse_object_store(store, "A forecast is saved next to a local store: leave out -o.")
    if not source.tracks:
        raise ConfigError("no tracks to plan for: the source is empty, or the filters removed all tracks")
    prediction = forecast(source, options, sample=sample, on_progress=on_progress)
    if store is not None:
        prediction.save(store)
    return prediction


@dataclass(frozen=True, kw_only=True)
class InstalledExtractor:
    """An extractor and its package, and the `error` if it cannot be loaded."""

    name: str
    package: str
    extractor: Extractor | None = None
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        source = {"name": self.name, "from": self.package}
        if self.extractor is None:
            return source | {"error": self.error}
        names = ("version", "input", "dims", "shape", "dtype", "unit", "description")
        return source | {name: getattr(self.extractor, name) for name in names}


def extractors() -> list[InstalledExtractor]:
    """List the installed extractors, with those that cannot be loaded."""
    with extra("extract"):
        from ..pipeline.extractors.registry import extractor_names, load_extractor

    installed = []
    for name, package in extractor_names().items():
        try:
            installed.append(InstalledExtractor(name=name, package=package, extractor=load_extractor(name)))
        except ConfigError as error:
            installed.append(InstalledExtractor(name=name, package=package, error=str(error)))
    return installed


def _recipe_of(store: Path) -> Recipe:
    if store.is_dir():
        return read_plan(store).recipe
    with FeatureStore.open(store) as opened:
        return opened.recipe


def _fill_sealed(
    sealed: Path, fill: Callable[[Path], ExtractReport], on_progress: Progress, *, may_grow: bool
) -> ExtractReport:
    """Fill a hidden Zarr store next to a sealed one, then seal it; after a kill the next call continues.

    A sealed store is complete: unless it may grow, its records suffice for the comparison with source and recipe.
    """
    with only_writer(sealed) as folder:
        store, draft = folder / "store.zarr", folder / f"sealed{sealed.suffix}"
        finished = sealed.exists() and not is_store(store)  # else an earlier extraction was interrupted before sealing
        if finished and not may_grow:
            store = folder / "records.zarr"  # another name, so that it is not sealed later
            shutil.rmtree(store, ignore_errors=True)
        before = None
        try:
            if finished:
                (unpack_store if may_grow else unpack_records)(sealed, store)
                before = _extent(store)
            report = fill(store)
        except MgcError as error:
            if finished and (not may_grow or (before is not None and _extent(store) == before)):
                shutil.rmtree(store, ignore_errors=True)  # the sealed store has the same records
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
