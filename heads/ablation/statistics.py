"""Compute the figures of the tables: means over seeds, 95 % confidence intervals, paired differences, significance.

The interval of a value resamples artists, for the trained seeds. The interval of a difference resamples artists and
seeds, with the same draws for both systems. A difference is therefore significant only if it exceeds the variation
between artists and between seeds.

Shapes: N tracks, C genres, K seeds, R bootstrap replicates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..evaluation.scored_tracks import ScoredTracks
from ..metrics.bootstrap import Estimate, FloatArray, Resampling, estimate
from ..metrics.multilabel import decide, f1_per_track, jaccard_per_track, ranking_metrics
from ..metrics.names import ABLATION_METRICS, FIXED_THRESHOLD, TUNED
from ..results import Result
from .paper_tables import Row, TableSpec

NOT_SIGNIFICANT = "not significant"
NOT_TESTED = "not tested"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One system: for each metric its values per seed, (K,), and its replicates, (K, R).

    `seeds` is ``(None,)`` for a system that does not depend on the seed.
    """

    seeds: tuple[int | None, ...]
    values: Mapping[str, FloatArray]
    replicates: Mapping[str, FloatArray]

    def at(self, seeds: Sequence[int | None], metric: str) -> tuple[FloatArray, FloatArray]:
        """Return values and replicates of one metric for the given seeds, in their order."""
        place = [0 if self.seeds == (None,) else self.seeds.index(seed) for seed in seeds]
        return self.values[metric][place], self.replicates[metric][place]


@dataclass(frozen=True, kw_only=True)
class Cell(Estimate):
    """One metric of one row.

    Attributes
    ----------
    value, low, high : mean over seeds and its 95 % confidence interval.
    sd : standard deviation over seeds; NaN for one seed.
    difference : to the reference; None for the reference itself.
    verdict : ``better`` or ``worse`` where the difference is significant (95 % CI excludes 0), ``higher`` or ``lower``
        for a metric without a better direction, else ``not significant``. ``not tested`` with too few artists.
    """

    sd: float
    difference: Estimate | None = None
    verdict: str | None = None


@dataclass(frozen=True, kw_only=True)
class TableRow(Result):
    """One row with `n_seeds` finished seeds. With none, `metrics` is empty and `note` holds the reason."""

    name: str
    n_seeds: int
    published: Mapping[str, float] | None
    note: str | None
    metrics: Mapping[str, Cell]


def measure(tracks: ScoredTracks, resampling: Resampling) -> dict[str, tuple[float, FloatArray]]:
    """Return value and (R,) replicates of each metric, for the scores of one run."""
    scores, y = tracks.scores.astype(np.float64), tracks.labels
    fixed = decide(scores, FIXED_THRESHOLD)
    tuned = decide(scores, tracks.thresholds[TUNED]) if TUNED in tracks.thresholds else None
    per_track: dict[str, FloatArray] = {
        "accuracy": jaccard_per_track(y, fixed),
        "f1": f1_per_track(y, fixed),
        "empty_share": np.equal(fixed.sum(axis=1), 0).astype(np.float64),
        "subset_accuracy": np.all(y == fixed, axis=1).astype(np.float64),
        "accuracy_top1": jaccard_per_track(y, decide(scores, FIXED_THRESHOLD, top1_where_empty=True)),
    }
    if tuned is not None:
        per_track |= {"accuracy_tuned": jaccard_per_track(y, tuned), "f1_tuned": f1_per_track(y, tuned)}
    metrics = {name: (float(values.mean()), resampling.means(values)) for name, values in per_track.items()}
    return {**metrics, "map": ranking_metrics(y, scores, resampling)["mean_average_precision"]}


def measure_system(runs: Mapping[int | None, ScoredTracks], resampling: Resampling) -> Measurement:
    """Measure the runs of one system, by seed."""
    by_seed = [measure(run, resampling) for run in runs.values()]
    return Measurement(
        seeds=tuple(runs),
        values={name: np.asarray([metrics[name][0] for metrics in by_seed]) for name in by_seed[0]},
        replicates={name: np.stack([metrics[name][1] for metrics in by_seed]) for name in by_seed[0]},
    )


