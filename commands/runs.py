"""Commands about runs: evaluate, compare, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .console import emit, progress
from .model_tables import print_comparison, print_metrics
from .options import Config, GenreDelimiter, Json, OtherLabels, Quiet, RunArgument, Seed, StoreArgument, Verbose


def evaluate(
    run: RunArgument,
    store: StoreArgument,
    split: Annotated[
        Literal["train", "validation", "test", "all"], typer.Option(help="Which tracks of the run; all: every track.")
    ] = "test",
    labels: OtherLabels = None,
    genre_delimiter: GenreDelimiter = None,
    config: Config = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Score a trained model on stored tracks: every metric, and a row a genre.

    Example: [b]mgc evaluate runs/first songs.zarr[/b]
    """
    from .. import api

    with progress(quiet or as_json) as steps:
        metrics = api.evaluate(
            run, store, split=split, labels=labels, genre_delimiter=genre_delimiter, on_progress=steps
        ).to_dict()
    emit(as_json, metrics, lambda: print_metrics(metrics))


def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="An evaluated run.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Another.", show_default=False)],
    common: Annotated[bool, typer.Option("--common", help="Compare on the test tracks that both have.")] = False,
    replicates: Annotated[int, typer.Option(min=1, help="Bootstrap draws of artists.")] = 1000,
    seed: Seed = 0,
    config: Config = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Paired differences of two runs on their test tracks, with 95 % intervals over artists.

    Example: [b]mgc compare runs/audio runs/both[/b]
    """
    from .. import api

    result = api.compare(first, second, common=common, n_replicates=replicates, seed=seed).to_dict()
    emit(as_json, result, lambda: print_comparison(result, quiet))


def report(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...|STORE", help="A run folder, several of them, or a feature store.", show_default=False
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Page to write.",
            show_default="RUN/report.html; of several runs compare.html beside the first; STORE.report.html beside it",
        ),
    ] = None,
    audio_root: Annotated[
        Path | None,
        typer.Option(help="Folder that the store was made from: the tracks a run got most wrong can then be played."),
    ] = None,
    config: Config = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write one self-contained HTML page about a run, about several runs side by side, or about a feature store.

    Examples: [b]mgc report runs/first[/b], [b]mgc report runs/first --audio-root music[/b],
    [b]mgc report runs/audio runs/both -o page.html[/b], [b]mgc report songs.zarr[/b]
    """
    from .. import api

    with progress(quiet or as_json) as steps:
        page = api.report(*paths, output=output, audio_root=audio_root, on_progress=steps)
    emit(as_json, {"report": str(page)}, lambda: print(f"report: {page}"))
