"""The command line: parse, call one library function, print, exit. Commands import heavy packages only when they run.

Exit codes: 0 done; 1 a bug of mgc; 2 refused (bad input); 3 finished, but more tracks failed than allowed (`predict`
allows none); 4 damage found; 128 + the number of a signal (130 interrupted, 143 terminated, 141 output closed).
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from . import __version__
from .cache.messages import counted
from .commands import ablation, api, cluster, extraction, prediction, runs, signals, stores, training, vectors
from .commands.console import Terminal, to_stderr, to_stdout
from .commands.failures import explain
from .commands.options import Seed, takes_flags, verbose_flags
from .commands.usage import PlainErrors

if TYPE_CHECKING:
    from .api import DemoReport


app = typer.Typer(
    name="mgc",
    cls=PlainErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Multi-label music genre classification from audio and lyrics.\n\n"
    "[b]mgc extract[/b] computes a feature store from a collection.\n"
    "[b]mgc train[/b] trains a model on the store.\n"
    "[b]mgc predict[/b] predicts the genres of new songs.\n"
    "Start with [b]mgc demo[/b].",
)


@app.command()
@takes_flags
def demo(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Output folder.")] = Path("demo"),
    songs: Annotated[
        int | None,
        typer.Option(min=40, help="Number of generated songs.", show_default="240; 160 where the CPU lacks bf16"),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Training epochs.", show_default="15")] = None,
    seed: Seed = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Delete an earlier demo in the folder and start again.")
    ] = False,
    terminal: Annotated[Terminal, verbose_flags],
) -> None:
    """Run every step on a generated demo collection: extract, train, evaluate, predict, report.

    The same command continues an interrupted demo. For a finished demo, it only prints the result again.

    Example:
      mgc demo -o demo
    """
    with terminal.progress() as steps:
        report = api.demo(output, n_songs=songs, epochs=epochs, seed=seed, force=force, on_progress=steps)
    terminal.emit(report.to_dict(), lambda: _print_demo(report))


for command in (
    extraction.manifest,
    extraction.plan,
    extraction.extract,
    cluster.cluster,
    extraction.extractors,
    training.train,
    runs.evaluate,
    runs.compare,
    ablation.ablate,
    prediction.predict,
    prediction.explain,
    prediction.tag,
    vectors.embed,
    vectors.similar,
    runs.report,
):
    app.command()(takes_flags(command))
app.add_typer(stores.store_app, name="store")


def _print_version(requested: bool) -> None:
    if requested:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> NoReturn:
    """Entry point of the ``mgc`` command."""
    _in_utf8_mode()
    _open_missing_streams()
    signals.install()
    status = _run()
    try:
        sys.stdout.flush()
    except OSError as error:
        status = 128 + signal.SIGPIPE if isinstance(error, BrokenPipeError) else _fail(error)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that Python does not retry at exit
    sys.exit(status)


def _open_missing_streams() -> None:
    """Open standard streams that the caller closed (``>&-``).

    Otherwise the next file that is opened takes their number, and receives what libraries print.
    """
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(handle, True)
    os.close(handle)
    for handle, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(handle, "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def _run() -> int:
    try:
        app()
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # from typer; the reader of the output has ended
            return 128 + signal.SIGPIPE
        code = end.code
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    except Exception as error:
        code = _fail(error)
    return signals.exit_status() or (code if isinstance(code, int) else 0)


_BUG = "this is a bug of mgc, not of your input. Please report it with the lines above."


def _fail(error: Exception) -> int:
    """Report an error; return the exit status."""
    if signals.exit_status() is not None:  # an interrupted library raised it
        return 2
    line = explain(error)
    with contextlib.suppress(OSError):  # standard error may be closed, too
        if line is None:
            to_stderr(traceback.format_exc())
        to_stderr(f"error: {line or _BUG}")
    return 1 if line is None else 2


def _in_utf8_mode() -> None:
    """Restart in UTF-8 mode where the locale gives file names another encoding."""
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        arguments = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, arguments, {**os.environ, "PYTHONUTF8": "1"})  # noqa: S606
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # PYTHONIOENCODING may ask for another encoding


def _print_demo(report: DemoReport) -> None:
    metrics, baselines = report.metrics["metrics"], report.metrics["baselines"]
    model, majority = (values["columns"]["fixed"]["jaccard"]["value"] for values in (metrics, baselines["majority"]))
    training = report.training
    for remark in report.remarks:
        to_stdout(remark)
    to_stdout(
        f"{counted(report.extraction['planned'], 'generated song')}, {counted(len(training['genres']), 'genre')}; "
        f"test split: {counted(metrics['n_tracks'], 'song')} by unseen artists"
    )
    epochs = counted(training["epochs"], "epoch")
    to_stdout(f"{epochs}, learning rate {training['learning_rate']:g}")
    to_stdout(
        f"test Jaccard index {model:.3f}, threshold 0.5 (the paper's); majority baseline {majority:.3f}; "
        f"ratio {model / majority:.2f}"
    )
    to_stdout(f"new song with the genres {', '.join(report.new_song_genres)}; {'; '.join(report.prediction_remarks)}:")
    prediction.print_predictions([report.prediction], 5)
    to_stdout("seconds: " + ", ".join(f"{step} {seconds:g}" for step, seconds in report.seconds.items()))
    to_stdout(f"report: {report.report}")
