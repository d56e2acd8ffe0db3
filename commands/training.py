"""Command that trains on a store: train."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..cache.messages import counted, duration, size
from ..heads.metrics.phrases import tuned_on
from . import api
from .console import Terminal, number, to_stderr, to_stdout
from .options import Config, GenreDelimiter, MergeGenres, OtherLabels, StoreArgument, verbose_flags
from .signals import stopping_gently


def label_flags(
    text: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Added feature set with text features (`mgc extract --add NAME`)."),
    ] = None,
    labels: OtherLabels = None,
    genre_delimiter: GenreDelimiter = None,
    merge_genres: MergeGenres = None,
) -> dict[str, Any]:
    return locals()


def learning_flags(
    preset: Annotated[
        Literal["default", "paper", "paper-tuned"] | None,
        typer.Option(
            help="Preset: paper (close to the paper), paper-tuned (same modules, tuned), or default.",
            show_default="default",
        ),
    ] = None,
    split: Annotated[
        Literal["auto", "manifest", "artist", "stratified", "random"] | None,
        typer.Option(
            help="Split policy; 70/10/20 % training, validation, test unless manifest.",
            show_default="auto; random with --preset paper",
        ),
    ] = None,
    genres_file: Annotated[Path | None, typer.Option(help="File with the genres to learn, one per line.")] = None,
    top_genres: Annotated[
        int | None, typer.Option(min=1, help="Learn the N genres with the most training tracks.", show_default="all")
    ] = None,
    min_genre_count: Annotated[
        int | None, typer.Option(min=0, help="Learn genres with at least N training tracks.", show_default="1")
    ] = None,
    min_labels: Annotated[
        int | None, typer.Option(min=1, help="Use tracks with at least N learned genres.", show_default="1")
    ] = None,
    audio: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Audio input: mel, added feature sets, or several with commas.",
            show_default="mel",
        ),
    ] = None,
    encoder: Annotated[
        Literal["base", "lite", "tiny"] | None, typer.Option(help="Size of the audio CNN.", show_default="base")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Number of epochs.", show_default="by number of tracks; 100 with --preset paper"),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Tracks per step.", show_default="16")] = None,
    lr: Annotated[
        float | None,
        typer.Option(min=0, help="Learning rate.", show_default="by number of steps; 0.0001 with --preset paper"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Further training option (see `mgc train --help`); repeatable."
        ),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Training device.", show_default="auto")
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"] | None,
        typer.Option(help="Precision; auto: bf16 where native.", show_default="auto"),
    ] = None,
) -> dict[str, Any]:
    """Return the preset, options and settings of :func:`mgc.api.train`."""
    flags = locals()
    arguments = {name: flags.pop(name) for name in ("preset", "genres_file", "settings")}
    return arguments | {"options": without_none(flags), "settings": settings or ()}


def without_none(options: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out options that were not given: the preset or the code has their defaults."""
    return {name: value for name, value in options.items() if value is not None}


SYSTEMS = ("ru2023", "santana", "pandeya")


def system_name(text: str) -> str:
    """Return the name of a system; ``ours``, its name in 0.1, stands for ``ru2023``."""
    if text != "ours" and text not in SYSTEMS:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(map(repr, SYSTEMS))}.")
    return text


