"""Trainings, metrics, comparisons, ablations and predictions, printed in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..cache.messages import counted, interval
from ..heads.metrics.names import (
    ABLATION_METRICS,
    BASELINES,
    COLUMNS,
    DECISION_METRICS,
    FIXED,
    RANKING_METRICS,
    TUNED,
    column_label,
)
from .console import Listing, duration, estimate, number, print_list, print_table, to_stderr

if TYPE_CHECKING:
    from ..api import Prediction, Predictions


def print_dry_run(result: Mapping[str, Any]) -> None:
    for line in result["kept"]:
        print(line)
    sizes = ", ".join(f"{name} {size}" for name, size in result["split"].items() if name != "policy")
    print(f"split {result['split']['policy']}: {sizes}; {counted(len(result['genres']), 'genre')}")
    for warning in result["warnings"]:
        print(f"warning: {warning}")
    print(f"features kept in: {result['features']}")
    print(
        f"{result['n_parameters']:,} parameters; a checkpoint is {result['checkpoint_bytes'] / 1e6:.1f} MB, "
        "two are kept and a third is there while it is written"
    )
    print(
        f"batches of {result['batch_size']}, {result['steps_per_epoch']} steps an epoch, on {result['device']} in "
        f"{result['precision']}"
    )
    print(
        f"about {result['seconds_per_epoch']:.1f} s an epoch by {result['timed_steps']} real steps, {result['epochs']} "
        f"epochs in {result['epochs'] * result['seconds_per_epoch'] / 3600:.2f} h; "
        f"reading the features first: {result['seconds_to_read']:.1f} s"
    )
    if result["run_exists"]:
        print(f"there is a run in {result['run']} already: go on with --resume, or give another folder")
    print("nothing was written")


def print_training(result: Mapping[str, Any]) -> None:
    for line in result["remarks"]:
        print(line)
    best = result["best_validation_map"]
    print(
        f"best epoch {result['best_epoch']} of {result['epochs']}, "
        f"validation mAP {number(best, missing='undefined')}, "
        f"loss {number(result['first_loss'])} -> {number(result['last_loss'])}, "
        f"{result['seconds']:.0f} s on {result['device']} in {result['precision']}"
    )
    print(
        f"learning rate {result['learning_rate']:g}, threshold {result['threshold']:.3f} "
        f"(tuned on {result['threshold_tuned_on']} validation tracks)"
    )
    if result["report"]:
        print(f"report: {result['report']}")
    print(f"next: mgc evaluate {result['run']} {result['store']}")


def _retrieval(alignment: Mapping[str, Any]) -> str:
    """Recall in both directions beside chance, in a line."""
    if "reason" in alignment:
        return str(alignment["reason"])
    ranks = [
        f"at {k} {' and '.join(number(by_rank[k]['value']) for by_rank in alignment['recall'].values())} "
        f"(chance {number(chance)})"
        for k, chance in alignment["chance"].items()
    ]
    note = f"; {alignment['note']}" if "note" in alignment else ""
    return f"recall {', '.join(ranks)}, of {counted(alignment['n_tracks'], 'track')} with both{note}"


def print_metrics(result: Mapping[str, Any]) -> None:
    metrics, baselines = result["metrics"], result["baselines"]
    tracks, artists = counted(metrics["n_tracks"], "track"), counted(metrics["n_groups"], "artist")
    print(
        f"{result['split']}: {tracks}, {artists}; epoch {result['epoch']}, "
        f"learning rate {result['lr']:g}, tuned threshold {result['threshold']:.3f}"
    )
    for warning in result["warnings"]:
        print(f"warning: {warning}")
    systems = {
        **{label.short: (metrics, column) for column, label in COLUMNS.items() if column is not None},
        **{label.short: (baselines[name], FIXED) for name, label in BASELINES.items()},
    }
    rows: list[tuple[str, ...]] = []
    for name in DECISION_METRICS:
        cells = [values["columns"][column][name] for values, column in systems.values()]
        rows.append((name.replace("_", " "), estimate(cells[0]), *(number(cell["value"]) for cell in cells[1:])))
    empty = [f"{values['columns'][column]['empty_share']:.3f}" for values, column in systems.values()]
    print_table("metrics", ("", *systems), [*rows, ("nothing predicted", *empty)])
    for name in RANKING_METRICS:
        prior = number(baselines["label_prior"][name]["value"])
        print(f"{name.replace('_', ' ')}: {estimate(metrics[name])}; of the label prior: {prior}")
    _print_parts(result["parts"])
    scale = result["calibration"]
    print(
        f"calibration: expected error {number(scale['expected_calibration_error'])} over {scale['n_pairs']} scores in "
        f"{len(scale['bins'])} bins, a genre {number(scale['classwise_calibration_error'])}; Brier "
        f"{number(scale['brier'])} (each genre's share as its score: {number(scale['brier_of_genre_shares'])})"
    )
    print(f"lyrics found by their sound, sound by its lyrics: {_retrieval(result['alignment'])}")
    print_table(
        "genres, at the tuned threshold",
        ("genre", "support", "AP", "precision", "recall", "F1"),
        [
            (
                row["genre"],
                row["support"],
                number(row["average_precision"]),
                *(number(row[name][TUNED]) for name in ("precision", "recall", "f1")),
            )
            for row in sorted(metrics["genres"], key=lambda row: -row["support"])
        ],
    )
    if metrics["undefined_genres"]:
        print(f"without a track here, so without a figure: {', '.join(metrics['undefined_genres'])}")
    print("brackets: 95 % bootstrap intervals, resampling artists")


def _print_parts(parts: Mapping[str, Any]) -> None:
    """Scores of the tracks by what they have; nothing where all of them have the same."""
    rows = [
        (
            name,
            part["n_tracks"],
            estimate(part["mean_average_precision"]),
            *(estimate(part["columns"][column]["jaccard"]) for column in (FIXED, TUNED)),
        )
        for name, part in parts.items()
        if part["n_tracks"]
    ]
    if len(rows) > 1:
        print_table("by what tracks have", ("", "tracks", "mAP", "Jaccard at 0.5", "Jaccard tuned"), rows)


def print_comparison(result: Mapping[str, Any], quiet: bool) -> None:
    rows = [
        (
            f"{row['metric'].replace('_', ' ')}, {column_label(row['column']).short}",
            number(row["first"]["value"]),
            number(row["second"]["value"]),
            number(row["difference"]["value"], sign=True),
            interval(row["difference"], "[{}, {}]", sign=True),
            f"{row['better']} is better" if row["decided"] else "undecided",
        )
        for row in result["differences"]
    ]
    print_table(
        f"first {result['first']}, second {result['second']}: {result['n_tracks']} test tracks, "
        f"{result['n_groups']} artists",
        ("metric", "first", "second", "difference", "95 % interval", ""),
        rows,
    )
    if result["n_only_first"] or result["n_only_second"]:
        first, second = counted(result["n_only_first"], "track"), result["n_only_second"]
        print(f"left out: {first} only of the first, {second} of the second")
    if not quiet:
        to_stderr(
            "paired bootstrap over artists; undecided: the interval holds 0, or there are fewer than 20 artists. Where "
            "nothing differs, about one metric in twenty is decided by chance"
        )


def print_planned_runs(result: Mapping[str, Any]) -> None:
    rows = [
        (run["key"], ", ".join(run["fills"]), run["seed"], run["fold"], run["state"], duration(run["seconds"]))
        for run in result["runs"]
    ]
    print_table("runs", ("run", "fills", "seed", "fold", "state", "takes"), rows)
    for system, seconds in result["epoch_s"].items():
        print(f"an epoch of {system}: about {seconds:.1f} s")
    over = "" if result["jobs"] == 1 else f" over {result['jobs']} jobs"
    print(f"{counted(len(rows), 'run')}, about {duration(result['seconds'])} to go{over}")


def print_ablation(result: Mapping[str, Any]) -> None:
    names = ("accuracy", "f1", "accuracy_tuned", "map", "empty_share")
    short = [ABLATION_METRICS[name].name.removeprefix("accuracy, ") for name in names]
    for table in result["tables"]:
        published = any(row["published"] for row in table["rows"])
        heads = [*short, f"accuracy - {table['reference']}", ""]
        heads += ["published", "published F"] if published else []
        rows = []
        for row in table["rows"]:
            cells, paper = row["metrics"], row["published"] or {}
            difference = (cells.get("accuracy") or {}).get("difference")
            accuracy = ("", "") if difference is None else (estimate(difference), cells["accuracy"]["verdict"])
            rows.append([row["name"], *(number(cells[name]["value"]) if name in cells else "-" for name in names)])
            rows[-1] += [*accuracy, *([paper.get("accuracy"), paper.get("f1")] if published else [])]
        print_table(table["title"], ("", *heads), rows)
    about = result["caption"]
    print(f"{about['runs_finished']} of {counted(about['runs'], 'run')} finished")
    if result["claimed"]:
        print(f"{len(result['claimed'])} more are at work in other processes; run again for their rows")
    for failure in result["failures"]:
        print(f"failed: {', '.join(failure['serves'])}: {failure['reason']}")
    for remark in result["remarks"]:
        print(remark)
    print(f"written: {', '.join(result['files'])}")


DOUBTFUL = ("SILENT", "TRUNCATED", "DECODE_GAPS", "LYRICS_FAILED")
"""Flags that make a prediction doubtful."""


def print_predictions(predictions: Sequence[Prediction], top: int) -> None:
    for prediction in predictions:
        if not prediction.scores:
            print(f"{prediction.id}: failed, {prediction.reason}: {prediction.detail}")
            continue
        notes = []
        if prediction.windows is not None:
            notes.append(counted(prediction.windows, "window"))
        if prediction.failed_windows:
            notes[-1] += f"; {prediction.failed_windows} left out: {prediction.detail}"
        if flags := [flag for flag in prediction.flags if flag in DOUBTFUL]:
            notes.append(", ".join(flags))
        remarks = "".join(f" ({note})" for note in notes)
        print(f"{prediction.id}{remarks}: {', '.join(prediction.genres) or 'no genre passes its threshold'}")
        best = sorted(prediction.scores.items(), key=lambda item: -item[1])[:top]
        width = max(len(genre) for genre, _ in best)
        for genre, score in best:
            mark = "*" if genre in prediction.genres else " "
            print(f"  {mark} {genre:<{width}}  {'█' * round(score * 30):<30} {score:.3f}")


def print_predicted(result: Predictions, listing: Listing, top: int) -> None:
    """Print predictions as a list, or what was written of them to a file."""
    if result.output is not None:
        scored = result.n_tracks - result.n_failed
        print(f"{result.output}: {counted(result.n_tracks, 'track')}, {scored} with scores, {result.n_failed} without")
        if result.reasons:
            print_table("without scores, by reason", ("reason", "tracks"), result.reasons.items())
    elif listing is Listing.TABLE:
        print_predictions(result.predictions, top)
    else:
        rows = [song.to_row() if listing is Listing.CSV else song.to_dict() for song in result.predictions]
        print_list(rows, list(dict.fromkeys(name for row in rows for name in row)), listing, empty="no song")
