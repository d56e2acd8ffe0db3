"""Which runs fill the tables: every configuration once, for each seed and fold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..cache.errors import ConfigError
from ..cache.schema import canonical_json
from .ablate_rows import Row, TableSpec
from .config import TrainConfig
from .folds import Fold

NOT_PART_OF_A_RUN = ("preset", "device", "home")
"""Options that do not decide what a run learns."""

SET_BY_ROWS = frozenset(
    {"seed", "model", "lambda_", "bce_reduction", "contrastive", "attention", "graph", "modalities"}
)


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One training run, and the table rows (``components: all``) that it serves; `fold` None is the one split."""

    config: TrainConfig
    fold: Fold | None
    serves: tuple[str, ...]

    @property
    def key(self) -> str:
        """Name of its folder."""
        return run_key(self.config, self.fold)

    @property
    def told(self) -> str:
        """The run in a few words."""
        fold = "" if self.fold is None else f", fold {self.fold.number} of {self.fold.of}"
        return f"{self.serves[0]}, seed {self.config.seed}{fold}"


def run_key(config: TrainConfig, fold: Fold | None = None) -> str:
    """A hash of the options that are not the defaults, the seed, and the fold.

    Only what differs from the defaults counts, so that an option added to mgc later does not orphan results.
    """
    defaults, values = TrainConfig().to_dict(), config.to_dict()
    told = {name: value for name, value in values.items() if value != defaults[name] and name not in NOT_PART_OF_A_RUN}
    told.pop("seed", None)
    name = f"{hashlib.sha256(canonical_json(told)).hexdigest()[:12]}-seed{config.seed}"
    return name if fold is None else f"{name}-{fold.by}-fold{fold.number}of{fold.of}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An ablation: its tables and what all runs share.

    Attributes
    ----------
    preset, options : of ``TrainConfig``; a row's own options come on top.
    seeds : every configuration is trained with each; all share one split.
    folds : test sets whose predictions are pooled; empty for one split.
    """

    tables: Sequence[TableSpec]
    preset: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    seeds: Sequence[int] = (0, 1, 2)
    folds: Sequence[Fold] = ()

    def __post_init__(self) -> None:
        if not self.seeds:
            raise ConfigError("seeds: want at least one")
        if taken := sorted(SET_BY_ROWS & set(self.options)):
            raise ConfigError(f"{', '.join(taken)}: the tables set these themselves")

    def config(self, row: Row, seed: int) -> TrainConfig:
        """The options of a row's run."""
        return TrainConfig.from_preset(self.preset, **{**self.options, **row.options, "seed": seed})

    def keys(self, row: Row, seed: int) -> list[str]:
        """The runs that make one seed of a row: one, or one a fold."""
        config = self.config(row, seed)
        return [run_key(config, fold) for fold in self.folds or (None,)]

    @cached_property
    def runs(self) -> list[PlannedRun]:
        """All runs, equal ones once; all of one seed before the next, so that whole tables are there early."""
        planned: dict[str, PlannedRun] = {}
        for seed in self.seeds:
            for fold in self.folds or (None,):
                for table in self.tables:
                    for row in table.rows:
                        if row.trivial is None:
                            self._add(planned, f"{table.name}: {row.name}", self.config(row, seed), fold)
        return list(planned.values())

    @staticmethod
    def _add(planned: dict[str, PlannedRun], serves: str, config: TrainConfig, fold: Fold | None) -> None:
        known = planned.get(run_key(config, fold))
        names = (serves,) if known is None else (*known.serves, serves)
        run = PlannedRun(config=config, fold=fold, serves=names)
        planned[run.key] = run
