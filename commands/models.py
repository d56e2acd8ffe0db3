"""Commands that learn from a store and use what was learnt: train, evaluate, compare, ablate, predict, report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..cache.errors import ConfigError
from .console import Listing, emit, print_list, progress, remark, split_names, stopping_gently
from .model_tables import (
    print_ablation,
    print_comparison,
    print_dry_run,
    print_metrics,
    print_planned_runs,
    print_predictions,
    print_training,
    print_written,
)
from .options import (
    Config,
    GenreDelimiter,
    Json,
    OtherLabels,
    Quiet,
    RunArgument,
    Seed,
    StoreArgument,
    TextDevice,
    Verbose,
    parse_shard,
)


def train(
    store: StoreArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The run folder.", show_default=False)],
    preset: Annotated[
        Literal["paper", "plus"] | None,
        typer.Option(help="paper: the paper's random split too; plus: four additions to it, see docs/model.md."),
    ] = None,
    model: Annotated[
        Literal["ours", "santana", "pandeya"] | None,
        typer.Option(
            help="santana (sound alone), pandeya (sound and words joined): the paper's baselines, reconstructed.",
            show_default="ours",
        ),
    ] = None,
    split: Annotated[
        Literal["auto", "manifest", "artist", "stratified", "random"] | None,
        typer.Option(help="How tracks are divided 70/10/20.", show_default="auto; random with --preset paper"),
    ] = None,
    text: Annotated[str | None, typer.Option(metavar="NAME", help="Text features that joined with --add NAME.")] = None,
    labels: OtherLabels = None,
    genre_delimiter: GenreDelimiter = None,
    genres_file: Annotated[Path | None, typer.Option(help="Genres to learn, one a line.")] = None,
    top_genres: Annotated[int | None, typer.Option(min=1, help="Learn the N most frequent genres.")] = None,
    min_genre_count: Annotated[int | None, typer.Option(min=0, help="Learn genres with at least N tracks.")] = None,
    min_labels: Annotated[int | None, typer.Option(min=1, help="Use tracks with N or more kept genres.")] = None,
    encoder: Annotated[Literal["base", "lite", "tiny"] | None, typer.Option(help="Size of the audio CNN.")] = None,
    modalities: Annotated[
        Literal["both", "audio", "lyrics"] | None, typer.Option(help="Learn from both parts or from one.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any further option, listed above; as often as needed."),
    ] = None,
    no_contrastive: Annotated[bool, typer.Option("--no-contrastive", help="Without the audio-lyrics loss.")] = False,
    no_attention: Annotated[bool, typer.Option("--no-attention", help="Without cross-modal attention.")] = False,
    no_graph: Annotated[bool, typer.Option("--no-graph", help="Without the genre graph.")] = False,
    lambda_: Annotated[
        float | None, typer.Option("--lambda", min=0, max=1, help="Weight of the audio-lyrics loss (Eq. 7).")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs.", show_default="100")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Tracks a step.", show_default="16")] = None,
    lr: Annotated[float | None, typer.Option(min=0, help="Learning rate of Adam.", show_default="1e-4")] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after N epochs without a better validation mAP.")
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to train.")] = "auto",
    precision: Annotated[Literal["auto", "fp32", "bf16"], typer.Option(help="auto: bf16 where it is native.")] = "auto",
    seed: Seed = 0,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Only operations that give the same bits every time.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run that is there.")] = False,
    save_every: Annotated[
        float | None,
        typer.Option(min=0, help="Minutes between checkpoints inside an epoch; its end is one.", show_default="10"),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write events.* for TensorBoard into the run folder too.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what it would be, time a few steps, write nothing.")
    ] = False,
    config: Config = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Learn genres from a feature store.

    SIGTERM and Ctrl-C save where the run is before they end it, within 10 s; [b]--resume[/b] goes on from there.

    Examples: [b]mgc train songs.zarr -o runs/first[/b], [b]mgc train m4a.zarr -o runs/paper --preset paper[/b],
    [b]mgc train songs.zarr -o runs/raw --set graph_similarity=raw --set heads=1[/b]

    --set takes (first the default; docs/model.md explains each)

    [b]model[/b]: heads=4, width=256, dropout=0.1, ffn=false, uniform_attention=false, lyrics_pooling=mean|cls,
    graph_conditional=rhs|lhs, graph_similarity=centred|raw, graph_normalisation=symmetric|row|ml-gcn,
    graph_threshold=0.4, graph_reweight=0.25, graph_hidden=1024, logit_scale=false, bias=true, normalise=true,
    projection_dim=256, tau_init=0.07, mel_reference=one|max, mel_top_db=null

    [b]training[/b]: loss=bce|asymmetric, bce_reduction=mean|sum, prior_bias=false, modality_dropout=0,
    spec_augment=false, optimizer=adam|adamw, schedule=halving|cosine, lr_halve_every=50, warmup_epochs=0,
    weight_decay=0, grad_clip=1, split_seed=0, home=auto|device|host|mapped
    """
    from .. import api

    asked = {
        "model": model, "split": split, "top_genres": top_genres, "min_genre_count": min_genre_count,
        "min_labels": min_labels, "encoder": encoder, "modalities": modalities, "lambda_": lambda_, "epochs": epochs,
        "batch_size": batch_size, "lr": lr, "patience": patience, "device": device, "precision": precision,
        "seed": seed, "contrastive": not no_contrastive, "attention": not no_attention, "graph": not no_graph,
        "deterministic": deterministic,
    }  # fmt: skip
    options = {name: value for name, value in asked.items() if value is not None}
    if dry_run:
        with progress(quiet or as_json) as steps:
            found = api.train_dry_run(
                store, output, preset=preset, genres_file=genres_file, labels=labels,
                genre_delimiter=genre_delimiter, text=text, options=options, settings=settings or (), on_progress=steps,
            )  # fmt: skip
        emit(as_json, found, lambda: print_dry_run(found))
        return
    with stopping_gently() as stop, progress(quiet or as_json) as steps:
        result = api.train(
            store,
            output,
            preset=preset,
            genres_file=genres_file,
            labels=labels,
            genre_delimiter=genre_delimiter,
            text=text,
            options=options,
            settings=settings or (),
            resume=resume,
            save_every_s=None if save_every is None else 60 * save_every,
            tensorboard=tensorboard,
            stop=stop,
            on_progress=steps,
        )
    emit(as_json, result, lambda: print_training(result))


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
        )
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

    result = api.compare(first, second, common=common, n_replicates=replicates, seed=seed)
    emit(as_json, result, lambda: print_comparison(result, quiet))


