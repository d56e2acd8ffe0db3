"""What the commands do, as functions: the one place where `pipeline` and `heads` meet.

Predicting a new song is extracting it into a small temporary store with the recipe of the model, then predicting from
that store: there is one feature code.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from .cache.commits import committed
from .cache.compact import compact
from .cache.drops import drop
from .cache.durable import fsync_dir
from .cache.errors import ConfigError, MgcError, MissingExtraError
from .cache.forms import SEALED_SUFFIXES, is_store, only_writer
from .cache.hdf5_store import seal_problem, seal_store, unpack_records, unpack_store
from .cache.plan import read_plan
from .cache.processor import cpu_has_bf16
from .cache.schema import FeatureSetRecipe, MelRecipe, Recipe, TextRecipe, text_fingerprints
from .cache.select import select
from .cache.store import FeatureStore
from .cache.verify import Damage, put_aside, verify
from .cache.view import FeatureArray, Names, StoreView

if TYPE_CHECKING:
    import xarray

    from .heads.bundle import LoadedModel
    from .heads.config import TrainConfig
    from .heads.torch_dataset import TrackDataset
    from .heads.train import Progress as TrainProgress
    from .pipeline.extract import ExtractReport
    from .pipeline.extract import Progress as ExtractProgress
    from .pipeline.forecast import Forecast
    from .pipeline.known_dataset import GenreLevel
    from .pipeline.manifest import Source, Track
    from .pipeline.parts import TextSource
    from .pipeline.workers import Scheduler

Steps = Callable[[str, int, int, str], None]
"""Told how far long work is: step, done, total, a note."""


def _silent(step: str, done: int, total: int, note: str) -> None:
    pass


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """Imports that an optional part of mgc brings; a missing one is reported by the name of the extra."""
    try:
        yield
    except ImportError as error:
        missing = error.name or str(error)
        raise MissingExtraError(f"{missing} is not installed; run: pip install 'mgc[{name}]'") from error


@dataclass(frozen=True, kw_only=True)
class ReadSource:
    """A source as read and filtered, with remarks for the user: what was found, what each filter kept."""

    source: Source
    remarks: list[str]
    read_from: tuple[str | os.PathLike[str], ...]

    def to_dict(self) -> dict[str, Any]:
        """Counts of what is there: ``tracks``, ``with_lyrics``, ``artists``, and of tracks for each of ``genres``."""
        tracks = self.source.tracks
        genres = Counter(genre for track in tracks for genre in track.genres)
        return {
            "tracks": len(tracks),
            "with_lyrics": sum(track.lyrics is not None or track.lyrics_path is not None for track in tracks),
            "artists": len({artist for track in tracks for artist in track.artists}),
            "genres": dict(sorted(genres.items(), key=lambda item: (-item[1], item[0]))),
            "remarks": self.remarks,
        }


@dataclass(frozen=True, kw_only=True)
class WrittenManifest:
    """A manifest that was written."""

    manifest: str
    tracks: int
    remarks: list[str]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Genres of one track. A track that could not be read has a reason and no scores."""

    id: str
    genres: list[str]
    scores: dict[str, float]
    flags: list[str]
    reason: str | None = None
    detail: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions in the order of the tracks, and what the user should know about them.

    Attributes
    ----------
    predictions : empty where they were written to a file.
    output : that file.
    n_tracks, reasons : tracks in all, and those without scores by the reason.
    """

    predictions: list[Prediction]
    remarks: list[str] = field(default_factory=list)
    output: str | None = None
    n_tracks: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def n_failed(self) -> int:
        return sum(self.reasons.values())

    def to_dict(self) -> dict[str, Any]:
        counts = {"tracks": self.n_tracks, "failed": self.n_failed, "reasons": dict(self.reasons)}
        if self.output is not None:
            return {"output": self.output, **counts, "remarks": self.remarks}
        return {"predictions": [one.to_dict() for one in self.predictions], **counts, "remarks": self.remarks}


def read_source(
    source: str | os.PathLike[str],
    *,
    dataset: str | None = None,
    root: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    genre_delimiter: str | None = None,
    artist_delimiter: str | None = None,
    genres_from_folders: bool = False,
    genre_level: GenreLevel | None = None,
    languages: Iterable[str] = (),
    min_labels: int = 0,
    require_lyrics: bool = False,
    limit: int | None = None,
) -> ReadSource:
    """List the tracks of a source and filter them.

    Parameters are those of :func:`mgc.pipeline.datasets.load_source` and :func:`mgc.pipeline.manifest.filter_tracks`.

    Raises
    ------
    ManifestError
        Where the source breaks a rule; names file, line and column.
    """
    with _extra("extract"):
        from .pipeline.datasets import load_source
        from .pipeline.manifest import filter_tracks

    found = load_source(
        source,
        dataset=dataset,
        root=root,
        labels=labels,
        genre_delimiter=genre_delimiter,
        artist_delimiter=artist_delimiter,
        genres_from_folders=genres_from_folders,
        genre_level=genre_level,
    )
    kept, counts = filter_tracks(
        found.tracks,
        languages=languages,
        min_labels=min_labels,
        require_lyrics=require_lyrics,
        limit=limit,
        root=found.root,
    )
    remarks = [*found.notes, f"{len(found.tracks)} tracks in {source}"]
    remarks += [f"  {name}: {n} kept" for name, n in counts]
    read_from = (source,) if labels is None else (source, labels)
    return ReadSource(source=dataclasses.replace(found, tracks=kept), remarks=remarks, read_from=read_from)


def known_datasets() -> list[dict[str, str]]:
    """The data sets that are read by name: ``name``, ``title``, what each ``needs`` on disk, its ``terms``."""
    with _extra("extract"):
        from .pipeline.datasets import DATASETS

    return [{"name": one.name, "title": one.title, "needs": one.needs, "terms": one.terms} for one in DATASETS]


def write_manifest(read: ReadSource, path: Path) -> WrittenManifest:
    """Write the tracks of a source as JSON Lines, with paths that start from the manifest's folder where they can."""
    if path.suffix != ".jsonl":
        raise ConfigError(f"{path}: a manifest is JSON Lines; give it a name that ends in .jsonl")
    if path.resolve() in {Path(given).resolve() for given in read.read_from}:
        raise ConfigError(f"{path}: this is the table that the tracks come from; give the manifest another name")
    from .pipeline.manifest import escaping_paths
    from .pipeline.manifest import write_manifest as write

    source, folder, remarks = read.source, path.parent.resolve(), []
    if source.root.resolve().is_relative_to(folder):
        prefix = PurePosixPath(source.root.resolve().relative_to(folder).as_posix())
        escaping = set(escaping_paths(source))  # a prefix would lead them back inside; they are to fail, and be named
        moved = [track if track.id in escaping else _moved(track, prefix) for track in source.tracks]
        source = dataclasses.replace(source, tracks=moved)
    else:
        remarks.append(f"paths in {path} start from {source.root}; read it with --root {source.root}")
    write(source, path)
    return WrittenManifest(manifest=str(path), tracks=len(source.tracks), remarks=remarks)


