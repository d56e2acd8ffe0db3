"""Vectors of songs and of stored tracks, and search for similar tracks."""

from __future__ import annotations

import dataclasses
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from ..cache.errors import ConfigError, RunError
from ..cache.format.plan import is_store
from ..cache.format.schema import OK
from ..cache.messages import did_you_mean
from ..cache.names import match_names
from ..cache.places import place
from ..cache.reading.store import FeatureStore
from ..cache.steps import Progress, silent, within
from ..heads.data.vectors import (
    NAMES,
    SHARED,
    Float32,
    Vectors,
    pooled_vectors,
    read_vectors,
    refuse_other_vectors,
    write_vectors,
)
from ..heads.evaluation.predict_options import PredictOptions
from ..heads.metrics.nearest import Cosine
from ..heads.runs.documents import find_model
from .prediction import load, read_inputs
from .runs import open_for
from .shared import extra, model_folder, with_changes
from .song_features import extracted, extracted_like

if TYPE_CHECKING:
    from ..heads.runs.published_model import LoadedModel

BLOCK_TRACKS = 1024


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """A file of vectors that was written.

    Attributes
    ----------
    vectors : name -> number of values.
    tracks : rows of the file.
    reasons : number of tracks without features, by reason code.
    """

    output: str
    vectors: Mapping[str, int]
    tracks: int
    reasons: Mapping[str, int]
    remarks: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "failed": sum(self.reasons.values())}


def embed(
    model: Path,
    inputs: Sequence[Path] = (),
    options: PredictOptions | None = None,
    *,
    output: Path,
    feature: str | None = None,
    on_progress: Progress = silent,
    **changes: Any,
) -> Embedded:
    """Write one vector per track, of a trained model or of a stored feature (:mod:`mgc.heads.data.vectors`).

    Parameters
    ----------
    model : a run folder, or its ``best/``; with `feature`, a feature store.
    inputs : audio files and folders of them, or one feature store; none with `feature`.
    options : workers, text encoder and audio encoder, for songs.
    output : the .parquet file.
    feature : ``mel``, ``lyrics_pooled`` or an added feature set of the store.

    Raises
    ------
    ConfigError, RunError, RecipeMismatchError, StoreError
    """
    options, model = with_changes(options or PredictOptions(), changes), model_folder(model)
    refuse_other_vectors(output)
    if is_store(place(model)) != (feature is not None) or bool(inputs) != (feature is None):
        raise ConfigError("give a run and then songs or one store, or a single store and --feature NAME.")
    if feature is not None:
        with FeatureStore.open(model) as store:
            n_tracks, sizes = write_vectors(output, pooled_vectors(store, feature, on_progress))
            reasons = _failures(store.requiring([feature] if feature in store.extractors else []))
            notes: Sequence[str | None] = [store.pending_note]
    else:
        with _features(model, inputs, options, on_progress) as (loaded, store, notes):
            n_tracks, sizes = write_vectors(output, _model_vectors(model, loaded, store, on_progress))
            reasons = _failures(store)
    remarks = [note for note in notes if note]
    return Embedded(output=str(output), vectors=sizes, tracks=n_tracks, reasons=reasons, remarks=remarks)


@contextmanager
def _features(
    run: Path, inputs: Sequence[Path], options: PredictOptions, on_progress: Progress
) -> Iterator[tuple[LoadedModel, FeatureStore, Sequence[str | None]]]:
    """Yield a model, the features of stored tracks or of songs, and remarks."""
    find_model(run)  # refused before torch is imported
    songs, loaded = read_inputs(inputs, options, on_progress=on_progress), load(run)
    if isinstance(songs, Path):
        with open_for(loaded, songs) as store:
            yield loaded, store, [store.pending_note]
    else:
        with extracted(songs, loaded, options, on_progress) as store:
            yield loaded, store, songs.notes


def _failures(store: FeatureStore) -> dict[str, int]:
    tracks = store.newest_tracks(["status", "reason"])
    reasons = tracks.filter(pc.not_equal(tracks.column("status"), OK)).column("reason").to_pylist()
    return dict(Counter(reason or "PENDING" for reason in reasons).most_common())


