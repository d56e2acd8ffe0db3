"""Compare two systems on the same test tracks: paired differences with bootstrap intervals over artists.

Both systems are scored on the same draws of artists, so the difficulty of an artist's tracks cancels in the difference.
A difference is significant if its 95 % confidence interval excludes 0 and the test split has enough artists.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ...cache.errors import ConfigError, RunError
from ...cache.messages import counted, join_names
from ..data.artist_groups import count_with_artist
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
    metric : name of the metric.
    column : decision rule of the metric; None for metrics of the ranking.
    first, second : values of the two systems.
    difference : ``second - first``, with its 95 % confidence interval.
    decided : whether the difference is significant: the interval excludes 0, with at least `FEW_GROUPS` artists.
    better : ``first`` or ``second`` if the difference is significant, else None.
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
    """Differences of two runs on their `n_tracks` common test tracks.

    Attributes
    ----------
    n_groups : artists, plus tracks of unknown artists.
    n_with_artist : tracks with a known artist.
    """

    first: str
    second: str
    n_tracks: int
    n_only_first: int
    n_only_second: int
    n_groups: int
    n_with_artist: int
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
    common : compare on the test tracks that both runs have. By default, runs with different test tracks are refused.
    n_replicates, seed : of the bootstrap over artists.

    Raises
    ------
    RunError
        If a run has not been evaluated, or test tracks, artists, genres or labels differ. The message lists how.
    """
    tracks, others = load_predictions(first), load_predictions(second)
    n_first, n_second = len(tracks.ids), len(others.ids)
    if common:
        tracks, others = _take_common(tracks, others)
    return Comparison(
        first=str(first),
        second=str(second),
        n_tracks=len(tracks.ids),
        n_only_first=n_first - len(tracks.ids),
        n_only_second=n_second - len(others.ids),
        n_groups=len(set(tracks.groups)),
        n_with_artist=count_with_artist(tracks.groups),
        genres=tracks.genres,
        n_replicates=n_replicates,
        seed=seed,
        differences=paired_differences([tracks], [others], n_replicates=n_replicates, seed=seed),
    )


def paired_differences(
    first: Sequence[ScoredTracks], second: Sequence[ScoredTracks], *, n_replicates: int = 1000, seed: int = 0
) -> list[Difference]:
    """Estimate the difference of two systems in every metric.

    With several runs per system, a metric is the mean over its runs, in every replicate as well. The interval then
    covers the variation between artists, not between seeds.

    Parameters
    ----------
    first, second : runs (seeds) of each system, on the same test tracks.

    Raises
    ------
    ConfigError
        If a system has no run, or there are no replicates.
    RunError
        If test tracks, artists, genres or labels differ between any two runs.
    """
    if not first or not second:
        raise ConfigError("a system has no run. Give at least one run of each.")
    if n_replicates < 1:
        raise ConfigError(f"{n_replicates} bootstrap replicates: too few for a comparison. Use at least 1.")
    reference = first[0]
    for other in (*first[1:], *second):
        _refuse_other_tracks(reference, other)
    # `_refuse_other_tracks` accepts the same tracks in any order, so `take` brings them into one.
    resampling = Resampling.of(np.asarray(reference.groups), n_replicates, seed)
    metrics, others = (
        _mean_over_runs([_metrics(run.take(reference.ids), resampling) for run in system]) for system in (first, second)
    )
    return [
        _difference(key, metrics[key], others[key], few=resampling.n_groups < FEW_GROUPS)
        for key in metrics
        if key in others
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
        raise RunError(f"{first.run} and {second.run} have no test track in common. Train both with the same split.")
    return first.take(ids), second.take(ids)


def _refuse_other_tracks(first: ScoredTracks, second: ScoredTracks) -> None:
    if differences := "\n  ".join(_differences(first, second)):
        raise RunError(
            f"{first.run} and {second.run} have different test data:\n  {differences}\n"
            "Train both with the same split, split seed and genres, and evaluate both on one store."
        )


def _differences(first: ScoredTracks, second: ScoredTracks) -> Iterator[str]:
    """Yield one line per difference, for the first kind (genres, tracks, labels and artists) that differs."""
    for kind, of_first, of_second in (("genre", first.genres, second.genres), ("test track", first.ids, second.ids)):
        for names, others, run in ((of_first, of_second, first.run), (of_second, of_first, second.run)):
            if only := sorted(set(names) - set(others)):
                yield f"{counted(len(only), kind)} ({join_names(only)}) only in {run}"
        if set(of_first) != set(of_second):
            if kind == "test track":
                yield "(--common compares on the common tracks)"
            return
    if first.genres != second.genres:
        yield "the same genres in another order"
        return
    second = second.take(first.ids)
    same_labels = (first.labels == second.labels).all(axis=1)
    same_group = np.asarray(first.groups) == np.asarray(second.groups)
    for same, kind in ((same_labels, "labels"), (same_group, "artists")):
        if differing := [first.ids[i] for i in np.flatnonzero(~same)]:
            yield f"{counted(len(differing), 'track')} ({join_names(differing)}) with other {kind}"
