"""Everything that a run folder holds for its page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from ..cache.errors import RunError
from ..heads.evaluation.scored_tracks import ScoredTracks, load_listed_predictions
from ..heads.runs.history import read_history
from .html import Json


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The files of a run folder; all but ``config.yaml`` may be missing from a run that is young or was cut short.

    Attributes
    ----------
    config : ``config.yaml``. about : ``run.json``. epochs : lines of ``metrics.jsonl``.
    labels, graph, preprocessor : of ``best/``. evaluations : ``metrics.json`` of ``mgc evaluate``, by split.
    scored, listing : scores of the test tracks, and artists, song, path of each; None and empty before an evaluation.
    """

    run: Path
    config: Json
    about: Json
    epochs: Sequence[Json]
    labels: Json
    graph: Json
    preprocessor: Json
    evaluations: Json
    scored: ScoredTracks | None
    listing: Sequence[Json]

    @property
    def evaluation(self) -> Json:
        """The evaluation that the page shows: of the test split where there is one; empty before any."""
        splits = [name for name in ("test", "all", "validation", "train") if name in self.evaluations]
        return dict(self.evaluations[splits[0]]) if splits else {}


def read_run(run: Path) -> RunRecord:
    """Read a run folder.

    Raises
    ------
    RunError
        `run` is no run folder, or one of its files cannot be read or does not belong to the others.
    """
    if not (run / "config.yaml").is_file():
        raise RunError(
            f"{run}: no run of `mgc train` here (config.yaml is missing), and no feature store; give the folder itself"
        )
    evaluations = _mapping(run / "metrics.json")
    scored, listing = load_listed_predictions(run) if "test" in evaluations else (None, [])
    return RunRecord(
        run=run,
        config=_mapping(run / "config.yaml"),
        about=_mapping(run / "run.json"),
        epochs=[asdict(record) for record in read_history(run / "metrics.jsonl")],
        labels=_mapping(run / "best" / "labels.json"),
        graph=_mapping(run / "best" / "graph.json"),
        preprocessor=_mapping(run / "best" / "preprocessor.json"),
        evaluations=evaluations,
        scored=scored,
        listing=listing,
    )


def _mapping(path: Path) -> Json:
    """A YAML or JSON file that holds a mapping; empty where there is no such file."""
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        data = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunError(f"{path}: cannot be read ({error}); restore it, or train or evaluate again") from error
    if not isinstance(data, dict):
        raise RunError(f"{path}: want a mapping, found {type(data).__name__}; restore it, or train or evaluate again")
    return data
