"""The rows of the tables as training options, and what the paper published for them.

Numbers are those of Ru et al. 2023, Tables 1 and 2, on Music4All: example-based Jaccard index ("accuracy") and F1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...cache.errors import ConfigError
from ..config import SWITCHES, TrainConfig, switched_on

PUBLISHED_ON = "Music4All"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One system.

    Attributes
    ----------
    options : fields of ``TrainConfig`` that make it, over the options of the whole ablation; ``model_options`` join
        those of it.
    published : Jaccard index and F1 in the paper, where it has the row.
    trivial : name of a system of :mod:`mgc.heads.metrics.trivial_baselines`, for a row that needs no training.
    names : learns from the store with other genre name prompts.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    published: tuple[float, float] | None = None
    trivial: str | None = None
    names: bool = False


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """One table: `reference` names the row that the others are compared with; `x_label` the axis of a sweep."""

    name: str
    title: str
    rows: tuple[Row, ...]
    reference: str
    x_label: str | None = None


SYSTEMS = TableSpec(
    name="systems",
    title="Systems (Table 1 of the paper)",
    reference="ours",
    rows=(
        Row(name="usual genres", trivial="majority"),
        Row(name="label prior", trivial="label_prior"),
        Row(name="label frequency", trivial="label_frequency"),
        Row(name="santana (reconstructed)", options={"model": "santana"}, published=(0.354, 0.419)),
        Row(name="pandeya (reconstructed)", options={"model": "pandeya"}, published=(0.387, 0.442)),
        Row(name="ours, sound alone", options={"modalities": "audio"}),
        Row(name="ours, words alone", options={"modalities": "lyrics"}),
        Row(name="ours", published=(0.456, 0.534)),
    ),
)


def _parts(*on: str) -> dict[str, Any]:
    parts = {name: name in on for name in ("contrastive", "attention")}
    return {**parts, "head": "graph" if "graph" in on else "linear"}


COMPONENTS = TableSpec(
    name="components",
    title="Components of the model (Table 2 of the paper)",
    reference="all",
    rows=(
        Row(name="none", options=_parts(), published=(0.372, 0.438)),
        Row(name="A-L", options=_parts("contrastive"), published=(0.396, 0.475)),
        Row(name="SCMA", options=_parts("attention"), published=(0.408, 0.491)),
        Row(name="GCEM", options=_parts("graph"), published=(0.403, 0.487)),
        Row(name="A-L + SCMA", options=_parts("contrastive", "attention"), published=(0.425, 0.513)),
        Row(name="A-L + GCEM", options=_parts("contrastive", "graph"), published=(0.419, 0.508)),
        Row(name="SCMA + GCEM", options=_parts("attention", "graph"), published=(0.437, 0.515)),
        Row(name="all", options=_parts("contrastive", "attention", "graph"), published=(0.456, 0.534)),
    ),
)


def _sweep(**options: Any) -> tuple[Row, ...]:
    return tuple(Row(name=f"{tenth / 10:g}", options={"lambda_": tenth / 10, **options}) for tenth in range(11))


LAMBDA = TableSpec(
    name="lambda",
    title="Weight of the audio-lyrics loss (Figure 2 of the paper)",
    reference="0.3",
    x_label="lambda",
    rows=_sweep(),
)

LAMBDA_SUM = TableSpec(
    name="lambda-sum",
    title="Weight of the audio-lyrics loss, cross-entropy summed over genres (another reading of Figure 2)",
    reference="0.3",
    x_label="lambda",
    rows=_sweep(bce_reduction="sum"),
)


def _switches(*on: str) -> dict[str, Any]:
    """The named switches on, the others off."""
    defaults = TrainConfig()
    return {option: getattr(defaults, option) for option in switched_on(*SWITCHES)} | switched_on(*on)


def _plus_rows() -> Iterable[Row]:
    yield Row(name="paper", options=_switches())
    for name in SWITCHES:
        yield Row(name=name.replace("_", " "), options=_switches(name))
    yield Row(name="genre names", options=_switches(), names=True)
    yield Row(name="genre vectors not centred", options=_switches() | {"model_options": {"graph_similarity": "raw"}})
    yield Row(name="all together", options=_switches(*SWITCHES))
    yield Row(name="all and genre names", options=_switches(*SWITCHES), names=True)


PLUS_TABLE = TableSpec(
    name="plus",
    title="Switches beyond the paper, each alone and all together",
    reference="paper",
    rows=tuple(_plus_rows()),
)

TABLES: Mapping[str, TableSpec] = {spec.name: spec for spec in (SYSTEMS, COMPONENTS, LAMBDA, LAMBDA_SUM, PLUS_TABLE)}
DEFAULT_TABLES = ("systems", "components", "lambda", "plus")


def chosen_tables(names: Sequence[str]) -> list[TableSpec]:
    """The tables of these names, each once, in the order given.

    Raises
    ------
    ConfigError
        If there is no such table, or none is named.
    """
    unknown = [name for name in names if name not in TABLES]
    if unknown or not names:
        raise ConfigError(f"tables {','.join(names)!r}: want some of {', '.join(TABLES)}")
    return [TABLES[name] for name in dict.fromkeys(names)]