def _moved(track: Track, prefix: PurePosixPath) -> Track:
    lyrics_path = None if track.lyrics_path is None else str(prefix / track.lyrics_path)
    return dataclasses.replace(track, path=str(prefix / track.path), lyrics_path=lyrics_path)


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
    on_progress: Steps = _silent,
) -> ExtractReport:
    """Make or continue a feature store; see :func:`mgc.pipeline.extract.extract`.

    Parameters
    ----------
    features : any of ``mel``, ``lyrics``, ``genres`` (names of genres; needs ``lyrics``'s encoder).
    workers : worker processes; None takes one a core, 0 runs in this process.
    text_model, text_precision : None and ``auto`` take what the store has, if there is one.
    genre_names : how genres are read aloud to the text encoder: ``common`` (a built-in map of frequent spellings) or a
        table with the columns genre and text; None takes what the store has, else each name as it stands.
    append, retry_failed, shard : see :func:`mgc.pipeline.extract.extract`. A shard runs in this process unless
        `workers` says otherwise.
    add : name under which the features of `text_model` join a store that is there; without one, name of the extractor
        whose features join it. See :func:`mgc.pipeline.extract.add_features`.
    scheduler : of a Dask cluster that runs already; its workers must see the store and the source at the same paths.

    Raises
    ------
    ConfigError, TextModelError, RecipeMismatchError
    """
    with _extra("extract"):
        from .pipeline.extract import add_features
        from .pipeline.extract import extract as run
        from .pipeline.parts import TextSource
        from .pipeline.workers import default_workers

    if scheduler is not None and workers is not None:
        raise ConfigError("--workers counts local processes; a scheduler has workers of its own")
    if workers is None:
        workers = default_workers() if shard is None else 0

    def tell(progress: ExtractProgress) -> None:
        on_progress("extract", progress.done, progress.planned, f"{progress.failed} failed" if progress.failed else "")

    if add is not None:
        if not (store.is_dir() and is_store(store)) or append or retry_failed:
            raise ConfigError(f"--add {add}: features join a Zarr store that is there, in a run of their own")
        if genre_names is not None:
            raise ConfigError(f"--add {add}: genres are read aloud as the store does; leave --genre-names out")
        encoder = None if text_model is None else TextSource(model=text_model, device=text_device)
        return add_features(
            source, store, add, recipe=_added_recipe(store, add, encoder, text_precision), text=encoder,
            workers=scheduler or workers, shard=shard, on_progress=tell,
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
            on_progress=tell,
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
    from .pipeline.forecast import load_forecast

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
    from .pipeline.parts import TextSource

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
    sample: int = 64,
    on_progress: Steps = _silent,
) -> Forecast:
    """Predict what :func:`extract` will take, from a sample of the source; see :func:`mgc.pipeline.forecast.forecast`.

    Parameters
    ----------
    store : the prediction is kept beside it, and :func:`extract` tells it beside what happened.
    """
    with _extra("extract"):
        from .pipeline.forecast import forecast
        from .pipeline.workers import default_workers

    if not source.tracks:
        raise ConfigError("no tracks to plan for: the source is empty, or the filters kept nothing")
    recipe, text = _wanted(None, features, audio_backend, clip_s, offset, text_model, text_precision, text_device)
    found = forecast(
        source, recipe=recipe, text=text, embed_genres="genres" in features, part_rows=part_rows,
        workers=default_workers() if workers is None else workers, sample=sample,
        on_progress=lambda progress: on_progress("sample", progress.done, progress.planned, ""),
    )  # fmt: skip
    if store is not None:
        found.save(store)
    return found


