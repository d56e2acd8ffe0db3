"""From finished runs to the numbers of the tables: means over seeds, intervals, paired differences, verdicts.

Intervals of a value resample artists, for the seeds that were trained. Intervals of a difference resample artists and
seeds, both the same for the two systems, so that an effect smaller than what other artists or another seed would do is
not called one.

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

NOT_JUDGED = "not judged"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One system: every metric's value for each of its `seeds`, (K,), and its replicates, (K, R).

    A system that no seed changes has the one seed None.
    """

    seeds: tuple[int | None, ...]
    values: Mapping[str, FloatArray]
    replicates: Mapping[str, FloatArray]

    def at(self, seeds: Sequence[int | None], metric: str) -> tuple[FloatArray, FloatArray]:
        """Values and replicates of one metric for these of its seeds, in their order."""
        place = [0 if self.seeds == (None,) else self.seeds.index(seed) for seed in seeds]
        return self.values[metric][place], self.replicates[metric][place]


@dataclass(frozen=True, kw_only=True)
class Cell(Estimate):
    """One metric of one row: mean over seeds, their standard deviation (NaN of one seed), the difference to the
    reference (None for the reference itself) and whether it is ``better``, ``worse`` or ``undecided``
    (``higher`` or ``lower`` where neither is better)."""

    sd: float
    difference: Estimate | None = None
    verdict: str | None = None


@dataclass(frozen=True, kw_only=True)
class TableRow(Result):
    """One row: `n_seeds` finished; `metrics` is empty, and `note` says why, where none is."""

    name: str
    n_seeds: int
    published: Mapping[str, float] | None
    note: str | None
    metrics: Mapping[str, Cell]


def measure(tracks: ScoredTracks, resampling: Resampling) -> dict[str, tuple[float, FloatArray]]:
    """Every metric of one run's scores with its replicates."""
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
    """Measure all of one system's runs, by seed."""
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
    judge: bool = True,
    seed: int = 0,
) -> list[TableRow]:
    """Fill the rows of a table.

    Parameters
    ----------
    measured : by row name; rows without are listed with their note.
    judge : False where there is too little to call any difference decided.
    seed : of the drawing of seeds.
    """
    reference = measured.get(spec.reference)

    def fill(row: Row) -> TableRow:
        ours = measured.get(row.name)
        cells = {}
        if ours is not None:
            other = None if row.name == spec.reference else reference
            metrics = [name for name in ABLATION_METRICS if name in ours.values]
            cells = {name: _cell(name, ours, other, judge=judge, seed=seed) for name in metrics}
        return TableRow(
            name=row.name,
            n_seeds=0 if ours is None else len(ours.seeds),
            published=None if row.published is None else dict(zip(("accuracy", "f1"), row.published, strict=True)),
            note=notes.get(row.name, "not run yet" if ours is None else None),
            metrics=cells,
        )

    return [fill(row) for row in spec.rows]


def _cell(metric: str, ours: Measurement, reference: Measurement | None, *, judge: bool, seed: int) -> Cell:
    values, replicates = ours.values[metric], ours.replicates[metric]
    sd = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    mean = vars(estimate(float(values.mean()), replicates.mean(axis=0)))
    if reference is None or metric not in reference.values:
        return Cell(**mean, sd=sd)
    difference = seed_difference(ours, reference, metric, seed=seed)
    return Cell(**mean, sd=sd, difference=difference, verdict=_verdict(metric, difference) if judge else NOT_JUDGED)


def seed_difference(ours: Measurement, reference: Measurement, metric: str, *, seed: int) -> Estimate:
    """Estimate a metric of a system less that of another, over the seeds that both have; NaN where they share none."""
    seeds = [name for name in ours.seeds if name in reference.seeds]
    if ours.seeds == (None,) or reference.seeds == (None,):
        seeds = list(reference.seeds if ours.seeds == (None,) else ours.seeds)
    if not seeds:
        return Estimate(value=math.nan)
    (values, replicates), (less, less_replicates) = ours.at(seeds, metric), reference.at(seeds, metric)
    return estimate(float((values - less).mean()), draw_seeds(replicates - less_replicates, seed=seed))


def draw_seeds(replicates: FloatArray, *, seed: int) -> FloatArray:
    """Return (R,) means over seeds of (K, R) replicates: K seeds are drawn with replacement, anew in each replicate.

    Notes
    -----
    The mean of K values drawn with replacement varies by (K - 1)/K of what a mean of K new values would, which matters
    at three seeds; deviations from the mean are stretched by sqrt(K / (K - 1)) to make up for it. One seed cannot be
    drawn from: then only artists vary.
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
        return "undecided"
    if ABLATION_METRICS[metric].higher_is_better is None:
        return "higher" if difference.low > 0 else "lower"
    return "better" if difference.low > 0 else "worse"


def pool_folds(folds: Sequence[ScoredTracks]) -> ScoredTracks:
    """Return the test tracks of all folds as one, over the genres that every fold's model knows; sorted by id.

    Tracks with none of these genres are left out. Thresholds are each fold's own.
    """
    first = folds[0]
    genres = tuple(name for name in first.genres if all(name in fold.genres for fold in folds))
    columns = [[fold.genres.index(name) for name in genres] for fold in folds]
    ids = [track_id for fold in folds for track_id in fold.ids]
    groups = [group for fold in folds for group in fold.groups]

    def stack(arrays: Iterable[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """(tracks of all folds, common genres) from a (tracks, genres) or (genres,) array of each fold."""
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
