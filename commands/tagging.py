"""The command `mgc tag`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..cache.messages import counted
from . import api
from .console import Listing, Terminal, to_stderr
from .options import Config, verbose_flags
from .runs import print_predicted


def tag(
    *,
    inputs: Annotated[
        list[Path], typer.Argument(metavar="AUDIO...", help="Audio files and folders.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write (.parquet, .csv, .jsonl), one row per track."),
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Probability from which a tag counts as predicted.")
    ] = 0.1,
    top: Annotated[int, typer.Option(min=1, help="Tags to print per song.")] = 5,
    listing: Annotated[Listing, typer.Option("--format", help="Format of the list.")] = Listing.TABLE,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Decoding processes.", show_default="one per core from 32 songs on, else 0"),
    ] = None,
    config: Config = None,
    terminal: Annotated[Terminal, verbose_flags],
) -> None:
    """Tag songs with a pretrained network, without training.

    The network is musicnn. Install its weights with pip install --no-deps musicnn==0.1.0.
    If only some of the songs fail, the exit code is 3.

    Examples:
      mgc tag song.mp3
      mgc tag music/ -o tags.csv
    """
    with terminal.progress() as steps:
        result = api.tag(inputs, threshold=threshold, output=output, workers=workers, on_progress=steps)
    terminal.remark(result.remarks)
    terminal.emit(result.to_dict(), lambda: print_predicted(result, listing, top))
    if result.n_failed == result.n_tracks:
        raise typer.Exit(2)
    if result.n_failed:
        to_stderr(f"{result.n_failed} of {counted(result.n_tracks, 'song')} could not be read")
        raise typer.Exit(3)