def _added_recipe(store: Path, name: str, text: TextSource | None, precision: str) -> FeatureSetRecipe:
    """Of the text encoder that the user named, else of the extractor of that name."""
    if text is not None:
        return _text_recipe(text, precision, None)
    from .pipeline.extractors import load_extractor

    try:
        return load_extractor(name).recipe(read_plan(store).recipe.mel)
    except ConfigError as error:
        raise ConfigError(f"--add {name}: {error}; or name a text encoder with --text-model") from error


def extractors() -> list[dict[str, Any]]:
    """The extractors that are installed: ``name``, who brings it (``from``), and what it makes of each track."""
    with _extra("extract"):
        from .pipeline.extractors import extractor_names, load_extractor

    found = []
    for name, package in extractor_names().items():
        one = load_extractor(name)
        found.append(
            {"name": name, "from": package, "version": one.version, "input": one.input, "dims": list(one.dims),
             "shape": list(one.shape), "dtype": one.dtype, "unit": one.unit, "description": one.description}
        )  # fmt: skip
    return found


def _genre_names(choice: str | None, features: Sequence[str], before: Recipe | None) -> Mapping[str, str]:
    from .pipeline.genre_names import genre_names

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
    sealed: Path, fill: Callable[[Path], ExtractReport], on_progress: Steps, *, may_grow: bool
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
            seal_store(store, draft, on_progress=lambda done, total: on_progress("seal", done, total, ""))
            draft.replace(sealed)
            fsync_dir(sealed.parent)
        shutil.rmtree(folder)
    return dataclasses.replace(report, store=str(sealed))


def _extent(store: Path) -> tuple[int, int]:
    return len(read_plan(store).generations), len(committed(store))


def _text_recipe(text: TextSource, precision: str, known: TextRecipe | None) -> TextRecipe:
    from .pipeline.text import find_text_model, resolve_precision, text_recipe

    if precision == "auto" and known is not None:
        precision = known.precision
    return text_recipe(find_text_model(text.model), precision=resolve_precision(precision))


def store_verify(path: Path, *, full: bool = False, on_progress: Steps = _silent) -> list[Damage]:
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
    on_progress: Steps = _silent,
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
        with _extra("extract"):
            from .pipeline.extract import build_pending
            from .pipeline.parts import TextSource
            from .pipeline.repair import write_again

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


def store_compact(path: Path, *, on_progress: Steps = _silent) -> int:
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
    on_progress: Steps = _silent,
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
    with _extra("extract"):
        from .pipeline.extract import embedded_genres
        from .pipeline.genre_names import genre_names
        from .pipeline.parts import TextSource

    if store.recipe.lyrics is None or not store.embeds_genres:
        raise ConfigError(f"{store.path}: no genre embeddings in this store, so no names to read aloud by others")
    recipe = dataclasses.replace(store.recipe, genre_names=genre_names(choice))
    source = TextSource(model=text_model or store.recipe.lyrics.model, device=text_device)
    store.use_genre_names(recipe.genre_names, embedded_genres(store.genres, recipe, source))


def to_dask(feature: FeatureArray) -> Any:
    """A feature as a ``dask.array.Array``, one chunk for as many tracks as a part of the store has.

    Examples
    --------
    >>> import mgc
    >>> mel = mgc.to_dask(mgc.open("songs.zarr")["mel"])
    >>> round(float(mel.astype("float32").mean().compute()), 1)
    -40.5
    """
    with _extra("xarray"):
        import dask.array as da
        import numpy as np
        from dask.base import tokenize

    chunks = (feature.part_rows, *(-1 for _ in feature.shape[1:]))
    name = f"{feature.name}-{tokenize(feature.view)}"
    # One reader, which is not made for threads; copying from mapped memory gains nothing from several anyway.
    return da.from_array(
        feature, chunks=chunks, name=name, lock=True, meta=np.empty((0,) * feature.ndim, feature.dtype)
    )


