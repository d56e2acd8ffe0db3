"""From a store to a model, or to the tables of many."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..cache.errors import MissingExtraError
from ..cache.reading.store import FeatureStore
from ..cache.steps import Progress, silent
from .runs import REPORT, try_report
from .shared import extra, refuse_store_as_output
from .sources import labels_for

if TYPE_CHECKING:
    from ..heads.ablation.ablate import AblationForecast
    from ..heads.ablation.results import Ablation
    from ..heads.config import TrainConfig
    from ..heads.runs.tensorboard import EventLog
    from ..heads.training.dry_run import DryRun
    from ..heads.training.train import TrainingResult

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """Result of a training, its files (`report` is None if it could not be written), and remarks."""

    run: Path
    store: Path
    report: str | None
    result: TrainingResult
    remarks: list[str]

    def to_dict(self) -> dict[str, Any]:
        places = {"run": str(self.run), "store": str(self.store), "report": self.report}
        return {**places, **self.result.to_dict(), "remarks": self.remarks}


@dataclass(frozen=True, kw_only=True)
class TrainingPreview:
    """Preview of a training, whether its folder holds a run already, and remarks."""

    run: Path
    run_exists: bool
    store: Path
    result: DryRun
    remarks: list[str]

    def to_dict(self) -> dict[str, Any]:
        result = self.result.to_dict()
        places = {"run": str(self.run), "run_exists": self.run_exists, "store": str(self.store)}
        return {**places, **result, "warnings": [*self.remarks, *result["warnings"]]}


@dataclass(frozen=True, kw_only=True)
class AblationReport:
    """Tables of many runs and their files, or the forecast of a dry run; and remarks."""

    result: Ablation | AblationForecast
    remarks: list[str]
    files: list[str] | None = None

    def to_dict(self) -> dict[str, Any]:
        document = self.result.to_dict()
        if self.files is None:
            return {**document, "remarks": self.remarks}
        claimed = document.pop("claimed")
        return {**document, "files": self.files, "remarks": self.remarks, "claimed": claimed}


def train(
    store: Path,
    run: Path,
    *,
    preset: str | None = None,
    genres_file: Path | None = None,
    labels: Path | None = None,
    genre_delimiter: str | None = None,
    merge_genres: str | None = None,
    text: str | None = None,
    options: Mapping[str, Any] | TrainConfig | None = None,
    settings: Sequence[str] = (),
    resume: bool = False,
    save_every_s: float | None = None,
    tensorboard: bool = False,
    stop: Callable[[], bool] | None = None,
    on_warning: Callable[[str], None] = log.warning,
    on_progress: Progress = silent,
) -> TrainingReport:
    """Train a model from a store and write its report.

    Parameters
    ----------
    labels, genre_delimiter : a table with the columns id and genres that replaces the store's labels; tracks that it
        does not list are unlabelled.
    merge_genres : aliases of genres to merge in these labels, or in the store's own: ``common``, or a table; see
        :mod:`mgc.pipeline.sources.genre_aliases`.
    text : name of the added text features to train on; None for the store's own.
    preset : name of :data:`mgc.heads.config.PRESETS`; None is ``default``, or the options of a resumed run.
    options : fields of :class:`mgc.heads.config.TrainConfig`, or such a configuration, which replaces preset, file and
        settings.
    settings : further fields, also of ``ModelConfig``, as ``key=value``; they override `options`.
    tensorboard : write the curves for TensorBoard. A resumed run with curves continues them.
    save_every_s, stop, on_warning : see :func:`mgc.heads.training.train.train`.

    Raises
    ------
    ConfigError, RunError, TrainingError, SaveError, StoppedError, StoreNotFoundError, MissingExtraError
    """
    refuse_store_as_output(run)
    config = None if resume else make_config(preset, genres_file, options, settings)
    with FeatureStore.open(store, text=text) as features:
        config = config or make_config(preset, genres_file, options, settings, resumed=run)  # imports torch
        relabelled = labels_for(features, labels, genre_delimiter, merge_genres)
        with extra("train"):
            from ..heads.training.train import SAVE_EVERY_S
            from ..heads.training.train import train as fit
        event_log, unlogged = _event_log(run, tensorboard)
        result = fit(
            features,
            run,
            config,
            labels=relabelled.genres,
            resume=resume,
            save_every_s=SAVE_EVERY_S if save_every_s is None else save_every_s,
            stop=stop,
            epoch_log=event_log,
            on_warning=on_warning,
            on_progress=on_progress,
        )
    page, remarks = None, list[str]()
    if result.nothing_to_do and (run / REPORT).exists():
        page = str(run / REPORT)
    else:
        page, remarks = try_report(run)
    remarks = [*relabelled.remarks, *result.remarks, *unlogged, *remarks]
    return TrainingReport(run=run, store=store, report=page, result=result, remarks=remarks)


def _event_log(run: Path, required: bool) -> tuple[type[EventLog] | None, list[str]]:
    """Return the writer of curves for TensorBoard, or None; and a remark where a run's curves end."""
    from ..heads.runs.history import EVENTS

    if not required and not any(run.glob(EVENTS)):
        return None, []
    try:
        with extra("tensorboard"):
            from ..heads.runs.tensorboard import EventLog
    except MissingExtraError as error:
        if required:
            raise
        return None, [f"warning: the TensorBoard events of this run are not continued: {error}"]
    return EventLog, []


