"""From finished runs to the numbers of the tables: means over seeds, intervals, paired differences, verdicts.

Intervals of a value resample artists, for the seeds that were trained. Intervals of a difference resample artists and
seeds, both the same for the two systems, so that an effect smaller than what other artists or another seed would do is
not called one.

Shapes: N tracks, C genres, K seeds, R bootstrap replicates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...cache.durable import finite_or_none
from ..evaluation.scored_tracks import ScoredTracks
from ..metrics.bootstrap import Estimate, FloatArray, Resampling, estimate
from ..metrics.multilabel import decide, f1_per_track, jaccard_per_track, ranking_metrics
from ..metrics.names import ABLATION_METRICS, FIXED_THRESHOLD, TUNED
from .paper_tables import Row, TableSpec

NOT_JUDGED = "not judged"


@dataclass(frozen=True, kw_only=True)
class Measured:
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
class Cell:
    """One metric of one row: mean over seeds, their standard deviation (NaN of one seed), the difference to the
    reference (None for the reference itself) and whether it is ``better``, ``worse`` or ``undecided``
    (``higher`` or ``lower`` where neither is better)."""

    mean: Estimate
    sd: float
    difference: Estimate | None
    verdict: str | None

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.mean.to_dict(),
            "sd": finite_or_none(self.sd),
            "difference": None if self.difference is None else self.difference.to_dict(),
            "verdict": self.verdict,
        }


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One row: `n_seeds` finished; `cells` is empty, and `note` says why, where none is."""

    name: str
    published: tuple[float, float] | None
    n_seeds: int
    cells: Mapping[str, Cell]
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        published = None if self.published is None else dict(zip(("accuracy", "f1"), self.published, strict=True))
        return {
            "name": self.name,
            "n_seeds": self.n_seeds,
            "published": published,
            "note": self.note,
            "metrics": {name: cell.to_dict() for name, cell in self.cells.items()},
        }


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
    found = {name: (float(values.mean()), resampling.means(values)) for name, values in per_track.items()}
    return {**found, "map": ranking_metrics(y, scores, resampling)["mean_average_precision"]}


def measure_system(runs: Mapping[int | None, ScoredTracks], resampling: Resampling) -> Measured:
    """All of one system's runs, by seed."""
    found = [measure(run, resampling) for run in runs.values()]
    return Measured(
        seeds=tuple(runs),
        values={name: np.asarray([seed[name][0] for seed in found]) for name in found[0]},
        replicates={name: np.stack([seed[name][1] for seed in found]) for name in found[0]},
    )


def fill_table(
    spec: TableSpec,
    measured: Mapping[str, Measured],
    notes: Mapping[str, str],
    *,
    judge: bool = True,
    seed: int = 0,
) -> list[TableRow]:
    """The rows of a table.

    Parameters
    ----------
    measured : by row name; rows without are listed with their note.
    judge : False where there is too little to call any difference decided.
    seed : of the drawing of seeds.
    """
    reference = measured.get(spec.reference)

    def row(row: Row) -> TableRow:
        found = measured.get(row.name)
        if found is None:
            return TableRow(name=row.name, published=row.published, n_seeds=0, cells={},
                            note=notes.get(row.name, "not run yet"))  # fmt: skip
        other = None if row.name == spec.reference else reference
        cells = {
            name: _cell(name, found, other, judge=judge, seed=seed) for name in ABLATION_METRICS if name in found.values
        }
        return TableRow(name=row.name, published=row.published, n_seeds=len(found.seeds), cells=cells,
                        note=notes.get(row.name))  # fmt: skip

    return [row(each) for each in spec.rows]


def _cell(metric: str, found: Measured, reference: Measured | None, *, judge: bool, seed: int) -> Cell:
    values, replicates = found.values[metric], found.replicates[metric]
    sd = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    mean = estimate(float(values.mean()), replicates.mean(axis=0))
    if reference is None or metric not in reference.values:
        return Cell(mean=mean, sd=sd, difference=None, verdict=None)
    difference = seed_difference(found, reference, metric, seed=seed)
    return Cell(mean=mean, sd=sd, difference=difference, verdict=_verdict(metric, difference) if judge else NOT_JUDGED)


def seed_difference(found: Measured, reference: Measured, metric: str, *, seed: int) -> Estimate:
    """One metric of a system less that of another, over the seeds that both have; NaN where they share none."""
    both = [name for name in found.seeds if name in reference.seeds]
    if found.seeds == (None,) or reference.seeds == (None,):
        both = list(reference.seeds if found.seeds == (None,) else found.seeds)
    if not both:
        return Estimate(value=math.nan)
    (values, replicates), (less, less_replicates) = found.at(both, metric), reference.at(both, metric)
    return estimate(float((values - less).mean()), seeds_drawn(replicates - less_replicates, seed=seed))


def seeds_drawn(replicates: FloatArray, *, seed: int) -> FloatArray:
    """(K, R) replicates of K seeds -> (R,) means over seeds drawn with replacement, anew in each replicate.

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
    drawn = np.random.default_rng(seed).integers(0, n_seeds, (n_seeds, n_replicates))
    mean = np.take_along_axis(replicates, drawn, axis=0).mean(axis=0)
    return np.asarray(centre + math.sqrt(n_seeds / (n_seeds - 1)) * (mean - centre))


def _verdict(metric: str, difference: Estimate) -> str:
    if not (difference.low > 0 or difference.high < 0):
        return "undecided"
    if ABLATION_METRICS[metric].higher_is_better is None:
        return "higher" if difference.low > 0 else "lower"
    return "better" if difference.low > 0 else "worse"


def pooled(folds: Sequence[ScoredTracks]) -> ScoredTracks:
    """The test tracks of all folds as one, over the genres that every fold's model knows; sorted by id.

    Tracks with none of these genres are left out. Thresholds are each fold's own.
    """
    first = folds[0]
    genres = tuple(name for name in first.genres if all(name in fold.genres for fold in folds))
    columns = [[fold.genres.index(name) for name in genres] for fold in folds]
    labels = np.concatenate([fold.labels[:, place] for fold, place in zip(folds, columns, strict=True)])
    scores = np.concatenate([fold.scores[:, place] for fold, place in zip(folds, columns, strict=True)])
    ids = [name for fold in folds for name in fold.ids]
    groups = [name for fold in folds for name in fold.groups]
    order = [i for i in np.argsort(np.asarray(ids, dtype=object), kind="stable").tolist() if labels[i].any()]
    thresholds = {
        name: np.concatenate([
            np.broadcast_to(np.asarray(fold.thresholds[name])[place], (len(fold.ids), len(genres)))
            for fold, place in zip(folds, columns, strict=True)
        ])[order]
        for name in first.thresholds
    }  # fmt: skip
    return ScoredTracks(
        run=first.run,
        ids=tuple(ids[i] for i in order),
        groups=tuple(groups[i] for i in order),
        genres=genres,
        labels=labels[order],
        scores=scores[order],
        thresholds=thresholds,
    )