def to_xarray(store: StoreView) -> xarray.Dataset:
    """The tracks of a view as an ``xarray.Dataset`` that reads when it is asked to.

    Every feature with its dims and units; ``labels`` (track, genre); ids, languages and splits along ``track`` (""
    where a source said nothing); the recipe as JSON in the attributes.

    Examples
    --------
    >>> import mgc
    >>> songs = mgc.to_xarray(mgc.open("songs.zarr"))
    >>> songs["mel"].sel(track="song00").dims
    ('mel_band', 'frame')
    >>> songs["labels"].sel(genre="jazz").sum().item()
    8
    """
    with _extra("xarray"):
        import xarray

    def text(column: str) -> list[str]:
        return [value or "" for value in store.tracks.column(column).to_pylist()]

    arrays = {name: store[name] for name in store.features}
    return xarray.Dataset(
        {
            name: (one.dims, to_dask(one), {"units": one.unit, "description": one.description})
            for name, one in arrays.items()
        }
        | {"labels": (("track", "genre"), store.labels(), {"description": "which genres a track has"})},
        coords={
            "track": text("id"), "genre": store.genres,
            "language": ("track", text("language")), "split": ("track", text("split")),
        },
        attrs={"recipe": json.dumps(store.store.recipe.to_dict()), "store": store.store.path.name},
    )  # fmt: skip


def to_torch(store: StoreView, features: Names, genres: Sequence[str] | None = None) -> TrackDataset:
    """The tracks of a view as a dataset of torch; see :class:`mgc.heads.torch_dataset.TrackDataset`.

    Examples
    --------
    >>> import mgc, torch
    >>> train = mgc.to_torch(mgc.open("songs.zarr").sel(split="train"), "mel", genres=["jazz", "folk"])
    >>> batch = next(iter(torch.utils.data.DataLoader(train, batch_size=4)))
    >>> batch["mel"].shape, batch["labels"].tolist()[0]
    (torch.Size([4, 128, 44]), [1.0, 0.0])
    """
    with _extra("train"):
        from .heads.torch_dataset import TrackDataset

    return TrackDataset(store, features, genres)


def train(
    store: Path,
    run: Path,
    *,
    preset: str | None = None,
    genres_file: Path | None = None,
    labels: Path | None = None,
    genre_delimiter: str | None = None,
    text: str | None = None,
    options: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
    resume: bool = False,
    save_every_s: float | None = None,
    stop: Callable[[], bool] | None = None,
    on_progress: Steps = _silent,
) -> dict[str, Any]:
    """Train a model from a store and write its report.

    Parameters
    ----------
    labels, genre_delimiter : a table with the columns id and genres, in place of the store's labels; a track that it
        does not list has none.
    text : name of the text features to learn from, where others joined the store.
    options : fields of :class:`mgc.heads.config.TrainConfig`.
    settings : further ones, and fields of ``ModelConfig``, as ``key=value``; they win.
    save_every_s, stop : see :func:`mgc.heads.train.train`.

    Returns
    -------
    dict
        Best epoch and its validation mAP, last losses, device, precision, where the run and report are, remarks.

    Raises
    ------
    ConfigError, RunError, TrainingError, SaveError, StoppedError, StoreNotFoundError
    """
    with _extra("train"):
        from .heads.train import SAVE_EVERY_S
        from .heads.train import train as fit

    config = _train_config(preset, genres_file, options, settings)

    def tell(progress: TrainProgress) -> None:
        if progress.stage == "statistics":
            on_progress("statistics", progress.done, progress.total, "")
        elif progress.record is not None:
            last = progress.record
            shown = "" if last.val_map is None else f", validation mAP {last.val_map:.3f}"
            on_progress("train", progress.done, progress.total, f"loss {last.loss:.3f}{shown}")

    with FeatureStore.open(store, text=text) as features:
        relabelled = _read_labels(labels, genre_delimiter, features)
        result = fit(
            features, run, config, labels=relabelled.genres, resume=resume, stop=stop, on_progress=tell,
            save_every_s=SAVE_EVERY_S if save_every_s is None else save_every_s,
        )  # fmt: skip
    page, remarks = _try_report(run)
    sizes = ", ".join(f"{name} {size}" for name, size in result.task.split.sizes.items())
    return {
        "run": str(run),
        "store": str(store),
        "report": page,
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "best_validation_map": result.best_map,
        "first_loss": result.history[0].loss if result.history else None,
        "last_loss": result.history[-1].loss if result.history else None,
        "split": {"policy": result.task.split.policy, **result.task.split.sizes},
        "genres": list(result.task.genres.names),
        "learning_rate": config.lr,
        "threshold": result.thresholds.overall,
        "threshold_tuned_on": result.thresholds.n_tracks,
        "device": result.device,
        "precision": result.precision,
        "n_parameters": result.n_parameters,
        "seconds": round(result.seconds, 2),
        "stopped_early": result.stopped_early,
        "remarks": [
            *relabelled.remarks,
            *(str(kept) for kept in result.task.kept),
            f"split {result.task.split.policy}: {sizes}",
            *([f"features kept in: {result.home}"] if result.home is not None else []),
            *(f"warning: {warning}" for warning in result.warnings),
            *remarks,
        ],
    }


