"""Tabulate the finished runs of an ablation as one document."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.errors import RunError
from ...cache.reading.store import FeatureStore
from ...cache.steps import Progress, silent
from ..data.artist_groups import comparable_artists, count_with_artist
from ..data.labels import GenresById, labels_sha256
from ..data.task import ok_tracks
from ..evaluation.scored_tracks import ScoredTracks, load_predictions
from ..metrics.bootstrap import FEW_GROUPS, Resampling
from ..metrics.phrases import resampled
from ..metrics.trivial_baselines import baseline_scores
from ..results import Result
from .grid import Grid, GridRun
from .paper_tables import PUBLISHED_ON, Row, TableSpec
from .runs import Failure, Work, finished
from .statistics import Measurement, TableRow, fill_table, measure_system, pool_folds


class Results:
    """The finished runs of a grid. Each system is measured once, even if it fills several rows."""

    def __init__(self, folder: Path, grid: Grid, *, n_replicates: int) -> None:
        self.grid = grid
        self.by_key = {run.key: result for run in grid.runs if (result := finished(folder, run)) is not None}
        self._fold = {key: load_predictions(folder / "runs" / key) for key in self.by_key}
        self._systems: dict[tuple[str, ...], Measurement] = {}
        self.tracks: ScoredTracks | None = None
        """Test tracks, which all systems share; None while no system is complete."""
        self.first_system: list[str] = []
        for table in grid.tables:
            for row in table.rows:
                for keys in self._complete(row).values():
                    self._refuse_other_tracks(pool_folds([self._fold[key] for key in keys]))
                    self.first_system = self.first_system or keys
        self._resampling = None if self.tracks is None else Resampling.of(self.tracks.groups, n_replicates, 0)

    @property
    def few(self) -> bool:
        """Whether the test split has too few artists for confidence intervals."""
        return self.tracks is not None and len(set(self.tracks.groups)) < FEW_GROUPS

    def system(self, row: Row) -> Measurement | None:
        """Measure the finished seeds of a row; return None if there is none."""
        if self._resampling is None:
            return None
        if row.trivial is not None:
            return self._trivial(row.trivial)
        complete = self._complete(row)
        name = tuple(key for keys in complete.values() for key in keys)
        if complete and name not in self._systems:
            scored = {seed: pool_folds([self._fold[key] for key in keys]) for seed, keys in complete.items()}
            self._systems[name] = measure_system(scored, self._resampling)
        return self._systems.get(name)

    def _complete(self, row: Row) -> dict[int | None, list[str]]:
        """Return run keys by seed, for seeds with all folds finished."""
        by_seed = {seed: self.grid.keys(row, seed) for seed in self.grid.seeds}
        return {seed: keys for seed, keys in by_seed.items() if keys and all(key in self.by_key for key in keys)}

    def _trivial(self, name: str) -> Measurement:
        assert self._resampling is not None
        folds = []
        for key in self.first_system:
            fold, result = self._fold[key], self.by_key[key]
            scores = baseline_scores(result["label_prior"], result["majority"], len(fold.ids))[name]
            folds.append(dataclasses.replace(fold, scores=scores.astype(np.float32), thresholds={}))
        return measure_system({None: pool_folds(folds)}, self._resampling)

    def _refuse_other_tracks(self, tracks: ScoredTracks) -> None:
        first = self.tracks = self.tracks or tracks
        same = tracks.ids == first.ids and tracks.genres == first.genres and tracks.groups == first.groups
        if not (same and np.array_equal(tracks.labels, first.labels)):
            raise RunError(
                f"{tracks.run} and {first.run} have different test tracks or genres and cannot share a table. Use a "
                "new folder for the ablation."
            )


@dataclass(frozen=True, kw_only=True)
class Table(Result):
    """A filled table; see :class:`mgc.heads.ablation.paper_tables.TableSpec`."""

    name: str
    title: str
    reference: str
    x_label: str | None
    rows: Sequence[TableRow]


@dataclass(frozen=True, kw_only=True)
class Ablation(Result):
    """Tables of an ablation, their caption, the failed runs, and the keys of runs that other processes have claimed."""

    caption: Mapping[str, Any]
    published_on: str
    tables: Sequence[Table]
    failures: Sequence[Failure]
    claimed: Sequence[str]


def tabulate(
    work: Work,
    grid: Grid,
    store: FeatureStore,
    *,
    failures: Sequence[Failure],
    claimed: Sequence[GridRun],
    n_replicates: int,
    on_progress: Progress = silent,
) -> Ablation:
    """Fill the tables with the finished runs."""
    results = Results(work.folder, grid, n_replicates=n_replicates)
    reasons = {serves: failure.reason for failure in failures for serves in failure.serves}
    total, done, tables = sum(len(spec.rows) for spec in grid.tables), 0, []
    for spec in grid.tables:
        measured = {}
        for row in spec.rows:
            if (system := results.system(row)) is not None:
                measured[row.name] = system
            done += 1
            on_progress("tables", done, total)
        tables.append(_table(spec, measured, reasons, has_names=grid.names is not None, test=not results.few))
    return Ablation(
        caption=_caption(results, store, n_replicates, work.labels),
        published_on=PUBLISHED_ON,
        tables=tables,
        failures=failures,
        claimed=[run.key for run in claimed],
    )


def _table(
    spec: TableSpec, measured: Mapping[str, Measurement], reasons: Mapping[str, str], *, has_names: bool, test: bool
) -> Table:
    names = {row.name: f"{spec.name}: {row.name}" for row in spec.rows}
    notes = {name: reasons[serves] for name, serves in names.items() if serves in reasons}
    if not has_names:
        notes |= {row.name: "needs a second store with other genre name prompts" for row in spec.rows if row.names}
    rows = fill_table(spec, measured, notes, test=test)
    return Table(name=spec.name, title=spec.title, reference=spec.reference, x_label=spec.x_label, rows=rows)


def _caption(results: Results, store: FeatureStore, n_replicates: int, labels: GenresById | None) -> dict[str, Any]:
    grid = results.grid
    base = grid.runs[0].config
    about: dict[str, Any] = {
        "store": store.path.name,
        "labels_sha256": labels_sha256(labels),
        "preset": grid.preset,
        "seeds": list(grid.seeds),
        "folds": len(grid.folds),
        "runs": len(grid.runs),
        "runs_finished": len(results.by_key),
        "encoder": base.encoder,
        "audio": sorted({" + ".join(run.config.audio) for run in grid.runs if run.config.modalities != "lyrics"}),
        "epochs": base.epochs,
        "batch_size": base.batch_size,
        "lr": base.lr,
        "n_replicates": n_replicates,
    }
    tracks = results.tracks
    if tracks is None:
        return about
    folds = [results.by_key[key] for key in results.first_system]
    tested = set(tracks.ids)
    songs = set()
    for row in ok_tracks(store, labels).select(["id", "artists", "song"]).to_pylist():
        if row["id"] in tested:
            songs.add((tuple(comparable_artists(row["artists"])), row["song"] or row["id"]))
    in_a_fold = dict.fromkeys(name for fold in folds for name in fold["genres"])
    has_track = np.any(tracks.labels, axis=0).tolist()
    return about | {
        "split": folds[0]["split"],
        "n_train": max(fold["n_train"] for fold in folds),
        "n_validation": max(fold["n_validation"] for fold in folds),
        "n_test": len(tested),
        "n_test_left_out": sum(fold["n_test"] + fold["n_test_left_out"] for fold in folds) - len(tested),
        "n_artists": len(set(tracks.groups)),
        "n_with_artist": count_with_artist(tracks.groups),
        "n_songs": len(songs),
        "n_genres": len(tracks.genres),
        "few": results.few,
        "genres": list(tracks.genres),
        "genres_left_out": [name for name in in_a_fold if name not in tracks.genres],
        "warnings": _warnings(results),
        "undefined_genres": [name for name, has in zip(tracks.genres, has_track, strict=True) if not has],
        "device": sorted({result["device"] for result in results.by_key.values()}),
        "precision": sorted({result["precision"] for result in results.by_key.values()}),
        "mgc": sorted({result["mgc"] for result in results.by_key.values() if "mgc" in result}),
        "hours": round(sum(result["seconds"] for result in results.by_key.values()) / 3600, 3),
    }


def _warnings(results: Results) -> list[str]:
    """Return the runs' warnings by frequency, each with its number of runs, after a warning of too few test artists."""
    counts = Counter(warning for result in results.by_key.values() for warning in result["warnings"])
    n_runs = len(results.by_key)
    warnings = [
        f"{warning} ({'each run' if count == n_runs else f'{count} of {n_runs} runs'})"
        for warning, count in counts.most_common()
    ]
    if results.few and results.tracks is not None:
        groups = results.tracks.groups
        units = resampled(len(groups), count_with_artist(groups))
        more = "" if results.grid.folds else f". Use --folds 5 to test on all {units}."
        few = f"only {len(set(groups))} {units} in the test split"
        warnings.insert(0, f"{few}: confidence intervals and significance need at least {FEW_GROUPS}{more}")
    return warnings
