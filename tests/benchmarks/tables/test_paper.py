"""The tables of `make tables`: every unit can be planned, and its rows are what they are called."""

from __future__ import annotations

import pytest

from benchmarks.tables.paper import OPTIONS, SEEDS, UNITS, matched_width
from mgc.heads.config import PRESETS, TrainConfig


@pytest.mark.parametrize("name", UNITS)
def test_every_unit_trains_with_the_shared_options_unless_its_rows_are_about_them(name: str) -> None:
    runs = UNITS[name].grid("names").runs
    assert len(runs) % SEEDS == 0
    for run in runs:
        for option, value in OPTIONS.items():
            if name != "steps" or option not in ("lr", "epochs", "lr_halve_every"):
                assert getattr(run.config, option) == value or option == "schedule", (run.title, option)


def test_rows_of_presets_are_the_presets() -> None:
    grid = UNITS["presets"].grid(None)
    (table,) = grid.tables
    for row in table.rows:
        expected = TrainConfig.from_preset(row.name, **OPTIONS, seed=0)
        assert {**grid.config(row, 0).to_dict(), "preset": row.name} == expected.to_dict()
    assert [row.name for row in table.rows] == list(PRESETS)


def test_the_linear_control_has_the_parameters_of_the_query_head() -> None:
    assert matched_width() > 256
