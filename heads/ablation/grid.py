"""Plan the runs that fill the tables: every configuration once per seed and fold."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ...cache.durable import canonical_json
from ...cache.errors import ConfigError
from ..config import TrainConfig, merge_options
from .paper_tables import Row, TableSpec

if TYPE_CHECKING:
    from ..data.folds import Fold

NOT_PART_OF_A_RUN = ("preset", "device", "placement")
"""Options that do not change what a run learns."""

SET_BY_ROWS = frozenset({"seed", "model", "lambda_", "bce_reduction", "contrastive", "attention", "head", "modalities"})


@dataclass(frozen=True, kw_only=True)
class GridRun:
    """One training run, and the table rows (``components: all``) that it serves.

    Attributes
    ----------
    fold : None where the ablation uses a single split.
    names : hash of the other genre name prompts that the run learns from; None for the store's own; see :class:`Grid`.
    """

    config: TrainConfig
    fold: Fold | None
    names: str | None
    serves: tuple[str, ...]

    @property
    def key(self) -> str:
        """Name of the run's folder: a hash of the non-default options, then seed, fold and genre name prompts.

        The hash covers only options that differ from the defaults, so that existing results stay valid when mgc gains
        an option.
        """
        defaults, ignored = TrainConfig().to_dict(), ("seed", *NOT_PART_OF_A_RUN)
        options = {
            name: value
            for name, value in self.config.to_dict().items()
            if value != defaults[name] and name not in ignored
        }
        key = f"{hashlib.sha256(canonical_json(options)).hexdigest()[:12]}-seed{self.config.seed}"
        if self.fold is not None:
            key += f"-{self.fold.by}-fold{self.fold.number}of{self.fold.of}"
        return key if self.names is None else f"{key}-names-{self.names}"

    @property
    def title(self) -> str:
        """First row that the run serves, with seed and fold."""
        fold = "" if self.fold is None else f", fold {self.fold.number} of {self.fold.of}"
        return f"{self.serves[0]}, seed {self.config.seed}{fold}"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """An ablation: its tables, and the options that all runs share.

    Attributes
    ----------
    preset, options : of ``TrainConfig``; the options of a row override them.
    seeds : every configuration is trained with each seed; all share one split.
    folds : test sets whose predictions are pooled; empty for a single split.
    names : hash of the genre embedding of a second store of the same tracks with other genre name prompts. None if
        there is no such store; rows that need it then stay empty.
    """

    tables: Sequence[TableSpec]
    preset: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    seeds: Sequence[int] = (0, 1, 2)
    folds: Sequence[Fold] = ()
    names: str | None = None

    def __post_init__(self) -> None:
        if not self.seeds:
            raise ConfigError("seeds: none given. Give at least one.")
        if conflicts := sorted(SET_BY_ROWS & set(self.options)):
            raise ConfigError(f"{', '.join(conflicts)}: set by the rows of the tables. Leave out of the options.")

    def config(self, row: Row, seed: int) -> TrainConfig:
        """Return the options of a row's run."""
        return TrainConfig.from_preset(self.preset, **merge_options(self.options, row.options), seed=seed)

    def keys(self, row: Row, seed: int) -> list[str]:
        """Return the keys of the runs for one seed of a row: one, or one per fold; none for a row without training."""
        if row.trivial is not None or (row.names and self.names is None):
            return []
        return [self._run(row, seed, fold).key for fold in self.folds or (None,)]

    def _run(self, row: Row, seed: int, fold: Fold | None) -> GridRun:
        return GridRun(config=self.config(row, seed), fold=fold, names=self.names if row.names else None, serves=())

    @cached_property
    def added_audio(self) -> tuple[str, ...]:
        """Names of the added feature sets that any run has as audio input; all runs use tracks that have them all."""
        return tuple(sorted({name for run in self.runs for name in run.config.added_audio}))

    @cached_property
    def runs(self) -> list[GridRun]:
        """All runs without duplicates, ordered by seed, so that complete tables exist early."""
        runs: dict[str, GridRun] = {}
        for seed in self.seeds:
            for fold in self.folds or (None,):
                for table in self.tables:
                    for row in table.rows:
                        if self.keys(row, seed):
                            run = self._run(row, seed, fold)
                            run = runs.get(run.key, run)
                            runs[run.key] = dataclasses.replace(run, serves=(*run.serves, f"{table.name}: {row.name}"))
        return list(runs.values())
