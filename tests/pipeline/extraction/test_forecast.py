"""Forecasts of duration and size, against the actual extraction."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mgc.commands.extraction import _print_forecast
from mgc.pipeline.extraction.forecast import Forecast, forecast_path, load_forecast
from mgc.pipeline.extraction.trial import _track_seconds, default_sample

HOUR = Forecast(
    tracks=12_800,
    parts=100,
    part_rows=128,
    workers=4,
    seconds=3610.0,
    low_s=3410.0,
    high_s=3810.0,
    n_bytes=10**9,
    track_s=1.125,
    start_s=10.0,
    sampled=64,
    failed=1,
    memory_bytes=10**9,
    measured_workers=2,
)


@pytest.fixture
def tones(tmp_path: Path) -> Path:
    """Twenty tones of a second."""
    (tmp_path / "audio").mkdir()
    for i in range(20):
        tone = 0.3 * np.sin(2 * np.pi * (200 + 20 * i) * np.arange(22_050) / 22_050)
        soundfile.write(tmp_path / "audio" / f"{i:02}.wav", tone.astype(np.float32), 22_050)
    return tmp_path / "audio"


def test_forecast_is_saved_and_reported_with_the_extraction(call: Any, tones: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    options = ("-o", store, "--features", "mel", "--workers", 0, "--clip-s", 1, "--part-rows", 6)
    result = call("plan", tones, *options, "--sample", 12, "--json").json
    assert (result["tracks"], result["parts"], result["part_rows"], result["sampled"], result["failed"]) == (
        20,
        4,
        6,
        12,
        0,
    )
    assert 0 < result["low_s"] <= result["seconds"] <= result["high_s"]
    assert not store.exists()
    done = call("extract", tones, *options, "--json").json
    assert done["forecast"] == result
    large = sum(file.stat().st_size for name in ("mel", "rows") for file in (store / name).rglob("*") if file.is_file())
    assert result["n_bytes"] == pytest.approx(large, rel=0.1)
    assert call("extract", tones, *options, "--json").json["forecast"] is None  # no part was built


def test_forecast_is_printed_in_one_line(call: Any, tones: Path, tmp_path: Path) -> None:
    options = ("-o", tmp_path / "s.zarr", "--features", "mel", "--workers", 0, "--clip-s", 1, "--part-rows", 10)
    output = call("plan", tones, *options, "--sample", 4).out
    assert "20 tracks in 2 parts of 10: " in output
    assert "from 4 tracks (0 failed)" in output
    assert "This collection is small: the trial took about " in output
    assert call("extract", tones, *options, "--quiet").out.count("forecast: ") == 1


def test_remark_on_a_small_collection_compares_trial_and_extraction(capsys: Any) -> None:
    few = dataclasses.replace(HOUR, tracks=48, parts=1, part_rows=48, workers=0, measured_workers=0, sampled=4)
    few = dataclasses.replace(few, start_s=50.0, track_s=0.7, seconds=83.6)
    _print_forecast(few, None)
    assert (
        "This collection is small: the trial took about 52.8 s, and `mgc extract` takes about 83.6 s. Run it without a "
        "plan." in capsys.readouterr().out
    )
    _print_forecast(HOUR, None)
    assert "This collection is small" not in capsys.readouterr().out


def test_default_sample_is_small_and_sample_option_sets_it(call: Any, tones: Path) -> None:
    assert [default_sample(n) for n in (1, 20, 200, 640, 10**6)] == [4, 4, 20, 64, 64]
    result = call("plan", tones, "--features", "mel", "--workers", 0, "--clip-s", 1, "--json").json
    assert (result["sampled"], result["measured_workers"]) == (4, 0)
    assert result["low_s"] <= result["seconds"] <= result["high_s"]
    more = call("plan", tones, "--features", "mel", "--workers", 0, "--clip-s", 1, "--sample", 9, "--json").json
    assert more["sampled"] == 9


def test_each_workers_first_part_is_start_up_and_not_a_rate() -> None:
    log = []
    for pid, seconds in ((1, [9.0, 2.0, 2.2]), (2, [8.0, 1.8])):
        log += [{"host": "h", "pid": pid, "ok": 3, "failed": 1, "seconds": item} for item in seconds]
    track_s, error_s, busiest = _track_seconds(log)
    assert track_s == pytest.approx((2.0 + 2.2 + 1.8) / 12)
    assert error_s == pytest.approx(np.std([0.5, 0.55, 0.45], ddof=1) / 3**0.5)
    assert busiest == 12


def test_forecast_of_a_resumed_extraction_counts_pending_parts() -> None:
    assert HOUR.of_parts(100) == HOUR
    half = HOUR.of_parts(50)  # 13 of 25 rounds of four workers
    assert (half.tracks, half.seconds, half.low_s) == (6400, 10 + 3600 * 13 / 25, 10 + 3400 * 13 / 25)


def test_damaged_forecast_file_loads_as_none(tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    assert load_forecast(store) is None
    HOUR.save(store)
    assert load_forecast(store) == HOUR
    forecast_path(store).write_text(forecast_path(store).read_text().replace("3610", "36"))
    assert load_forecast(store) is None
