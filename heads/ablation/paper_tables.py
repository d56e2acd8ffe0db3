"""The rows of the tables as training options, with the published figures.

Source: Ru et al. 2023, Tables 1 and 2, on Music4All: example-based Jaccard index ("accuracy") and F1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...cache.errors import ConfigError
from ..config import SWITCHES, TrainConfig, merge_options
from ..model.config import MEL, ModelConfig

PUBLISHED_ON = "Music4All"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One system.

    Attributes
    ----------
    options : fields of ``TrainConfig`` that override the options of the ablation; ``model_options`` are merged.
    published : Jaccard index and F1 in the paper; None if the paper lacks the row.
    trivial : name of a system of :mod:`mgc.heads.metrics.trivial_baselines`, for a row that needs no training.
    names : True for a row that learns from the store with other genre name prompts.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    published: tuple[float, float] | None = None
    trivial: str | None = None
    names: bool = False


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """One table. `reference` is the row that the others are compared with, `x_label` the x axis of a sweep."""

    name: str
    title: str
    rows: tuple[Row, ...]
    reference: str
    x_label: str | None = None


SYSTEMS = TableSpec(
    name="systems",
    title="Systems (Table 1 of the paper)",
    reference="ru2023",
    rows=(
        Row(name="majority label set", trivial="majority"),
        Row(name="label prior", trivial="label_prior"),
        Row(name="label frequency", trivial="label_frequency"),
        Row(name="santana (reconstructed)", options={"model": "santana", "audio": MEL}, published=(0.354, 0.419)),
        Row(name="pandeya (reconstructed)", options={"model": "pandeya", "audio": MEL}, published=(0.387, 0.442)),
        Row(name="ru2023, audio only", options={"modalities": "audio"}),
        Row(name="ru2023, lyrics only", options={"modalities": "lyrics"}),
        Row(name="ru2023", published=(0.456, 0.534)),
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


PARTS: Mapping[str, Mapping[str, Any]] = {
    "cross-modal attention": {"attention": True},
    "audio-lyrics loss": {"contrastive": True},
    "linear head": {"head": "linear"},
    "graph head": {"head": "graph"},
    "query head": {"head": "query"},
}


def switches(preset: str | None) -> TableSpec:
    """Return a table of a preset with each component and each of `SWITCHES` toggled alone."""
    plain = TrainConfig.from_preset(preset)
    rows = [Row(name=preset or "no preset")]
    for name, change in {**PARTS, **SWITCHES}.items():
        if name.startswith("graph ") and plain.head != "graph" and name in SWITCHES:
            continue
        if TrainConfig.from_dict(merge_options(plain.to_dict(), change)) != plain:
            rows.append(Row(name=name, options=change))
        elif "head" not in change:
            rows.append(Row(name=f"without {name}", options=_as_in_the_paper(change, flip=name in PARTS)))
    rows.append(Row(name="genre names", names=True))
    return TableSpec(
        name="switches",
        title="Each component and each switch, toggled alone",
        reference=rows[0].name,
        rows=tuple(rows),
    )


def audio_inputs(has_mel: bool, added: Sequence[str]) -> TableSpec:
    """Return a table of the audio inputs of a store: mel, each added feature set, and both.

    Raises
    ------
    ConfigError
        If the store has no added feature set that can be audio input.
    """
    if not added:
        raise ConfigError("table audio: the store has no added audio features. Add some, such as --add musicnn.")
    inputs = [(MEL,)] * has_mel + [(name,) for name in added] + [(MEL, name) for name in added if has_mel]
    rows = tuple(Row(name=" + ".join(names), options={"audio": ",".join(names)}) for names in inputs)
    return TableSpec(name="audio", title="Audio inputs", reference=rows[0].name, rows=rows)


def _as_in_the_paper(change: Mapping[str, Any], *, flip: bool) -> dict[str, Any]:
    """Return the paper's values of the options that a change sets; `flip` negates those of a component."""
    if flip:
        return {name: not value for name, value in change.items()}
    model = ModelConfig(n_genres=1, text_dim=1)
    values = {name: getattr(TrainConfig(), name) for name in change if name != "model_options"}
    if "model_options" in change:
        values["model_options"] = {name: getattr(model, name) for name in change["model_options"]}
    return values


TABLES = ("systems", "components", "lambda", "lambda-sum", "switches", "audio")
DEFAULT_TABLES = ("systems", "components", "lambda", "switches")


def chosen_tables(
    names: Sequence[str] | None = None,
    *,
    preset: str | None = None,
    has_mel: bool = True,
    added: Sequence[str] = (),
) -> list[TableSpec]:
    """Return the tables with the given names, without duplicates, in the given order; None for `DEFAULT_TABLES`.

    Parameters
    ----------
    preset : preset of the ablation, which table ``switches`` varies.
    has_mel, added : audio inputs of the store, which table ``audio`` compares.

    Raises
    ------
    ConfigError
        If a name is unknown, `names` is empty, or the store has no added feature set for table ``audio``.
    """
    names = DEFAULT_TABLES if names is None else names
    unknown = [name for name in names if name not in TABLES]
    if unknown or not names:
        raise ConfigError(f"tables {','.join(names)!r}: unknown or empty. Choose from {', '.join(TABLES)}.")
    makers: dict[str, Callable[[], TableSpec]] = {
        "switches": lambda: switches(preset),
        "audio": lambda: audio_inputs(has_mel, added),
    }
    fixed = {table.name: table for table in (SYSTEMS, COMPONENTS, LAMBDA, LAMBDA_SUM)}
    return [fixed[name] if name in fixed else makers[name]() for name in dict.fromkeys(names)]
