"""Two systems on the same test tracks: paired differences with bootstrap intervals over artists.

Both systems are scored on the same draws of artists, so what is hard about an artist's tracks is hard for both and
falls out of the difference. A difference whose 95 % interval holds 0, or over few artists, is undecided.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ...cache.errors import ConfigError, RunError
from ...cache.messages import counted, join_names
from ..metrics.bootstrap import FEW_GROUPS, Estimate, FloatArray, Resampling, estimate
from ..metrics.multilabel import Replicated, decide, decision_metrics, ranking_metrics
from ..metrics.names import FIXED, FIXED_THRESHOLD, METRICS, TOP1
from ..results import Result
from .scored_tracks import ScoredTracks, load_predictions


@dataclass(frozen=True, kw_only=True)
class Difference(Result):
    """One metric of two systems.

    Attributes
    ----------
    metric : name; `column` says how genres were decided, None for metrics of the ranking.
    first, second : values of the two systems.
    difference : second less first, with its interval.
    better : ``first`` or ``second`` where the interval does not hold 0 and artists are enough, else None: undecided.
    """

    metric: str
    column: str | None
    first: Estimate
    second: Estimate
    difference: Estimate
    decided: bool
    better: Literal["first", "second"] | None


@dataclass(frozen=True, kw_only=True)
class Comparison(Result):
    """The differences of two runs on `n_tracks` test tracks by `n_groups` artists; other tracks are of one run only."""

    first: str
    second: str
    n_tracks: int
    n_only_first: int
    n_only_second: int
    n_groups: int
    genres: tuple[str, ...]
    n_replicates: int
    seed: int
    differences: Sequence[Difference]


def compare_runs(
    first: Path, second: Path, *, common: bool = False, n_replicates: int = 1000, seed: int = 0
) -> Comparison:
    """Compare two evaluated runs on their test tracks.

    Parameters
    ----------
    common : compare on the test tracks that both runs have, instead of refusing runs that do not have the same.
    n_replicates, seed : of the bootstrap over artists.

    Raises
    ------
    RunError
        If a run has not been evaluated, or test tracks, artists, genres or labels differ; says how.
    """
    ours, theirs = load_predictions(first), load_predictions(second)
    n_each = len(ours.ids), len(theirs.ids)
    if common:
        ours, theirs = _take_common(ours, theirs)
    return Comparison(
        first=str(first),
        second=str(second),
        n_tracks=len(ours.ids),
        n_only_first=n_each[0] - len(ours.ids),
        n_only_second=n_each[1] - len(theirs.ids),
        n_groups=len(set(ours.groups)),
        genres=ours.genres,
        n_replicates=n_replicates,
        seed=seed,
        differences=paired_differences([ours], [theirs], n_replicates=n_replicates, seed=seed),
    )


def paired_differences(
    first: Sequence[ScoredTracks], second: Sequence[ScoredTracks], *, n_replicates: int = 1000, seed: int = 0
) -> list[Difference]:
    """Estimate how two systems differ in every metric, each given by its runs (its seeds) on the same test tracks.

    Of several runs a metric is their mean, in every replicate too: the interval is over artists, for these seeds.

    Raises
    ------
    RunError
        If test tracks, artists, genres or labels differ between any two runs.
    """
    if not first or not second:
        raise ConfigError("a comparison needs a run of each system")
    if n_replicates < 1:
        raise ConfigError(f"{n_replicates} bootstrap draws: a comparison needs some")
    reference = first[0]
    for other in (*first[1:], *second):
        _refuse_other_tracks(reference, other)
    # In the order of the reference: `_refuse_other_tracks` allows any order of the same tracks.
    resampling = Resampling.of(np.asarray(reference.groups), n_replicates, seed)
    ours, theirs = (
        _mean_over_runs([_metrics(run.take(reference.ids), resampling) for run in system]) for system in (first, second)
    )
    return [
        _difference(key, ours[key], theirs[key], few=resampling.n_groups < FEW_GROUPS) for key in ours if key in theirs
    ]


_Key = tuple[str | None, str]


def _difference(key: _Key, first: Replicated, second: Replicated, *, few: bool) -> Difference:
    column, metric = key
    difference = estimate(second[0] - first[0], second[1] - first[1])
    better: Literal["first", "second"] | None = None
    if not few and (difference.low > 0 or difference.high < 0):
        better = "second" if (difference.low > 0) == METRICS[metric].higher_is_better else "first"
    return Difference(
        metric=metric,
        column=column,
        first=estimate(*first),
        second=estimate(*second),
        difference=difference,
        decided=better is not None,
        better=better,
    )


def _metrics(run: ScoredTracks, resampling: Resampling) -> dict[_Key, Replicated]:
    scores = run.scores.astype(np.float64)
    fixed = np.full(len(run.genres), FIXED_THRESHOLD)
    cuts: dict[str, FloatArray] = {FIXED: fixed, **run.thresholds, TOP1: fixed}
    metrics: dict[_Key, Replicated] = {
        (None, name): value for name, value in ranking_metrics(run.labels, scores, resampling).items()
    }
    for column, cut in cuts.items():
        decisions = decision_metrics(run.labels, decide(scores, cut, top1_where_empty=column == TOP1), resampling)
        metrics |= {(column, name): value for name, value in decisions.items()}
    return metrics


def _mean_over_runs(runs: Sequence[dict[_Key, Replicated]]) -> dict[_Key, Replicated]:
    keys = [key for key in runs[0] if all(key in run for run in runs)]
    return {
        key: (float(np.mean([run[key][0] for run in runs])), np.mean([run[key][1] for run in runs], axis=0))
        for key in keys
    }


def _take_common(first: ScoredTracks, second: ScoredTracks) -> tuple[ScoredTracks, ScoredTracks]:
    in_second = set(second.ids)
    ids = [track_id for track_id in first.ids if track_id in in_second]
    if not ids:
        raise RunError(f"{first.run} and {second.run} have no test track in common")
    return first.take(ids), second.take(ids)


def _refuse_other_tracks(first: ScoredTracks, second: ScoredTracks) -> None:
    if differences := "\n  ".join(_differences(first, second)):
        raise RunError(
            f"{first.run} and {second.run} were not tested on the same thing:\n  {differences}\n"
            "Train both with the same split, split seed and genres, and evaluate both on one store"
        )


def _differences(first: ScoredTracks, second: ScoredTracks) -> Iterator[str]:
    """Yield what keeps two runs from being compared, a line each, of the first kind that differs."""
    for kind, ours, theirs in (("genre", first.genres, second.genres), ("test track", first.ids, second.ids)):
        for names, others, run in ((ours, theirs, first.run), (theirs, ours, second.run)):
            if only := sorted(set(names) - set(others)):
                yield f"{counted(len(only), kind)} ({join_names(only)}) only in {run}"
        if set(ours) != set(theirs):
            if kind == "test track":
                yield "(--common compares on the tracks that both have)"
            return
    if first.genres != second.genres:
        yield "the same genres in another order"
        return
    second = second.take(first.ids)
    same_labels = (first.labels == second.labels).all(axis=1)
    same_group = np.asarray(first.groups) == np.asarray(second.groups)
    for same, what in ((same_labels, "labels"), (same_group, "artists")):
        if differing := [first.ids[i] for i in np.flatnonzero(~same)]:
            yield f"{counted(len(differing), 'track')} ({join_names(differing)}) with other {what}"
