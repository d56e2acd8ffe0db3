"""Evaluation, comparison and reports of runs."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache.errors import ConfigError, MissingExtraError
from ..cache.format.plan import is_store
from ..cache.format.recipe import text_fingerprints
from ..cache.reading.store import FeatureStore
from ..cache.steps import Progress, silent
from .shared import extra
from .sources import labels_for

if TYPE_CHECKING:
    from ..heads.evaluation.compare import Comparison
    from ..heads.evaluation.evaluate import Evaluation
    from ..heads.evaluation.label_issues import LabelIssue
    from ..heads.runs.published_model import LoadedModel
    from ..pipeline.sources.genre_aliases import SimilarGenre


def evaluate(
    run: Path,
    store: Path,
    *,
    split: str = "test",
    by: Sequence[str] = (),
    labels: Path | None = None,
    genre_delimiter: str | None = None,
    merge_genres: str | None = None,
    on_progress: Progress = silent,
) -> Evaluation:
    """Evaluate a trained model on stored tracks; writes ``metrics.json`` and the report in the run folder.

    Parameters
    ----------
    by : columns of the track table, for metrics per slice (:func:`mgc.heads.evaluation.slices.slices_by`).
    labels, genre_delimiter, merge_genres : as for :func:`train`.

    Raises
    ------
    RunError, RecipeMismatchError, StoreNotFoundError
    """
    from ..heads.runs.documents import find_model

    find_model(run)
    with FeatureStore.open(store) as features:
        relabelled = labels_for(features, labels, genre_delimiter, merge_genres)
    with extra("train"):
        from ..heads.evaluation.evaluate import evaluate as score
        from ..heads.runs.published_model import load_run

    with open_for(load_run(run), store) as features:
        result = score(run, features, split=split, by=by, labels=relabelled.genres, on_progress=on_progress)
    try_report(run)
    return dataclasses.replace(result, warnings=[*relabelled.remarks, *result.warnings])


def compare(first: Path, second: Path, *, common: bool = False, n_replicates: int = 1000, seed: int = 0) -> Comparison:
    """Compare two evaluated runs by paired differences; see :func:`mgc.heads.evaluation.compare.compare_runs`."""
    with extra("train"):
        from ..heads.evaluation.compare import compare_runs

    return compare_runs(first, second, common=common, n_replicates=n_replicates, seed=seed)


def open_for(loaded: LoadedModel, store: Path) -> FeatureStore:
    """Open a store with the features that the model was trained on.

    Raises
    ------
    RecipeMismatchError
        If its features do not fit the model.
    """
    from ..heads.evaluation.predict import store_for

    features = FeatureStore.open(store)
    trained_on = loaded.recipe.lyrics
    if trained_on is not None and features.recipe.lyrics != trained_on:
        for name, recipe in features.texts.items():
            if text_fingerprints(recipe, {}) == text_fingerprints(trained_on, {}):
                features.close()
                features = FeatureStore.open(store, text=name)
                break
    return store_for(loaded, features)


def report(
    *paths: Path, output: Path | None = None, audio_root: Path | None = None, on_progress: Progress = silent
) -> Path:
    """Write the report of a run, of several runs, or of a feature store.

    See :func:`mgc.reports.run.write_report`, :func:`mgc.reports.comparison.write_comparison` and
    :func:`mgc.reports.store.write_store_report`.

    Parameters
    ----------
    paths : a run, several runs, or one store.
    audio_root : folder of the songs, to play them in the report of one run.

    Raises
    ------
    ConfigError, RunError, StoreNotFoundError, MissingExtraError
    """
    stores = [path for path in paths if is_store(path)]
    if audio_root is not None and (len(paths) != 1 or stores):
        raise ConfigError("--audio-root needs the report of a single run. Give one run, or remove the option.")
    if stores and len(paths) > 1:
        raise ConfigError(
            f"{stores[0]}: a feature store with other inputs. Write its report with a command of its own."
        )
    if stores:
        with extra("report"):
            from ..reports.store import write_store_report

        return write_store_report(stores[0], output, similar=store_labels(stores[0]).to_dict()["similar_genres"])
    with extra("train"):
        from ..reports.comparison import write_comparison
        from ..reports.run import write_report

    if len(paths) == 1:
        return write_report(paths[0], output, audio_root=audio_root)
    return write_comparison(paths, output, on_progress=on_progress)


@dataclass(frozen=True, kw_only=True)
class LabelReport:
    """Labels of a store that deserve a second look.

    Attributes
    ----------
    similar : genres that are probably spellings of more frequent ones.
    issues : labels that are probably wrong or missing, the least plausible first; empty without runs.
    n_judged, n_labelled : tracks that a run has tested, and labelled tracks.
    """

    similar: Sequence[SimilarGenre]
    issues: Sequence[LabelIssue]
    n_judged: int
    n_labelled: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "similar_genres": [genre.to_dict() for genre in self.similar],
            "issues": [issue.to_dict() for issue in self.issues],
            "judged": self.n_judged,
            "labelled": self.n_labelled,
        }


def store_labels(store: Path, runs: Sequence[Path] = ()) -> LabelReport:
    """Return genre names that are spelled alike and, from the scores of test tracks of `runs`, doubtful labels.

    See :func:`mgc.heads.evaluation.label_issues.label_issues`.

    Raises
    ------
    RunError, StoreNotFoundError
    """
    from ..pipeline.sources.genre_aliases import similar_genres

    with FeatureStore.open(store) as features:
        tracks = features.newest_tracks(["id", "genres"])
    genres = dict(zip(tracks.column("id").to_pylist(), tracks.column("genres").to_pylist(), strict=True))
    similar = similar_genres(Counter(name for names in genres.values() for name in names))
    issues, n_judged = list["LabelIssue"](), 0
    if runs:
        from ..heads.evaluation.label_issues import label_issues

        issues, n_judged = label_issues(runs, genres)
    return LabelReport(
        similar=similar, issues=issues, n_judged=n_judged, n_labelled=sum(bool(names) for names in genres.values())
    )


REPORT = "report.html"
"""Name of the report in a run folder."""


def try_report(run: Path, audio_root: Path | None = None) -> tuple[str | None, list[str]]:
    """Write a report; without the extra ``report`` return a remark, so that a training does not fail."""
    try:
        return str(report(run, audio_root=audio_root)), []
    except MissingExtraError as error:
        return None, [f"no report: {error}"]
