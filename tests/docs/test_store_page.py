"""Test that docs/store.md agrees with the code: attributes, recipes, flags, reason codes, formulas."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from pathlib import Path
from typing import NotRequired, get_origin, get_type_hints

import h5py
import numpy as np
import pytest
import soundfile
import zarr

from mgc.cache.format.documents import DOCUMENTS
from mgc.cache.format.meanings import FLAG_MEANINGS, REASON_MEANINGS
from mgc.cache.format.plan import read_plan
from mgc.cache.format.recipe import MelRecipe, TextRecipe
from mgc.cache.format.schema import Flag, Reason
from mgc.cache.writing.creation import add_feature_set
from mgc.pipeline.audio.clips import decode_clip
from mgc.pipeline.audio.mel import mel_frames

PAGE = (Path(__file__).parents[2] / "docs" / "store.md").read_text(encoding="utf-8")


def table(header: str) -> list[list[str]]:
    """Return the cells of the table with this header."""
    (body,) = re.findall(rf"^{re.escape(header)}\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.M)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in body.splitlines()]


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def test_flags_and_reason_codes_agree_with_the_code() -> None:
    flags = table("| bit | flag | meaning |")
    assert {name: 1 << int(bit) for bit, name, _ in flags} == {flag.name: flag.value for flag in Flag}
    assert {name: meaning for _, name, meaning in flags} == {flag.name: text for flag, text in FLAG_MEANINGS.items()}
    reasons = table("| reason | meaning | what to do |")
    assert [name for name, *_ in reasons] == [reason.value for reason in Reason]
    meanings = {reason.value: texts for reason, texts in REASON_MEANINGS.items()}
    assert {name: tuple(texts) for name, *texts in reasons} == meanings


def test_attributes_agree_with_both_forms_in_name_and_type(songs_store: Path, tmp_path: Path) -> None:
    text = TextRecipe(model="m", weights_sha256="0", tokenizer_sha256="1", hidden_size=8, max_tokens=8)
    store = shutil.copytree(songs_store, tmp_path / "songs.zarr")
    add_feature_set(store, read_plan(store), "more", text, np.zeros((3, 8), np.float32))
    group = dict(zarr.open_group(store, mode="r").attrs)
    rows = table("| attribute | type | meaning |")
    kinds = {name: kind.split()[0] for cell, kind, _ in rows for name in names(cell)}
    assert kinds == {name: {int: "integer", dict: "object"}[type(value)] for name, value in group.items()}
    with h5py.File(Path(__file__).parents[1] / "cache" / "golden" / "golden.h5") as file:
        sealed = {
            name: json.loads(value) if isinstance(value, str) else int(value) for name, value in file.attrs.items()
        }
    assert sealed.keys() == group.keys() - {"added"}
    assert {name: type(value) for name, value in sealed.items()} == {name: type(group[name]) for name in sealed}
    (code,) = (meaning for cell, _, meaning in rows if cell == "`status_codes`")
    assert dict(re.findall(r"`(\w+)` (\d)", code)) == {n: str(v) for n, v in group["status_codes"].items()}


def test_keys_of_both_recipes_are_listed() -> None:
    mel, text = re.findall(r"\| key \| type \| meaning \|\n\|[-|]+\n((?:\|.*\n)+)", PAGE)
    for listed, recipe in ((mel, MelRecipe), (text, TextRecipe)):
        keys = [name for line in listed.splitlines() for name in names(line.split("|")[1])]
        assert sorted(keys) == sorted(item.name for item in dataclasses.fields(recipe))


def test_keys_of_every_record_are_listed() -> None:
    listed: dict[str, set[str]] = {}
    for record, keys, *_ in table("| record | key | type | content |"):
        listed.setdefault(record.strip("`"), set()).update(re.findall(r"`(\w+\??)`", keys))
    documented = {}
    for record in listed:
        key = re.sub("<(g|part|n)>", "0", record).replace("<name>", "more")
        (kind,) = (kind for pattern, kind in DOCUMENTS if pattern.fullmatch(key))
        hints = get_type_hints(kind, include_extras=True)
        documented[record] = {name + "?" * (get_origin(hint) is NotRequired) for name, hint in hints.items()}
    assert listed == documented
    assert len(listed) == len(DOCUMENTS)


@pytest.mark.parametrize(("rate_hz", "samples"), [(22_050, 1), (8000, 3217), (44_100, 22_051), (48_000, 200_001)])
def test_formula_of_valid_frames_agrees_with_the_code(tmp_path: Path, rate_hz: int, samples: int) -> None:
    """The formula uses the columns offset_s, seconds and sample_rate_hz only."""
    recipe = MelRecipe(clip_s=0.7, min_clip_s=0.0)
    soundfile.write(tmp_path / "a.wav", np.full(samples, 0.1, np.float32), rate_hz)
    clip = decode_clip(tmp_path / "a.wav", recipe)
    length, start = round(clip.seconds * clip.sample_rate_hz), round(clip.offset_s * clip.sample_rate_hz)
    n = min(math.ceil((length - start) * 22_050 / clip.sample_rate_hz), round(0.7 * 22_050))
    frames = 1 + round(0.7 * 22_050) // 512
    assert mel_frames(clip.n_valid, recipe) == min(max(1, math.ceil(n / 512)), frames)
    assert 0 <= (samples - 0.7 * rate_hz) / 2 - start <= 0.05 * rate_hz or start == 0