def _about(run: Path) -> dict[str, str]:
    from ..heads.runs.published_model import weights_sha256

    sha256 = weights_sha256(find_model(run))
    if sha256 is None:
        raise RunError(f"{run}: files of the model are missing or altered. Restore them from a copy.")
    return {"model": sha256}


def _model_vectors(run: Path, loaded: LoadedModel, store: FeatureStore, on_progress: Progress) -> Iterator[Vectors]:
    from ..heads.evaluation.predict import score_store, tracks_with_lyrics

    rows, about = store.ok_rows, _about(run)
    if not len(rows):
        reasons = ", ".join(f"{reason} {n}" for reason, n in _failures(store).items())
        raise ConfigError(f"no track with features, so there is nothing to embed (failed: {reasons or 'none'}).")
    for start in range(0, len(rows), BLOCK_TRACKS):
        block = rows[start : start + BLOCK_TRACKS]
        progress = within(on_progress, before=start, total=len(rows))
        outputs = score_store(loaded, store, block, on_progress=progress).outputs
        assert outputs.fused is not None
        values = {"fused": outputs.fused}
        if outputs.audio_embedding is not None and outputs.lyrics_embedding is not None:
            has_lyrics = tracks_with_lyrics(store, block)[:, None]
            lyrics = np.where(has_lyrics, outputs.lyrics_embedding, np.float32(np.nan))
            values |= {"audio": outputs.audio_embedding, "lyrics": lyrics}
        yield Vectors.of(store, block, values, about)


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """Tracks nearest to a query, nearest first.

    Attributes
    ----------
    query : id, path or text.
    vector : name of the compared vectors.
    tracks : number of tracks that were compared.
    standardised : whether values were standardised over the collection before the cosine.
    results : id, similarity (cosine, -1 to 1) and genres of each.
    remarks : such as a song without lyrics.
    """

    query: str
    vector: str
    tracks: int
    standardised: bool
    results: Sequence[Mapping[str, Any]]
    remarks: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def similar(
    collection: Path,
    query: str | None = None,
    options: PredictOptions | None = None,
    *,
    text: str | None = None,
    run: Path | None = None,
    feature: str | None = None,
    vector: str | None = None,
    top: int = 10,
    on_progress: Progress = silent,
    **changes: Any,
) -> Neighbours:
    """Find the tracks that are nearest to a track, a song or a text, by cosine similarity and exact search.

    Parameters
    ----------
    collection : a file of :func:`embed`, or a feature store with `feature`.
    query : id of a track of the collection, or else an audio file.
    text : lyrics in place of `query`, compared in the space of the audio-lyrics loss.
    run : the model that computed the file, for an audio file or a text.
    vector : one of the vectors in the file; default: the first of them, and ``audio`` for a text.

    Raises
    ------
    ConfigError, RunError, StoreError

    Notes
    -----
    Vectors of the space of the audio-lyrics loss are compared as they are, others standardised over the collection.
    """
    options, collection = with_changes(options or PredictOptions(), changes), place(collection)
    run = None if run is None else model_folder(run)
    if (query is None) == (text is None):
        raise ConfigError("give one query: an id, an audio file, or a text with --text.")
    if vector is not None and vector not in NAMES:
        raise ConfigError(f"--vector {vector}: unknown; {did_you_mean(vector, NAMES)}")
    if is_store(collection) != (feature is not None):
        raise ConfigError(
            f"{collection}: a store needs --feature NAME, and a file of vectors has none. To search a store with a "
            "model, run `mgc embed RUN STORE -o FILE` first."
        )
    if feature is None:
        name, vectors = read_vectors(collection, vector or ("audio" if text is not None else None))
    else:
        with tempfile.TemporaryDirectory(prefix="mgc-") as scratch:
            path = Path(scratch) / "vectors.parquet"
            embed(collection, output=path, feature=feature, on_progress=on_progress)
            name, vectors = read_vectors(path, vector)
    ids, values = vectors.tracks.column("id").to_pylist(), vectors.values[name]
    match = match_names([query], ids).get(query) if query is not None else None
    position = None if match is None else ids.index(match)
    remarks: list[str] = []
    if position is not None:
        wanted = values[position].copy()
    elif text is not None:
        wanted = _text_vector(_own_model(vectors, run), text, name, options)
    elif Path(str(query)).is_file():
        store = None if feature is None else collection
        wanted, remarks = _song_vector(Path(str(query)), vectors, name, store, run, options, on_progress)
    else:
        raise ConfigError(f"{query}: neither an id in {collection} nor an audio file; {did_you_mean(query, ids, 3)}")
    if len(wanted) != values.shape[1]:
        raise ConfigError(f"{collection}: vectors of {values.shape[1]} values, but the query has {len(wanted)}.")
    index, similarity = Cosine(values, standardise=name not in SHARED).nearest(wanted, top + (position is not None))
    genres = vectors.tracks.column("genres").take(index).to_pylist()
    results = [
        {"id": ids[i], "similarity": round(value, 6), "genres": names}
        for i, value, names in zip(index.tolist(), similarity.tolist(), genres, strict=True)
        if i != position
    ]
    return Neighbours(
        query=str(text if query is None else query),
        vector=name,
        tracks=len(ids),
        standardised=name not in SHARED,
        results=results[:top],
        remarks=remarks,
    )