def train_dry_run(
    store: Path,
    run: Path,
    *,
    preset: str | None = None,
    genres_file: Path | None = None,
    labels: Path | None = None,
    genre_delimiter: str | None = None,
    merge_genres: str | None = None,
    text: str | None = None,
    options: Mapping[str, Any] | TrainConfig | None = None,
    settings: Sequence[str] = (),
    on_progress: Progress = silent,
) -> TrainingPreview:
    """Preview :func:`train`: tracks, genres, memory, checkpoints, and seconds per epoch from a few real steps.

    Writes nothing.

    Raises
    ------
    ConfigError, TrainingError, StoreNotFoundError
    """
    refuse_store_as_output(run)
    config = make_config(preset, genres_file, options, settings)
    with FeatureStore.open(store, text=text) as features:
        relabelled = labels_for(features, labels, genre_delimiter, merge_genres)
        with extra("train"):
            from ..heads.training.dry_run import dry_run

        result = dry_run(features, config, labels=relabelled.genres, on_progress=on_progress)
    run_exists = any((run / name).exists() for name in ("config.yaml", "last", "best"))
    return TrainingPreview(run=run, run_exists=run_exists, store=store, result=result, remarks=list(relabelled.remarks))


def make_config(
    preset: str | None = None,
    genres_file: Path | None = None,
    options: Mapping[str, Any] | TrainConfig | None = None,
    settings: Sequence[str] = (),
    *,
    resumed: Path | None = None,
) -> TrainConfig:
    """Combine a preset, options, a file of genres, and settings; the later override the earlier.

    Parameters
    ----------
    resumed : a run whose options replace the preset's, if no preset is given and the run has a checkpoint.

    Raises
    ------
    ConfigError
        If a preset or option is unknown, or a value is invalid.
    """
    from ..heads.config import TrainConfig, merge_options

    if isinstance(options, TrainConfig):
        return options
    given = _combine(genres_file, options, settings)
    if preset is None and resumed is not None:
        with extra("train"):
            from ..heads.runs.checkpoint import newest_state

        if (saved := newest_state(resumed)) is not None:
            return TrainConfig.from_dict(merge_options(saved.config, given))
    return TrainConfig.from_preset(preset or "default", **given)


def _combine(genres_file: Path | None, options: Mapping[str, Any] | None, settings: Sequence[str]) -> dict[str, Any]:
    from ..heads.config import merge_options, read_settings
    from ..heads.data.labels import read_genres_file

    genres = {} if genres_file is None else {"genres": read_genres_file(genres_file)}
    return merge_options({**(options or {}), **genres}, read_settings(settings))