def fill_table(
    spec: TableSpec,
    measured: Mapping[str, Measurement],
    notes: Mapping[str, str],
    *,
    test: bool = True,
    seed: int = 0,
) -> list[TableRow]:
    """Fill the rows of a table.

    Parameters
    ----------
    measured : measurements by row name.
    notes : by row name, for rows without a measurement.
    test : False if there are too few artists to test differences for significance.
    seed : seed of the bootstrap over seeds.
    """
    reference = measured.get(spec.reference)

    def fill(row: Row) -> TableRow:
        system = measured.get(row.name)
        cells = {}
        if system is not None:
            other = None if row.name == spec.reference else reference
            metrics = [name for name in ABLATION_METRICS if name in system.values]
            cells = {name: _cell(name, system, other, test=test, seed=seed) for name in metrics}
        return TableRow(
            name=row.name,
            n_seeds=0 if system is None else len(system.seeds),
            published=None if row.published is None else dict(zip(("accuracy", "f1"), row.published, strict=True)),
            note=notes.get(row.name, "not run yet" if system is None else None),
            metrics=cells,
        )

    return [fill(row) for row in spec.rows]


def _cell(metric: str, system: Measurement, reference: Measurement | None, *, test: bool, seed: int) -> Cell:
    values, replicates = system.values[metric], system.replicates[metric]
    sd = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    mean = vars(estimate(float(values.mean()), replicates.mean(axis=0)))
    if reference is None or metric not in reference.values:
        return Cell(**mean, sd=sd)
    difference = seed_difference(system, reference, metric, seed=seed)
    return Cell(**mean, sd=sd, difference=difference, verdict=_verdict(metric, difference) if test else NOT_TESTED)


def seed_difference(system: Measurement, reference: Measurement, metric: str, *, seed: int) -> Estimate:
    """Estimate the difference ``system - reference`` in a metric over their common seeds; NaN if they share none."""
    seeds = [name for name in system.seeds if name in reference.seeds]
    if system.seeds == (None,) or reference.seeds == (None,):
        seeds = list(reference.seeds if system.seeds == (None,) else system.seeds)
    if not seeds:
        return Estimate(value=math.nan)
    values, replicates = system.at(seeds, metric)
    reference_values, reference_replicates = reference.at(seeds, metric)
    drawn_replicates = draw_seeds(replicates - reference_replicates, seed=seed)
    return estimate(float((values - reference_values).mean()), drawn_replicates)


def draw_seeds(replicates: FloatArray, *, seed: int) -> FloatArray:
    """Return (R,) means over K seeds, drawn with replacement in each of (K, R) replicates.

    Notes
    -----
    The variance of the mean of K values drawn with replacement is (K - 1)/K of that of a mean of K new values. This
    bias matters at three seeds, so deviations from the mean are scaled by sqrt(K / (K - 1)). With one seed only artists
    are resampled.
    """
    n_seeds, n_replicates = replicates.shape
    centre: FloatArray = replicates.mean(axis=0)
    if n_seeds < 2:
        return centre
    draws = np.random.default_rng(seed).integers(0, n_seeds, (n_seeds, n_replicates))
    mean = np.take_along_axis(replicates, draws, axis=0).mean(axis=0)
    return np.asarray(centre + math.sqrt(n_seeds / (n_seeds - 1)) * (mean - centre))


def _verdict(metric: str, difference: Estimate) -> str:
    if not (difference.low > 0 or difference.high < 0):
        return NOT_SIGNIFICANT
    if ABLATION_METRICS[metric].higher_is_better is None:
        return "higher" if difference.low > 0 else "lower"
    return "better" if difference.low > 0 else "worse"


def pool_folds(folds: Sequence[ScoredTracks]) -> ScoredTracks:
    """Pool the test tracks of all folds, sorted by id, over the genres that the models of all folds share.

    Tracks without any of these genres are left out. Each track keeps the thresholds of its fold.
    """
    first = folds[0]
    genres = tuple(name for name in first.genres if all(name in fold.genres for fold in folds))
    columns = [[fold.genres.index(name) for name in genres] for fold in folds]
    ids = [track_id for fold in folds for track_id in fold.ids]
    groups = [group for fold in folds for group in fold.groups]

    def stack(arrays: Iterable[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Stack (tracks, genres) or (genres,) arrays of the folds to (tracks of all folds, common genres)."""
        parts = zip(folds, columns, arrays, strict=True)
        return np.concatenate(
            [np.broadcast_to(array[..., place], (len(fold.ids), len(genres))) for fold, place, array in parts]
        )

    labels = stack(fold.labels for fold in folds)
    order = [i for i in np.argsort(np.asarray(ids, dtype=object), kind="stable").tolist() if labels[i].any()]
    return ScoredTracks(
        run=first.run,
        ids=tuple(ids[i] for i in order),
        groups=tuple(groups[i] for i in order),
        genres=genres,
        labels=labels[order],
        scores=stack(fold.scores for fold in folds)[order],
        thresholds={name: stack(fold.thresholds[name] for fold in folds)[order] for name in first.thresholds},
    )
