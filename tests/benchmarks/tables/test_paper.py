"""Test the units of `make tables`: every unit can be planned, and its rows have the options of their names."""

from __future__ import annotations

import pytest

from benchmarks.tables.paper import OPTIONS, SEEDS, UNITS, matched_width
from mgc.heads.config import PRESETS, TrainConfig


@pytest.mark.parametrize("name", UNITS)
def test_units_use_the_shared_options_unless_their_rows_vary_them(name: str) -> None:
    runs = UNITS[name].grid("names").runs
    assert len(runs) % SEEDS == 0
    for run in runs:
        for option, value in OPTIONS.items():
            if name != "steps" or option not in ("lr", "epochs", "lr_halve_every"):
                assert getattr(run.config, option) == value or option == "schedule", (run.title, option)


def test_rows_of_the_presets_unit_equal_the_presets() -> None:
    grid = UNITS["presets"].grid(None)
    (table,) = grid.tables
    for row in table.rows:
        expected = TrainConfig.from_preset(row.name, **OPTIONS, seed=0)
        assert {**grid.config(row, 0).to_dict(), "preset": row.name} == expected.to_dict()
    assert [row.name for row in table.rows] == list(PRESETS)


def test_linear_control_needs_a_larger_width_to_match_the_query_head() -> None:
    assert matched_width() > 256