def ablate(
    store: Path,
    folder: Path,
    *,
    tables: Sequence[str] | None = None,
    n_seeds: int = 3,
    n_folds: int | None = None,
    fold_by: Literal["artist", "song"] = "artist",
    preset: str | None = None,
    genres_file: Path | None = None,
    labels: Path | None = None,
    genre_delimiter: str | None = None,
    merge_genres: str | None = None,
    text: str | None = None,
    names_store: Path | None = None,
    options: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
    jobs: int = 1,
    shard: tuple[int, int] | None = None,
    training: bool = True,
    keep_runs: bool = False,
    dry_run: bool = False,
    stop: Callable[[], bool] | None = None,
    on_progress: Progress = silent,
) -> AblationReport:
    """Train the systems of the paper's tables, or continue; see :func:`mgc.heads.ablation.ablate.ablate`.

    Parameters
    ----------
    tables : names of :data:`mgc.heads.ablation.paper_tables.TABLES`; None for those of the paper.
    n_seeds : runs of each configuration, with seeds 0, 1, ...; all share one split.
    n_folds, fold_by : cross-validation instead of one split; see :func:`mgc.heads.data.folds.make_folds`.
    names_store : a store of the same tracks with other genre name prompts, for the rows about prompts.
    preset, labels, merge_genres, options, settings : as for :func:`train`, for every run.
    dry_run : only list the runs and estimate their duration; see :func:`mgc.heads.ablation.ablate.dry_run`.

    Raises
    ------
    ConfigError, RunError, SaveError, StoppedError, StoreNotFoundError
    """
    refuse_store_as_output(folder)
    from ..heads.ablation.grid import Grid
    from ..heads.ablation.paper_tables import chosen_tables
    from ..heads.data.embeddings import audio_feature_sets, count_required, require_audio
    from ..heads.data.labels import left_out

    preset, combined = preset or "default", _combine(genres_file, options, settings)
    with ExitStack() as opened:
        features = opened.enter_context(FeatureStore.open(store, text=text))
        has_mel, added = features.recipe.mel is not None, audio_feature_sets(features)
        specs = chosen_tables(tables, preset=preset, has_mel=has_mel, added=added)
        grid = Grid(tables=specs, preset=preset, options=combined, seeds=range(n_seeds))
        _ = grid.runs  # checks the options of every row
        features, renamed = require_audio(features, grid.added_audio), None
        if names_store is not None:
            renamed = opened.enter_context(FeatureStore.open(names_store, text=text))
            renamed = require_audio(renamed, grid.added_audio)
        relabelled = labels_for(features, labels, genre_delimiter, merge_genres)
        with extra("train"):
            from ..heads.ablation import ablate as ablation
            from ..heads.ablation.runs import Work, names_of
            from ..heads.data.folds import make_folds
            from ..reports.ablation import write_ablation

        folds = [] if n_folds is None else make_folds(features, n_folds, by=fold_by, labels=relabelled.genres)
        names = None if renamed is None else names_of(features, renamed, relabelled.genres)
    grid = dataclasses.replace(grid, folds=folds, names=names)
    work = Work(
        folder=folder,
        store=store,
        text=text,
        labels=relabelled.genres,
        names_store=names_store,
        added_audio=grid.added_audio,
        keep_runs=keep_runs,
    )
    remarks = [*relabelled.remarks, *left_out(count_required(features))]
    if dry_run:
        forecast = ablation.dry_run(work, grid, jobs=jobs, on_progress=on_progress)
        return AblationReport(result=forecast, remarks=remarks)
    result = ablation.ablate(work, grid, jobs=jobs, shard=shard, training=training, stop=stop, on_progress=on_progress)
    document = result.to_dict()
    del document["claimed"]  # changes with time; the files list finished runs only
    files, plots = write_ablation(folder, document)
    return AblationReport(result=result, remarks=[*remarks, *plots], files=files)