def _own_model(vectors: Vectors, run: Path | None) -> LoadedModel:
    """Return the model that computed the vectors; refuse another."""
    if "model" not in vectors.about:
        raise ConfigError(
            "the vectors are of a stored feature: only an id, or an audio file with a store, can be asked."
        )
    if run is None:
        raise ConfigError("an audio file or a text needs the model of the vectors. Give it with --run RUN.")
    if _about(run)["model"] != vectors.about["model"]:
        raise ConfigError(f"--run {run}: not the model that computed the vectors. Use that, or embed again.")
    return load(run)


def _text_vector(loaded: LoadedModel, text: str, name: str, options: PredictOptions) -> Float32:
    """Return the projection of a text into the space of the audio-lyrics loss, (P,)."""
    with extra("extract"):
        from ..pipeline.text.encoder import TextSource, load_encoder
        from ..pipeline.text.lyrics import clean_lyrics
    from ..heads.evaluation.predict import project_lyrics

    recipe = loaded.recipe.lyrics
    if recipe is None or name not in SHARED:
        raise ConfigError(
            "--text: compares with the vectors audio or lyrics of a model with lyrics. Use --vector audio."
        )
    cleaned, _ = clean_lyrics(text, recipe.cleaning)
    if not cleaned.strip():
        raise ConfigError("--text: no text is left after cleaning. Give some words.")
    source = TextSource(model=options.text_model, device=options.text_device, emulates=True)
    encoded = load_encoder(source, recipe).encode(cleaned)
    return project_lyrics(loaded, encoded.pooled, encoded.states[0])


def _song_vector(
    song: Path,
    vectors: Vectors,
    name: str,
    store: Path | None,
    run: Path | None,
    options: PredictOptions,
    on_progress: Progress,
) -> tuple[Float32, list[str]]:
    """Return the vector of an audio file, by the model of the vectors or like the features of a store; and remarks."""
    remarks = []
    if store is None:
        loaded = _own_model(vectors, run)
        assert run is not None
        with _features(run, [song], options, on_progress) as (_, features, _):
            block = next(_model_vectors(run, loaded, features, silent))
            has_lyrics = bool(features.read("lyrics_tokens", features.ok_rows)[0]) if features.recipe.lyrics else False
            if name == "fused" and loaded.model.config.modalities == "both" and not has_lyrics:
                remarks.append(f"{song}: no lyrics, so its fused vector is from audio only.")
    else:
        songs, feature = read_inputs([song], options, on_progress=on_progress), vectors.about["feature"]
        assert not isinstance(songs, Path)
        with FeatureStore.open(store) as opened:
            recipe, added = opened.recipe, {n: r for n, r in opened.extractors.items() if n == feature}
        with extracted_like(songs, store, recipe, added, options, on_progress) as features:
            block = next(pooled_vectors(features, feature, silent))
    vector: Float32 = block.values[name][0]
    if np.isnan(vector).any():
        raise ConfigError(f"{song}: no lyrics, so it has no vector {name!r}. Use --vector fused or audio.")
    return vector, remarks