def ablate(
    store: StoreArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder: made, or continued.", show_default=False)],
    tables: Annotated[
        str | None,
        typer.Option(
            help="Some of systems, components, lambda, lambda-sum, plus, separated by commas.",
            show_default="all but lambda-sum",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each configuration.")] = 3,
    folds: Annotated[
        int | None, typer.Option(min=3, help="Cross-validation in N folds, pooled: for small collections.")
    ] = None,
    fold_by: Annotated[Literal["artist", "song"], typer.Option(help="What stays in one fold of --folds.")] = "artist",
    preset: Annotated[
        Literal["paper", "plus"] | None, typer.Option(help="paper: the paper's random split too.")
    ] = None,
    split: Annotated[
        Literal["auto", "manifest", "artist", "stratified", "random"] | None,
        typer.Option(help="How tracks are divided 70/10/20.", show_default="auto; random with --preset paper"),
    ] = None,
    text: Annotated[str | None, typer.Option(metavar="NAME", help="Text features that joined with --add NAME.")] = None,
    names_store: Annotated[
        Path | None,
        typer.Option(
            "--genre-names-store", metavar="STORE", help="The same tracks with other genre names read aloud: for plus."
        ),
    ] = None,
    labels: OtherLabels = None,
    genre_delimiter: GenreDelimiter = None,
    genres_file: Annotated[Path | None, typer.Option(help="Genres to learn, one a line.")] = None,
    top_genres: Annotated[int | None, typer.Option(min=1, help="Learn the N most frequent genres.")] = None,
    min_genre_count: Annotated[int | None, typer.Option(min=0, help="Learn genres with at least N tracks.")] = None,
    min_labels: Annotated[int | None, typer.Option(min=1, help="Use tracks with N or more kept genres.")] = None,
    encoder: Annotated[Literal["base", "lite", "tiny"] | None, typer.Option(help="Size of the audio CNN.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs.", show_default="100")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Tracks a step.", show_default="16")] = None,
    lr: Annotated[float | None, typer.Option(min=0, help="Learning rate.", show_default="1e-4")] = None,
    lr_halve_every: Annotated[int | None, typer.Option(min=1, help="Epochs.", show_default="50")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any further option of `mgc train`; as often as needed."),
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to train.")] = "auto",
    precision: Annotated[Literal["auto", "fp32", "bf16"], typer.Option(help="auto: bf16 where it is native.")] = "auto",
    jobs: Annotated[int, typer.Option(min=1, help="Processes; more than one have one thread each.")] = 1,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Do every n-th run only: for job arrays on one folder.")
    ] = None,
    no_train: Annotated[bool, typer.Option("--no-train", help="Only write the tables of what is finished.")] = False,
    keep_runs: Annotated[
        bool, typer.Option("--keep-runs", help="Keep models and checkpoints of finished runs.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs and estimate their time from measured epochs.")
    ] = False,
    config: Config = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """The paper's tables on your tracks, beside its published numbers; run again, it continues where it stopped.

    Examples: [b]mgc ablate m4a.zarr -o ablation --preset paper[/b],
    [b]mgc ablate songs.zarr -o small --folds 5 --encoder tiny --epochs 20[/b]
    """
    from .. import api

    asked = {
        "split": split, "top_genres": top_genres, "min_genre_count": min_genre_count, "min_labels": min_labels,
        "encoder": encoder, "epochs": epochs, "batch_size": batch_size, "lr": lr, "lr_halve_every": lr_halve_every,
        "device": device, "precision": precision,
    }  # fmt: skip
    with stopping_gently() as stop, progress(quiet or as_json) as steps:
        result = api.ablate(
            store, output, tables=None if tables is None else split_names(tables),
            n_seeds=seeds, n_folds=folds, fold_by=fold_by, preset=preset, genres_file=genres_file,
            labels=labels, genre_delimiter=genre_delimiter, text=text, names_store=names_store,
            options={name: value for name, value in asked.items() if value is not None}, settings=settings or (),
            jobs=jobs,
            shard=parse_shard(shard), training=not no_train, keep_runs=keep_runs, dry_run=dry_run,
            stop=stop, on_progress=steps,
        )  # fmt: skip
    if dry_run:
        emit(as_json, result, lambda: print_planned_runs(result))
        return
    emit(as_json, result, lambda: print_ablation(result))
    if result["failures"]:
        raise typer.Exit(3)


def predict(
    run: RunArgument,
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="AUDIO...|STORE|-",
            help="Songs, folders of songs, or one store; - reads their names from standard input, one a line.",
            show_default=False,
        ),
    ],
    lyrics: Annotated[Path | None, typer.Option(help="Lyrics of the one song given.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write .parquet, .csv or .jsonl, a row a track, instead of printing."),
    ] = None,
    threshold: Annotated[
        str, typer.Option(help="overall or per-genre (tuned on validation tracks), or a number; the paper's is 0.5.")
    ] = "overall",
    windows: Annotated[
        Literal["one", "all"],
        typer.Option(help="all: the mean over successive clips of a whole song; one: the clip that the recipe names."),
    ] = "one",
    text_model: Annotated[
        str | None, typer.Option(help="Where the model's own text encoder lies here.", show_default="found by name")
    ] = None,
    text_device: TextDevice = "cpu",
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, help="Processes that decode songs.", show_default="one a core for 32 songs or more, else 0"
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Genres printed a song.")] = 5,
    listing: Annotated[Listing, typer.Option("--format", help="Form of the list.")] = Listing.TABLE,
    config: Config = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Name the genres of songs, with the recipe that the model was trained with.

    song.txt beside song.mp3 is taken as its lyrics. Examples: [b]mgc predict runs/first song.mp3 --lyrics song.txt[/b],
    [b]mgc predict runs/first song.mp3 --windows all[/b], [b]mgc predict runs/first songs.zarr -o scores.parquet[/b],
    [b]find music -name '*.flac' | mgc predict runs/first - -o scores.csv[/b]
    """
    from .. import api

    listed = inputs == [Path("-")]
    if listed:
        inputs = [Path(line) for line in sys.stdin.read().splitlines() if line.strip()]
        if not inputs:
            raise ConfigError("standard input names no songs; give one path a line")
    with progress(quiet or as_json) as steps:
        result = api.predict(
            run, inputs, lyrics=lyrics, missing_ok=listed, output=output, threshold=threshold, windows=windows,
            text_model=text_model, text_device=text_device, workers=workers, on_progress=steps,
        )  # fmt: skip
    remark(quiet, result.remarks)
    if output is not None:
        emit(as_json, {"model": str(run), **result.to_dict()}, lambda: print_written(result))
    elif as_json:
        emit(True, {"model": str(run), **result.to_dict()}, lambda: None)
    elif listing is Listing.TABLE:
        print_predictions(result.predictions, top)
    else:
        rows = [prediction.to_dict() for prediction in result.predictions]
        flat = [
            {"id": row["id"], "reason": row["reason"], "detail": row["detail"], "genres": "|".join(row["genres"])}
            | ({"windows": row["windows"], "failed_windows": row["failed_windows"]} if windows == "all" else {})
            | {f"score: {genre}": score for genre, score in row["scores"].items()}
            for row in rows
        ]
        columns = list(dict.fromkeys(name for row in flat for name in row))
        print_list(rows if listing is Listing.JSONL else flat, columns, listing, empty="no song")
    if result.n_failed == result.n_tracks:
        raise typer.Exit(2)


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
