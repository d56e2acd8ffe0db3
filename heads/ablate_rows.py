"""The rows of the paper's tables as training options, and what the paper published for them.

Numbers are those of Ru et al. 2023, Tables 1 and 2, on Music4All: example-based Jaccard index ("accuracy") and F1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..cache.errors import ConfigError

PUBLISHED_ON = "Music4All"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One system.

    Attributes
    ----------
    options : fields of ``TrainConfig`` that make it, over the options of the whole ablation.
    published : Jaccard index and F1 in the paper, where it has the row.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    published: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """One table: `reference` names the row that the others are compared with."""

    name: str
    title: str
    rows: tuple[Row, ...]
    reference: str
    x_label: str | None = None


def _parts(*on: str) -> dict[str, bool]:
    return {name: name in on for name in ("contrastive", "attention", "graph")}


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

LAMBDA = TableSpec(
    name="lambda",
    title="Weight of the audio-lyrics loss (Figure 2 of the paper)",
    reference="0.3",
    x_label="lambda",
    rows=tuple(Row(name=f"{tenth / 10:g}", options={"lambda_": tenth / 10}) for tenth in range(11)),
)

TABLES: Mapping[str, TableSpec] = {spec.name: spec for spec in (COMPONENTS, LAMBDA)}


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
