"""The commands embed, similar and store duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..cache.messages import counted, join_names, printable
from ..cache.places import place
from ..heads.evaluation.predict_options import PredictOptions
from . import api
from .console import Terminal, print_table, to_stdout
from .options import Config, StoreArgument, print_flags, verbose_flags
from .prediction import model_flags
from .stores import store_command

if TYPE_CHECKING:
    from ..api import Embedded, Neighbours
    from ..heads.data.duplicates import DuplicateGroup

Feature = Annotated[
    str | None, typer.Option(metavar="NAME", help="Stored feature, pooled: mel, lyrics_pooled or an added feature set.")
]
MODEL = typer.Argument(metavar="RUN|STORE", help="Run; or, with --feature, a store.", parser=place, show_default=False)
INPUTS = typer.Argument(metavar="[AUDIO...|STORE]", help="For a run: songs or one store.", show_default=False)
COLLECTION = typer.Argument(
    metavar="FILE|STORE", help="File of mgc embed; or, with --feature, a store.", parser=place, show_default=False
)
QUERY = typer.Argument(metavar="[ID|AUDIO]", help="Id of a track in it, or an audio file.", show_default=False)


def embed(
    *,
    model: Annotated[Path, MODEL],
    inputs: Annotated[list[Path] | None, INPUTS] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write (.parquet).", show_default=False)],
    feature: Feature = None,
    options: Annotated[PredictOptions, model_flags],
    config: Config = None,
    terminal: Annotated[Terminal, verbose_flags],
) -> None:
    """Write one vector per track: of a trained model, or of a stored feature.

    With the audio-lyrics loss, a model also gives audio and lyrics vectors in one space.
    If only some of the songs fail, the exit code is 3.

    Examples:
      mgc embed runs/first songs.zarr -o vectors.parquet
      mgc embed runs/first music/ -o vectors.parquet
      mgc embed songs.zarr --feature mel -o mel.parquet
    """
    from ..cache.format.plan import is_store

    with terminal.progress() as steps:
        result = api.embed(model, inputs or (), options, output=output, feature=feature, on_progress=steps)
    terminal.remark(result.remarks)
    terminal.emit(result.to_dict(), lambda: _print_embedded(result))
    if result.reasons and inputs and not is_store(place(inputs[0])):
        raise typer.Exit(3)


def _print_embedded(result: Embedded) -> None:
    sizes = join_names([f"{name} ({size} values)" for name, size in result.vectors.items()])
    to_stdout(f"{result.output}: {counted(result.tracks, 'track')}; {sizes}")
    if result.reasons:
        print_table("failed, by reason", ("reason", "tracks"), result.reasons.items())


def similar(
    *,
    collection: Annotated[Path, COLLECTION],
    query: Annotated[str | None, QUERY] = None,
    text: Annotated[str | None, typer.Option(help="Lyrics as query, for a model with audio-lyrics loss.")] = None,
    run: Annotated[Path | None, typer.Option(help="Model of the file, for an audio file or --text.")] = None,
    feature: Feature = None,
    vector: Annotated[
        str | None, typer.Option(help="fused, audio, lyrics or pooled.", show_default="first; audio with --text")
    ] = None,
    options: Annotated[PredictOptions, model_flags],
    top: Annotated[int, typer.Option(min=1, help="Tracks to print.")] = 10,
    config: Config = None,
    terminal: Annotated[Terminal, verbose_flags],
) -> None:
    """Find the most similar tracks, by cosine similarity and exact search.

    Values are standardised over the collection, except in the space of the audio-lyrics loss.

    Examples:
      mgc similar vectors.parquet song01.mp3
      mgc similar vectors.parquet new.mp3 --run runs/first
      mgc similar vectors.parquet --text "rain on the harbour" --run runs/first
      mgc similar songs.zarr song01.mp3 --feature mel
    """
    with terminal.progress() as steps:
        result = api.similar(
            collection, query, options, text=text, run=run, feature=feature, vector=vector, top=top, on_progress=steps
        )
    terminal.remark(result.remarks)
    terminal.emit(result.to_dict(), lambda: _print_similar(result))


def _print_similar(result: Neighbours) -> None:
    to_stdout(f"{printable(result.query)}: nearest of {counted(result.tracks, 'track')} by {result.vector} vectors")
    rows = [(row["id"], f"{row['similarity']:.4f}", join_names(row["genres"])) for row in result.results]
    print_table("", ("id", "similarity", "genres"), rows)


@store_command
def store_duplicates(
    *,
    store: StoreArgument,
    near: Annotated[bool, typer.Option("--near", help="Compare spectrograms too, to find copies.")] = False,
    threshold: Annotated[float, typer.Option(min=0.5, max=1, help="Least similarity of copies with --near.")] = 0.92,
    terminal: Annotated[Terminal, print_flags],
) -> None:
    """List tracks that are one recording: with equal audio files, or nearly equal clips.

    Such tracks make test scores too high if they are in the training and the test split.
    --near finds copies in another codec or at another level, if they start at the same place.

    Examples:
      mgc store duplicates songs.zarr
      mgc store duplicates songs.zarr --near
    """
    with terminal.progress() as steps:
        groups = api.store_duplicates(store, near=near, threshold=threshold, on_progress=steps)
    document = {"store": str(store), "near": near, "groups": [group.to_dict() for group in groups]}
    document |= {"threshold": threshold} if near else {}
    terminal.emit(document, lambda: _print_duplicates(groups))


def _print_duplicates(groups: Sequence[DuplicateGroup]) -> None:
    n_tracks = sum(len(group.ids) for group in groups)
    to_stdout(f"{counted(len(groups), 'recording')} under several ids, {counted(n_tracks, 'track')}")
    if groups:
        rows = [
            (join_names(group.ids), "yes" if group.equal_files else "no", f"{group.similarity:.4f}") for group in groups
        ]
        print_table("", ("tracks", "equal files", "similarity"), rows)