def train(
    *,
    store: StoreArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Run folder to create or continue.", show_default=False)
    ],
    model: Annotated[
        str | None,
        typer.Option(
            parser=system_name,
            metavar="<ru2023|santana|pandeya>",
            help="The paper's model, or one of its two baselines (reconstructed).",
            show_default="ru2023",
            autocompletion=lambda incomplete: [name for name in SYSTEMS if name.startswith(incomplete)],
        ),
    ] = None,
    labelled: Annotated[dict[str, Any], label_flags],
    learning: Annotated[dict[str, Any], learning_flags],
    modalities: Annotated[
        Literal["both", "audio", "lyrics"] | None, typer.Option(help="Modalities of the input.", show_default="both")
    ] = None,
    head: Annotated[
        Literal["graph", "linear", "query"] | None,
        typer.Option(
            help="Classifier: genre graph, linear layer, or one query per genre.",
            show_default="linear; graph with --preset paper or paper-tuned",
        ),
    ] = None,
    no_contrastive: Annotated[
        bool, typer.Option("--no-contrastive", help="Train without the audio-lyrics loss.")
    ] = False,
    no_attention: Annotated[bool, typer.Option("--no-attention", help="Train without cross-modal attention.")] = False,
    no_graph: Annotated[bool, typer.Option("--no-graph", hidden=True)] = False,
    lambda_: Annotated[
        float | None,
        typer.Option(
            "--lambda",
            min=0,
            max=1,
            help="Weight of the audio-lyrics loss (Eq. 7).",
            show_default="0.05; 0.3 with --preset paper",
        ),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after N epochs without a better validation mAP.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed.", show_default="0")] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Use only deterministic operations (bit-identical results).")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted run, or train more epochs.")
    ] = False,
    save_every: Annotated[
        float | None,
        typer.Option(min=0, help="Minutes between checkpoints within an epoch.", show_default="10"),
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write events for TensorBoard.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Preview the run and time a few steps; write nothing.")
    ] = False,
    config: Config = None,
    terminal: Annotated[Terminal, verbose_flags],
) -> None:
    """Train a model on a feature store.

    Ctrl-C and SIGTERM save the run and end it within 10 s.
    [b]--resume[/b] continues it.

    Examples:
      mgc train songs.zarr -o runs/first
      mgc train songs.zarr -o runs/embeddings --audio musicnn
      mgc train m4a.zarr -o runs/paper --preset paper
      mgc train songs.zarr -o runs/raw --set graph_similarity=raw --set heads=1

    Options of --set; the first value is that of preset paper (docs/model.md):

    [b]model[/b]
      heads=4, width=256, dropout=0.1, ffn=false, uniform_attention=false,
      lyrics_pooling=mean|cls, graph_conditional=rhs|lhs,
      graph_similarity=centred|raw, graph_threshold=0.4, graph_reweight=0.25,
      graph_normalisation=symmetric|row|reweighted|ml-gcn, graph_hidden=1024,
      logit_scale=false, bias=true, normalise=true, projection_dim=256,
      tau_init=0.07, tau_scale=linear|log, mel_reference=one|max,
      mel_top_db=null

    [b]training[/b]
      loss=bce|asymmetric, bce_reduction=mean|sum, lambda_warmup_epochs=0,
      prior_bias=false, modality_dropout=0, spec_augment=false,
      optimizer=adam|adamw, schedule=halving|cosine, lr_halve_every=50,
      warmup_epochs=0, weight_decay=0, grad_clip=1, split_seed=0,
      placement=auto|device|host|mapped, compile=null
    """
    more = {"model": model, "modalities": modalities, "lambda_": lambda_, "patience": patience, "seed": seed}
    more |= {"contrastive": False if no_contrastive else None, "attention": False if no_attention else None}
    chosen = {"head": "linear" if no_graph else head, "deterministic": deterministic or None}
    learning["options"] |= without_none({**more, **chosen})
    if dry_run:
        with terminal.progress() as steps:
            forecast = api.train_dry_run(store, output, **labelled, **learning, on_progress=steps).to_dict()
        terminal.emit(forecast, lambda: print_dry_run(forecast))
        return
    shown: set[str] = set()

    def warn(warning: str) -> None:
        shown.add(f"warning: {warning}")
        to_stderr(f"warning: {warning}")

    with stopping_gently() as stop, terminal.progress() as steps:
        result = api.train(
            store,
            output,
            **labelled,
            **learning,
            resume=resume,
            save_every_s=None if save_every is None else 60 * save_every,
            tensorboard=tensorboard,
            stop=stop,
            on_warning=warn,
            on_progress=steps,
        ).to_dict()
    terminal.emit(result, lambda: print_training(result, shown))


def print_dry_run(result: Mapping[str, Any]) -> None:
    for line in result["kept"]:
        to_stdout(line)
    sizes = ", ".join(f"{name} {count}" for name, count in result["split"].items() if name != "policy")
    to_stdout(f"split {result['split']['policy']}: {sizes}; {counted(len(result['genres']), 'genre')}")
    for warning in result["warnings"]:
        to_stdout(f"warning: {warning}")
    to_stdout(f"features kept in: {result['features']}")
    to_stdout(
        f"{result['n_parameters']:,} parameters; {size(result['checkpoint_bytes'])} per checkpoint, up to 3 checkpoints"
    )
    to_stdout(
        f"batch size {result['batch_size']}, {counted(result['steps_per_epoch'], 'step')} per epoch, "
        f"{result['device']}, {result['precision']}"
    )
    to_stdout(
        f"about {result['seconds_per_epoch']:.1f} s per epoch (from {counted(result['timed_steps'], 'step')}), "
        f"{counted(result['epochs'], 'epoch')} in {duration(result['epochs'] * result['seconds_per_epoch'])}; "
        f"{result['seconds_to_read']:.1f} s to read the features"
    )
    if result["run_exists"]:
        to_stdout(f"{result['run']} holds a run already. Continue it with --resume, or give another folder.")
    to_stdout("nothing was written")


def print_training(result: Mapping[str, Any], shown: Collection[str]) -> None:
    """Print the result of a training without the warnings `shown` before it; new warnings go to stderr, as those."""
    if result["nothing_to_do"]:
        to_stdout(result["nothing_to_do"])
        if result["report"]:
            to_stdout(f"report: {result['report']}")
        return
    for line in result["remarks"]:
        if line not in shown:
            (to_stderr if line.startswith("warning: ") else to_stdout)(line)
    best = result["best_validation_map"]
    kept = (
        f"best epoch {result['best_epoch']} of {result['epochs']}, validation mAP {number(best, missing='undefined')}"
    )
    if not result["threshold_tuned_on"]:
        kept = f"epoch {result['best_epoch']} of {result['epochs']} (the last, as there is no validation track)"
    to_stdout(
        f"{kept}, loss {number(result['first_loss'])} -> {number(result['last_loss'])}, "
        f"{duration(result['seconds'])} on {result['device']}, {result['precision']}"
    )
    to_stdout(
        f"learning rate {result['learning_rate']:g}, threshold {result['threshold']:.3f} "
        f"({tuned_on(result['threshold_tuned_on'])})"
    )
    if result["report"]:
        to_stdout(f"report: {result['report']}")
    to_stdout(f"next: mgc evaluate {result['run']} {result['store']}")
