"""Two systems on the same test tracks: paired differences with bootstrap intervals over artists.

Both systems are scored on the same draws of artists, so what is hard about an artist's tracks is hard for both and
falls out of the difference. A difference whose 95 % interval holds 0, or over few artists, is undecided.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.errors import ConfigError, RunError
from ...cache.messages import counted, join_names
from ..metrics.bootstrap import FEW_GROUPS, Estimate, Resampling, estimate
from ..metrics.multilabel import FloatArray, Replicated, decide, decision_metrics, ranking_metrics
from ..metrics.names import FIXED, FIXED_THRESHOLD, METRICS, TOP1
from .scored_tracks import ScoredTracks, load_predictions


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One metric of two systems.

    Attributes
    ----------
    metric : name; `column` says how genres were decided, None for metrics of the ranking.
    first, second : values of the two systems.
    difference : second less first, with its interval.
    n_groups : artists that were resampled.
    better : ``first`` or ``second`` where the interval does not hold 0 and artists are enough, else None: undecided.
    """

    metric: str
    column: str | None
    first: Estimate
    second: Estimate
    difference: Estimate
    n_groups: int

    @property
    def better(self) -> str | None:
        low, high = self.difference.low, self.difference.high
        if self.n_groups < FEW_GROUPS or not (low > 0 or high < 0):
            return None
        return "second" if (low > 0) == METRICS[self.metric].higher_is_better else "first"

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        parts = {name: getattr(self, name).to_dict() for name in ("first", "second", "difference")}
        decided = self.better is not None
        return {"metric": self.metric, "column": self.column, **parts, "decided": decided, "better": self.better}


def compare_runs(
    first: Path, second: Path, *, common: bool = False, n_replicates: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Compare two evaluated runs on their test tracks.

    Parameters
    ----------
    common : compare on the test tracks that both runs have, instead of refusing runs that do not have the same.
    n_replicates, seed : of the bootstrap over artists.

    Returns
    -------
    dict
        JSON values: the runs, how many tracks and artists, and ``differences``, :meth:`Difference.to_dict` each.

    Raises
    ------
    RunError
        If a run has not been evaluated, or test tracks, artists, genres or labels differ; says how.
    """
    one, other = load_predictions(first), load_predictions(second)
    n_each = len(one.ids), len(other.ids)
    if common:
        one, other = _on_common_tracks(one, other)
    found = paired_differences([one], [other], n_replicates=n_replicates, seed=seed)
    return {
        "first": str(first),
        "second": str(second),
        "n_tracks": len(one.ids),
        "n_only_first": n_each[0] - len(one.ids),
        "n_only_second": n_each[1] - len(other.ids),
        "n_groups": len(set(one.groups)),
        "genres": list(one.genres),
        "n_replicates": n_replicates,
        "seed": seed,
        "differences": [difference.to_dict() for difference in found],
    }


def paired_differences(
    first: Sequence[ScoredTracks], second: Sequence[ScoredTracks], *, n_replicates: int = 1000, seed: int = 0
) -> list[Difference]:
    """Differences of every metric between two systems, each given by its runs (its seeds) on the same test tracks.

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
    ours, theirs = (_mean_over_runs([_metrics(_ordered(run, reference), resampling) for run in system])
                    for system in (first, second))  # fmt: skip
    return [
        Difference(
            metric=metric,
            column=column,
            n_groups=resampling.n_groups,
            first=estimate(*ours[column, metric]),
            second=estimate(*theirs[column, metric]),
            difference=estimate(
                theirs[column, metric][0] - ours[column, metric][0], theirs[column, metric][1] - ours[column, metric][1]
            ),
        )
        for column, metric in ours
        if (column, metric) in theirs
    ]


_Key = tuple[str | None, str]


def _metrics(run: ScoredTracks, resampling: Resampling) -> dict[_Key, Replicated]:
    scores = run.scores.astype(np.float64)
    fixed = np.full(len(run.genres), FIXED_THRESHOLD)
    cuts: dict[str, FloatArray] = {FIXED: fixed, **run.thresholds, TOP1: fixed}
    found: dict[_Key, Replicated] = {
        (None, name): value for name, value in ranking_metrics(run.labels, scores, resampling).items()
    }
    for column, cut in cuts.items():
        predicted = decide(scores, cut, top1_where_empty=column == TOP1)
        found |= {(column, name): value for name, value in decision_metrics(run.labels, predicted, resampling).items()}
    return found


def _mean_over_runs(runs: Sequence[dict[_Key, Replicated]]) -> dict[_Key, Replicated]:
    keys = [key for key in runs[0] if all(key in run for run in runs)]
    return {
        key: (float(np.mean([run[key][0] for run in runs])), np.mean([run[key][1] for run in runs], axis=0))
        for key in keys
    }


def _ordered(run: ScoredTracks, reference: ScoredTracks) -> ScoredTracks:
    return run if run.ids == reference.ids else _taken(run, reference.ids)


def _taken(run: ScoredTracks, ids: Sequence[str]) -> ScoredTracks:
    """The tracks `ids` of a run, in that order."""
    place = {name: i for i, name in enumerate(run.ids)}
    index = np.asarray([place[name] for name in ids], dtype=np.int64)
    return dataclasses.replace(
        run,
        ids=tuple(ids),
        groups=tuple(run.groups[i] for i in index),
        labels=run.labels[index],
        scores=run.scores[index],
    )


def _on_common_tracks(one: ScoredTracks, other: ScoredTracks) -> tuple[ScoredTracks, ScoredTracks]:
    there = set(other.ids)
    ids = [name for name in one.ids if name in there]
    if not ids:
        raise RunError(f"{one.run} and {other.run} have no test track in common")
    return _taken(one, ids), _taken(other, ids)


def _refuse_other_tracks(one: ScoredTracks, other: ScoredTracks) -> None:
    differences = list(_differences(one, other))
    if differences:
        listed = "\n  ".join(differences)
        raise RunError(f"{one.run} and {other.run} were not tested on the same thing:\n  {listed}\nTrain both with the "
                       "same split, split seed and genres, and evaluate both on one store")  # fmt: skip


def _differences(one: ScoredTracks, other: ScoredTracks) -> Iterator[str]:
    """What keeps two runs from being compared, a line each; the first kind found."""
    for kind, ours, theirs in (("genre", one.genres, other.genres), ("test track", one.ids, other.ids)):
        here, there = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
        for names, run in ((here, one.run), (there, other.run)):
            if names:
                yield f"{counted(len(names), kind)} ({join_names(names)}) only in {run}"
        if here or there:
            if kind == "test track":
                yield "(--common compares on the tracks that both have)"
            return
    if one.genres != other.genres:
        yield "the same genres in another order"
        return
    other = _ordered(other, one)
    relabelled = [
        name for name, same in zip(one.ids, (one.labels == other.labels).all(axis=1), strict=True) if not same
    ]
    if relabelled:
        yield f"{counted(len(relabelled), 'track')} ({join_names(relabelled)}) with other labels"
    moved = [name for name, here, there in zip(one.ids, one.groups, other.groups, strict=True) if here != there]
    if moved:
        yield f"{counted(len(moved), 'track')} ({join_names(moved)}) with other artists"
