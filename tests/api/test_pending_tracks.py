"""Stores whose extraction was interrupted: every command says how many tracks are pending."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_world import World

from mgc import api
from mgc.cache.errors import MgcError
from mgc.heads.config import TrainConfig

Use = Callable[[Path, Path, Path], list[str]]
"""A store, a run trained on the whole of it, and a folder to write in -> what the user is told."""


def predict(store: Path, run: Path, folder: Path) -> list[str]:
    result = api.predict(run, [store])
    assert result.reasons.get("PENDING")
    return result.remarks


USES: dict[str, Use] = {
    "train": lambda store, run, folder: (
        api.train(
            store, folder / "run", options=TrainConfig(encoder="tiny", epochs=1, device="cpu", batch_size=32)
        ).remarks
    ),
    "ablate": lambda store, run, folder: api.ablate(store, folder / "a").remarks,
    "evaluate": lambda store, run, folder: list(api.evaluate(run, store, split="all").warnings),
    "predict": predict,
    "select": lambda store, run, folder: api.store_select(store, folder / "few.zarr").remarks,
}


@pytest.mark.parametrize("use", [name for name in USES if name != "ablate"])
def test_a_store_with_some_pending_tracks_is_used_with_a_remark(evaluated_run: Path, tmp_path: Path, use: str) -> None:
    World().write(tmp_path / "s.zarr", n_parts=2)
    told = USES[use](tmp_path / "s.zarr", evaluated_run, tmp_path)
    assert any("8 of 40 tracks pending. Run `mgc extract` again" in text for text in told)


@pytest.mark.parametrize("use", [name for name in USES if name != "predict"])
def test_a_store_with_only_pending_tracks_is_refused_with_their_number(
    evaluated_run: Path, tmp_path: Path, use: str
) -> None:
    World().write(tmp_path / "s.zarr", n_parts=0)
    expected: Any = re.escape("40 of 40 tracks pending. Run `mgc extract` again to finish the extraction.")
    with pytest.raises(MgcError, match=expected):
        USES[use](tmp_path / "s.zarr", evaluated_run, tmp_path)


def test_a_complete_store_has_no_remark_on_pending_tracks(evaluated_run: Path, small_store: Any) -> None:
    assert small_store.pending_note is None
    assert not any("pending" in text for text in api.predict(evaluated_run, [small_store.path]).remarks)