def train_dry_run(
    store: Path,
    run: Path,
    *,
    preset: str | None = None,
    genres_file: Path | None = None,
    labels: Path | None = None,
    genre_delimiter: str | None = None,
    text: str | None = None,
    options: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
    on_progress: Steps = _silent,
) -> dict[str, Any]:
    """What :func:`train` would do: tracks, genres, memory, checkpoints, and seconds an epoch by a few real steps.

    Writes nothing.

    Raises
    ------
    ConfigError, TrainingError, StoreNotFoundError
    """
    with _extra("train"):
        from .heads.dry_run import dry_run

    config = _train_config(preset, genres_file, options, settings)
    with FeatureStore.open(store, text=text) as features:
        relabelled = _read_labels(labels, genre_delimiter, features)
        found = dry_run(
            features, config, labels=relabelled.genres,
            on_track=lambda done, total: on_progress("statistics", done, total, ""),
        )  # fmt: skip
    task = found.task
    return {
        "run": str(run),
        "run_exists": any((run / name).exists() for name in ("config.yaml", "last", "best")),
        "store": str(store),
        "kept": [str(kept) for kept in task.kept],
        "split": {"policy": task.split.policy, **task.split.sizes},
        "genres": list(task.genres.names),
        "train_tracks": task.n_train,
        "train_tracks_without_lyrics": task.n_without_lyrics,
        "validation_tracks": found.n_validation,
        "home": {"name": found.home.name, "bytes": found.home.n_bytes, "free_bytes": found.home.free_bytes},
        "features": str(found.home),
        "device": found.device,
        "precision": found.precision,
        "n_parameters": found.n_parameters,
        "batch_size": config.batch_size,
        "steps_per_epoch": found.n_steps,
        "epochs": config.epochs,
        "timed_steps": found.timed_steps,
        "seconds_per_step": round(found.step_s, 4),
        "seconds_per_epoch": round(found.epoch_s, 2),
        "seconds_to_read": round(found.read_s, 2),
        "checkpoint_bytes": found.checkpoint_bytes,
        "warnings": [*relabelled.remarks, *found.warnings],
    }


@dataclass(frozen=True, kw_only=True)
class _Labels:
    """Genres by track id in place of the store's, None for the store's own; and what to know about them."""

    genres: Mapping[str, Sequence[str]] | None = None
    remarks: tuple[str, ...] = ()


def _read_labels(path: Path | None, genre_delimiter: str | None, store: FeatureStore) -> _Labels:
    """Labels from a table that lists at least one track of the store."""
    if path is None:
        return _Labels()
    from .pipeline.small_tables import read_labels

    labels, ids = read_labels(path, genre_delimiter), set(store.tracks.column("id").to_pylist())
    here = ids & labels.keys()
    if not here:
        raise ConfigError(f"{path}: none of its {len(labels)} ids is a track of {store.path}; there {min(ids)!r}, here "
                          f"{min(labels)!r}")  # fmt: skip
    said = f"{path.name} labels {len(here)} of {len(ids)} tracks; the others count as unlabelled"
    beyond = [f"{len(labels) - len(here)} rows of {path.name} name no track here"] if len(labels) > len(here) else []
    return _Labels(genres=labels, remarks=(said, *beyond))


def _train_config(
    preset: str | None, genres_file: Path | None, options: Mapping[str, Any] | None, settings: Sequence[str] = ()
) -> TrainConfig:
    from .heads.config import TrainConfig

    return TrainConfig.from_preset(preset, **_options(genres_file, options, settings))


def _options(genres_file: Path | None, options: Mapping[str, Any] | None, settings: Sequence[str]) -> dict[str, Any]:
    from .heads.config import read_settings
    from .heads.labels import read_genres_file

    chosen = dict(options or {})
    if genres_file is not None:
        chosen["genres"] = read_genres_file(genres_file)
    return {**chosen, **read_settings(settings)}


def evaluate(
    run: Path,
    store: Path,
    *,
    split: str = "test",
    labels: Path | None = None,
    genre_delimiter: str | None = None,
    on_progress: Steps = _silent,
) -> dict[str, Any]:
    """Score a trained model on stored tracks; saves ``metrics.json`` in the run and refreshes its report.

    Parameters
    ----------
    labels, genre_delimiter : as for :func:`train`.

    Raises
    ------
    RunError, RecipeMismatchError, StoreNotFoundError
    """
    with _extra("train"):
        from .heads.evaluate import evaluate as score
        from .heads.predict import load_run

    with _open_for(load_run(run), store) as features:
        relabelled = _read_labels(labels, genre_delimiter, features)
        metrics = score(
            run, features, split=split, labels=relabelled.genres,
            on_track=lambda done, total: on_progress("evaluate", done, total, ""),
        )  # fmt: skip
        metrics["warnings"] = [*relabelled.remarks, *metrics["warnings"]]
    _try_report(run)
    return metrics


def compare(
    first: Path, second: Path, *, common: bool = False, n_replicates: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Paired differences of two evaluated runs; see :func:`mgc.heads.compare.compare_runs`."""
    with _extra("train"):
        from .heads.compare import compare_runs

    return compare_runs(first, second, common=common, n_replicates=n_replicates, seed=seed)


def _open_for(loaded: LoadedModel, store: Path) -> FeatureStore:
    """The store with the text features that the model was trained on, where it has them."""
    opened = FeatureStore.open(store)
    wanted = loaded.recipe.lyrics
    if wanted is None or opened.recipe.lyrics == wanted:
        return opened
    for name, recipe in opened.texts.items():
        if text_fingerprints(recipe, {}) == text_fingerprints(wanted, {}):
            opened.close()
            return FeatureStore.open(store, text=name)
    return opened


def ablate(
    store: Path,
    folder: Path,
    *,
    tables: Sequence[str] | None = None,
    n_seeds: int = 3,
    n_folds: int | None = None,
    fold_by: Literal["artist", "song"] = "artist",
    preset: str | None = None,
    genres_file: Path | None = None,
    labels: Path | None = None,
    genre_delimiter: str | None = None,
    text: str | None = None,
    names_store: Path | None = None,
    options: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
    jobs: int = 1,
    shard: tuple[int, int] | None = None,
    training: bool = True,
    keep_runs: bool = False,
    dry_run: bool = False,
    stop: Callable[[], bool] | None = None,
    on_progress: Steps = _silent,
) -> dict[str, Any]:
    """Fill the paper's tables from a store, or go on filling them; see :func:`mgc.heads.ablate.ablate`.

    Parameters
    ----------
    tables : names of :data:`mgc.heads.ablate_rows.TABLES`; None for those of the paper and `plus`.
    n_seeds : runs of each configuration, with seeds 0, 1, ...; all share one split.
    n_folds, fold_by : cross-validation instead of one split; see :func:`mgc.heads.folds.make_folds`.
    names_store : a store of the same tracks whose genres are read aloud by other names, for the rows about those.
    preset, labels, options, settings : as for :func:`train`, for every run.
    dry_run : list the runs and estimate their time instead; see :func:`mgc.heads.ablate.dry_run`.

    Raises
    ------
    ConfigError, RunError, SaveError, StoppedError, StoreNotFoundError
    """
    with _extra("train"):
        from .heads import ablate as ablation
        from .heads.ablate_plan import Plan
        from .heads.ablate_rows import DEFAULT_TABLES, chosen_tables
        from .heads.ablate_runs import names_of
        from .heads.ablate_workers import Work
        from .heads.folds import make_folds

    chosen = _options(genres_file, options, settings)
    with FeatureStore.open(store, text=text) as features:
        relabelled = _read_labels(labels, genre_delimiter, features)
        folds = [] if n_folds is None else make_folds(features, n_folds, by=fold_by, labels=relabelled.genres)
        names = None
        if names_store is not None:
            with FeatureStore.open(names_store, text=text) as named:
                names = names_of(features, named, relabelled.genres)
    plan = Plan(tables=chosen_tables(tables or DEFAULT_TABLES), preset=preset, options=chosen, seeds=range(n_seeds),
                folds=folds, names=names)  # fmt: skip
    work = Work(folder=folder, store=store, text=text, labels=relabelled.genres, names_store=names_store,
                keep_runs=keep_runs)  # fmt: skip
    if dry_run:
        found = ablation.dry_run(work, plan, jobs=jobs, on_progress=on_progress)
        return {**found, "remarks": list(relabelled.remarks)}
    found = ablation.ablate(work, plan, jobs=jobs, shard=shard, training=training, stop=stop, on_progress=on_progress)
    return {**found, "remarks": [*relabelled.remarks, *found["remarks"]]}


def report(run: Path, output: Path | None = None) -> Path:
    """Write the page about a run; see :func:`mgc.heads.report.write_report`."""
    with _extra("report"):
        from .heads.report import write_report

    return write_report(run, output)


def _try_report(run: Path) -> tuple[str | None, list[str]]:
    """A report is worth a remark, not a failed training, where its extra is not installed."""
    try:
        return str(report(run)), []
    except MissingExtraError as error:
        return None, [f"no report written: {error}"]


def predict(
    run: Path,
    inputs: Sequence[Path],
    *,
    lyrics: Path | None = None,
    missing_ok: bool = False,
    output: Path | None = None,
    threshold: str = "overall",
    text_model: str | None = None,
    text_device: str = "cpu",
    workers: int | None = None,
    on_progress: Steps = _silent,
) -> Predictions:
    """Genres of songs, or of the tracks of a store.

    Parameters
    ----------
    run : a run folder, or its ``best/``.
    inputs : audio files and folders of them, or one feature store.
    lyrics : lyrics of the one song given; without it ``song.txt`` beside ``song.mp3`` is taken.
    missing_ok : let a file that does not exist fail by itself, with a reason, like one that cannot be decoded.
    output : a .parquet, .csv or .jsonl file to write, block by block, instead of returning the predictions: memory
        does not grow with the number of tracks.
    threshold : ``overall``, ``per-genre`` (both tuned on validation tracks) or a number, such as ``0.5``.
    text_model : where the model's own text encoder lies on this machine; its hashes must match.
    workers : processes that decode songs and embed lyrics; None takes one a core for 32 songs or more, and 0 (this
        process) for fewer.

    Raises
    ------
    ConfigError, RunError, TextModelError, RecipeMismatchError
    """
    model = load_model(run, text_model=text_model, text_device=text_device)
    return _predict(
        model, inputs, lyrics=lyrics, missing_ok=missing_ok, output=output, threshold=threshold, workers=workers,
        on_progress=on_progress,
    )  # fmt: skip


def load_model(run: str | os.PathLike[str], *, text_model: str | None = None, text_device: str = "cpu") -> Model:
    """A trained model, for predictions; see :func:`predict` for the parameters.

    Raises
    ------
    RunError
        If there is no trained model; the message says what was looked for.
    """
    with _extra("train"):
        from .heads.predict import load_run

    return Model(load_run(Path(run)), text_model, text_device)


class Model:
    """A trained model with all that prediction needs: recipe, genres, thresholds, graph.

    Examples
    --------
    >>> import mgc
    >>> model = mgc.load_model("best/")
    >>> prediction = model.predict("song.wav")  # lyrics="song.txt", or song.txt beside it
    >>> list(prediction.scores) == model.genres
    True
    >>> [len(one.scores) for one in model.predict_all(["song.wav", "broken.wav"])]
    [3, 0]
    """

    def __init__(self, loaded: LoadedModel, text_model: str | None = None, text_device: str = "cpu") -> None:
        self._loaded, self._text_model, self._text_device = loaded, text_model, text_device

    @property
    def genres(self) -> list[str]:
        """Genres that it knows, in the order of its scores."""
        return list(self._loaded.genres)

    @property
    def recipe(self) -> Recipe:
        """What the features it was trained on were made by."""
        return self._loaded.recipe

    def predict(
        self,
        song: str | os.PathLike[str],
        *,
        lyrics: str | os.PathLike[str] | None = None,
        threshold: str = "overall",
    ) -> Prediction:
        """Genres of one audio file. One that cannot be read raises nothing: it gets a reason and no scores.

        Raises
        ------
        ConfigError
            If there is no such file, or it is a folder.
        """
        if Path(song).is_dir():
            raise ConfigError(f"{song}: a folder; predict_all takes folders and stores")
        words = None if lyrics is None else Path(lyrics)
        return _predict(self, [Path(song)], lyrics=words, threshold=threshold).predictions[0]

    def predict_all(
        self,
        inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        threshold: str = "overall",
        workers: int = 0,
    ) -> list[Prediction]:
        """Genres of audio files, folders of them, or the tracks of one feature store.

        With `workers`, songs are decoded in that many processes; a script then needs ``if __name__ == "__main__"``.
        """
        given = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs
        return _predict(self, [Path(one) for one in given], threshold=threshold, workers=workers).predictions


MANY_SONGS = 32
"""From so many on, worker processes are worth their start."""


def _predict(
    model: Model,
    inputs: Sequence[Path],
    *,
    lyrics: Path | None = None,
    missing_ok: bool = False,
    output: Path | None = None,
    threshold: str = "overall",
    workers: int | None = 0,
    on_progress: Steps = _silent,
) -> Predictions:
    from .heads.catalogue import refuse_other_suffix

    if output is not None:
        refuse_other_suffix(output)
    loaded = model._loaded
    loaded.thresholds.chosen(threshold)  # a senseless one is refused before the work
    if len(inputs) == 1 and is_store(inputs[0]):
        if lyrics is not None:
            raise ConfigError("--lyrics goes with one song; a store holds the lyrics of its tracks")
        with _open_for(loaded, inputs[0]) as features:
            return _predict_store(loaded, features, threshold, output, on_progress)
    if stores := [str(given) for given in inputs if is_store(given)]:
        raise ConfigError(f"{', '.join(stores)}: give one store by itself, or songs and folders of songs")
    with _extra("extract"):
        from .pipeline.extract import extract as run_extraction
        from .pipeline.parts import TextSource
        from .pipeline.songs import songs_source
        from .pipeline.workers import default_workers
    source = songs_source(inputs, lyrics, missing_ok=missing_ok)
    if workers is None:
        workers = default_workers() if len(source.tracks) >= MANY_SONGS else 0

    with tempfile.TemporaryDirectory(prefix="mgc-") as scratch:
        store = Path(scratch) / "songs.zarr"
        run_extraction(
            source,
            store,
            recipe=loaded.recipe,
            text=TextSource(model=model._text_model, device=model._text_device, emulates=True),
            embed_genres=False,
            workers=workers,
            on_progress=lambda progress: on_progress("extract", progress.done, progress.planned, ""),
        )
        with FeatureStore.open(store) as features:
            done = _predict_store(loaded, features, threshold, output, on_progress)
    asked = {track.id: i for i, track in enumerate(source.tracks)}  # a store has them in the order of their ids
    return dataclasses.replace(done, predictions=sorted(done.predictions, key=lambda one: asked[one.id]))


def _predict_store(
    loaded: LoadedModel, store: FeatureStore, threshold: str, output: Path | None, on_progress: Steps
) -> Predictions:
    from .heads.catalogue import predicted_rows, write_predictions
    from .heads.predict import predict_blocks

    blocks = predict_blocks(
        loaded, store, threshold=threshold, on_track=lambda done, total: on_progress("predict", done, total, "")
    )
    remarks = [loaded.thresholds.described(threshold, loaded.genres), *_prediction_remarks(loaded, store)]
    if output is not None:
        n_tracks, reasons = write_predictions(output, blocks)
        return Predictions(predictions=[], remarks=remarks, output=str(output), n_tracks=n_tracks, reasons=reasons)
    predictions = [Prediction(**row) for block in blocks for row in predicted_rows(block)]
    failed = Counter(one.reason for one in predictions if one.reason and not one.scores)
    return Predictions(predictions=predictions, remarks=remarks, n_tracks=len(predictions), reasons=failed)


def _prediction_remarks(loaded: LoadedModel, store: FeatureStore) -> list[str]:
    from .heads.predict import lyrics_warnings

    remarks = []
    if store.recipe.lyrics is None:
        remarks.append("the model was trained without lyrics: words are not looked at")
    elif len(store.ok_rows):
        without = int((store.read("lyrics_tokens", store.ok_rows) == 0).sum())
        if without:
            remarks.append(f"{without} of {len(store.ok_rows)} songs without lyrics: predicted from sound alone")
    return remarks + lyrics_warnings(loaded, store, store.ok_rows)


DEMO_OPTIONS: dict[str, Any] = {"encoder": "lite", "epochs": 15, "lr": 5e-4, "lr_halve_every": 4, "batch_size": 16}
"""Training options of the demo: larger steps and fewer epochs than the paper's, for minutes on two cores."""


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """What the demo made and how well it did; Jaccard indices on test songs by artists not trained on."""

    collection: str
    store: str
    run: str
    report: str | None
    extraction: dict[str, Any]
    training: dict[str, Any]
    metrics: dict[str, Any]
    new_song: str
    new_song_genres: list[str]
    prediction: Prediction
    seconds: dict[str, float]
    remarks: list[str]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def demo(
    folder: Path,
    *,
    n_songs: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    on_progress: Steps = _silent,
) -> DemoReport:
    """The whole path on the built-in collection: generate, extract, train, evaluate, predict, report.

    What is already in `folder` is used again; a run that is there is continued.

    Parameters
    ----------
    n_songs : None makes 240, or two thirds of it on a CPU that does not compute in bf16.
    epochs : None trains as :data:`DEMO_OPTIONS` say; fewer show the path, not a model.
    """
    with _extra("all"):
        from .pipeline.synth import make_collection, unheard_song, write_song
        from .pipeline.workers import default_workers

    cores = default_workers() if workers is None else workers
    remarks = []
    if n_songs is None:
        n_songs = 240 if cpu_has_bf16() else 160
        if n_songs < 240:
            remarks.append("this CPU does not compute in bf16, so the demo makes 160 songs instead of 240")
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(step: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        seconds[step] = round(time.monotonic() - started, 1)

    with timed("generate"):
        collection = make_collection(
            folder / "songs", n_songs, seed, workers=cores, on_progress=lambda d, t: on_progress("generate", d, t, "")
        )
    source = read_source(collection).source
    store, run = folder / "songs.zarr", folder / "run"
    with timed("extract"):
        extraction = extract(source, store, text_model="minilm", workers=cores, on_progress=on_progress)
    with timed("train"):
        options = DEMO_OPTIONS | ({} if epochs is None else {"epochs": epochs}) | {"seed": seed}
        training = train(store, run, options=options, resume=True, on_progress=on_progress)
    with timed("evaluate"):
        metrics = evaluate(run, store, on_progress=on_progress)
    with timed("predict"):
        song = unheard_song(seed, n_songs)
        audio = write_song(song, folder / "new")
        words = folder / "new" / "lyrics" / f"{song.id}.txt"
        prediction = predict(run, [audio], lyrics=words, on_progress=on_progress).predictions[0]
    return DemoReport(
        collection=str(collection),
        store=str(store),
        run=str(run),
        report=training["report"],
        extraction=extraction.to_dict(),
        training=training,
        metrics=metrics,
        new_song=str(audio),
        new_song_genres=list(song.genres),
        prediction=prediction,
        seconds=seconds,
        remarks=remarks,
    )
