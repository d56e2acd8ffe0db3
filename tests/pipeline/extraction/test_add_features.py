"""Adding a second text encoder to a store: existing content stays, and all commands support it."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import xarray
import zarr
from transformers import BertConfig, BertModel

from mgc import api
from mgc.cache.errors import ConfigError, RecipeMismatchError, StoreError, TrackUnavailableError
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.hdf5_writer import convert
from mgc.cache.upkeep.verify import verify
from mgc.pipeline.sources.manifest import Source, Track
from mgc.pipeline.text.encoder import TextEncoder
from mgc.pipeline.text.models import find_text_model

OPTIONS = {"workers": 0, "clip_s": 1.0}


def save_tiny(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=64
    )
    BertModel(config).save_pretrained(folder)
    shutil.copy(find_text_model("minilm").folder / "tokenizer.json", folder)
    return folder


def make_tracks(folder: Path, n: int) -> list[Track]:
    tracks = []
    for i in range(n):
        t = np.arange(22_050) / 22_050
        soundfile.write(folder / f"{i}.wav", (0.2 * np.sin(2 * np.pi * (200 + 50 * i) * t)).astype(np.float32), 22_050)
        words = None if i == 1 else f"song number {i} " * (i + 1)
        tracks.append(
            Track(id=f"t{i:02}", path=f"{i}.wav", genres=(("rock", "jazz")[i % 2],), artists=(f"a{i}",), lyrics=words)
        )
    return tracks


def tree(store: Path) -> dict[str, bytes]:
    files = (path for path in store.rglob("*") if path.is_file() and path.relative_to(store).parts[0] != "log")
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Folder, source of 15 tracks (one missing) and a store of minilm's features with the added encoder `tiny`."""
    folder = tmp_path_factory.mktemp("added")
    tracks = [*make_tracks(folder, 14), Track(id="gone", path="gone.wav", genres=("rock",), lyrics="words")]
    source = Source(root=folder, tracks=tracks)
    save_tiny(folder / "bert", 1)
    api.extract(source, folder / "s.zarr", text_model="minilm", part_rows=4, **OPTIONS)
    before = tree(folder / "s.zarr")
    report = api.extract(source, folder / "s.zarr", add="tiny", text_model=str(folder / "bert"), **OPTIONS)
    assert (report.planned, report.ok, report.failed, report.parts_built) == (14, 14, 0, 4)
    return folder, source, before


@pytest.fixture
def store(sample, tmp_path) -> Path:
    return Path(shutil.copytree(sample[0] / "s.zarr", tmp_path / "s.zarr"))


def test_adding_features_changes_no_existing_object(sample):
    folder, _, before = sample
    after = tree(folder / "s.zarr")
    assert {key: after[key] for key in before if key != "zarr.json"} == {
        key: data for key, data in before.items() if key != "zarr.json"
    }
    assert verify(folder / "s.zarr", full=True) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = xarray.open_zarr(folder / "s.zarr", chunks=None)
    assert dataset.lyrics_tiny.dims == ("track", "token_tiny", "text_dim_tiny")
    assert zarr.open_group(folder / "s.zarr", mode="r").attrs["added"]["tiny"]["recipe"]["hidden_size"] == 32


def test_added_states_equal_those_of_the_encoder(sample):
    folder, source, _ = sample
    encoder = TextEncoder(find_text_model(str(folder / "bert")), precision="fp32", max_tokens=64)
    with FeatureStore.open(folder / "s.zarr", text="tiny") as store, FeatureStore.open(folder / "s.zarr") as own:
        assert store.recipe.mel == own.recipe.mel
        assert store.recipe.lyrics.hidden_size == 32
        assert store.fingerprints["lyrics"] != own.fingerprints["lyrics"]
        assert store.fingerprints["mel"] == own.fingerprints["mel"]
        np.testing.assert_array_equal(store.read("mel", store.ok_rows), own.read("mel", own.ok_rows))
        ids = store.tracks.column("id").to_pylist()
        for track in source.tracks[:14]:
            row = ids.index(track.id)
            n = int(store.read("lyrics_tokens", [row])[0])
            if track.lyrics is None:
                assert n == 0
                continue
            states = encoder.encode(track.lyrics.strip())
            assert n == states.n_tokens
            ours = store.read("lyrics", [row], length=n)[0].astype(np.float32)
            cosine = (
                (ours * states.states).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(states.states, axis=1)
            )
            assert cosine.min() > 0.999
        assert store.genre_embedding.shape == (2, 32)


def test_added_encoder_works_in_train_evaluate_and_predict(sample, tmp_path):
    folder, _, _ = sample
    options = {"encoder": "tiny", "epochs": 1, "precision": "fp32", "device": "cpu", "split": "random"}
    api.train(folder / "s.zarr", tmp_path / "run", text="tiny", options=options)
    assert api.evaluate(tmp_path / "run", folder / "s.zarr").n_tracks > 0
    from_store = api.predict(tmp_path / "run", [folder / "s.zarr"]).predictions
    assert sum(bool(item.scores) for item in from_store) == 14
    sealed = tmp_path / "s.h5"
    convert(folder / "s.zarr", sealed)
    assert [item.scores for item in api.predict(tmp_path / "run", [sealed]).predictions] == [
        item.scores for item in from_store
    ]
    convert(sealed, tmp_path / "again.zarr")
    assert tree(tmp_path / "again.zarr") == tree(folder / "s.zarr")
    with pytest.raises(StoreError, match=r"no added text feature set 'other': .*\(added: tiny\)"):
        api.train(folder / "s.zarr", tmp_path / "other", text="other", options=options)


def test_add_again_builds_nothing_and_refuses_another_encoder(sample, store):
    folder, source, _ = sample
    before = tree(store)
    assert api.extract(source, store, add="tiny", text_model=str(folder / "bert"), **OPTIONS).parts_built == 0
    assert tree(store) == before
    save_tiny(folder / "other", 2)
    with pytest.raises(RecipeMismatchError, match="weights_sha256"):
        api.extract(source, store, add="tiny", text_model=str(folder / "other"), **OPTIONS)
    with pytest.raises(ConfigError, match="invalid name of a feature set"):
        api.extract(source, store, add="Tiny-1", text_model=str(folder / "bert"), **OPTIONS)
    with pytest.raises(ConfigError, match="no extractor 'tiny' .*or give a text encoder"):
        api.extract(source, store, add="tiny", **OPTIONS)
    with pytest.raises(ConfigError, match="an extractor has this name, but --text-model"):
        api.extract(source, store, add="pooled_mel", text_model=str(folder / "bert"), **OPTIONS)


def test_changed_lyrics_fail_per_track(sample, tmp_path):
    folder, _, _ = sample
    (tmp_path / "a.txt").write_text("the first words")
    for file in ("0.wav", "2.wav"):
        shutil.copy(folder / file, tmp_path / file)
    tracks = [
        Track(id="a", path="0.wav", genres=("rock",), lyrics_path="a.txt"),
        Track(id="b", path="2.wav", genres=("rock",), lyrics="other words"),
    ]
    api.extract(Source(root=tmp_path, tracks=tracks), tmp_path / "s", text_model="minilm", **OPTIONS)
    (tmp_path / "a.txt").write_text("rewritten meanwhile")
    report = api.extract(
        Source(root=tmp_path, tracks=tracks), tmp_path / "s", add="tiny", text_model=str(folder / "bert"), **OPTIONS
    )
    assert (report.ok, report.reasons) == (1, {"LYRICS_CHANGED": 1})
    with FeatureStore.open(tmp_path / "s", text="tiny") as store, pytest.raises(TrackUnavailableError):
        store.read("lyrics", [0])


def test_appended_tracks_get_added_text_features_on_the_next_run(sample, store):
    folder, source, _ = sample
    late = Track(id="t99", path="3.wav", genres=("soul",), artists=("z",), lyrics="later words")
    more = Source(root=folder, tracks=[*source.tracks, late])
    api.extract(more, store, append=True, **OPTIONS)
    with FeatureStore.open(store, text="tiny") as opened:
        assert (opened.counts().ok, opened.counts().pending) == (14, 1)
        with pytest.raises(StoreError, match="genres were appended after"):
            opened.genre_embedding  # noqa: B018
    report = api.extract(more, store, add="tiny", text_model=str(folder / "bert"), **OPTIONS)
    assert (report.ok, report.parts_built) == (15, 1)
    assert verify(store, full=True) == []
    with FeatureStore.open(store, text="tiny") as opened:
        assert opened.genre_embedding.shape == (3, 32)


@pytest.mark.parametrize(
    "key", ["lyrics_tiny/c/1/0/0", "commits/tiny/1.json", "rows/tiny/1.parquet", "features/tiny.json"]
)
def test_damage_of_an_added_encoder_is_reported_and_repaired(sample, store, key):
    folder, source, _ = sample
    whole = tree(store)
    data = bytearray((store / key).read_bytes())
    data[len(data) // 2] ^= 4
    (store / key).write_bytes(data)
    damages = verify(store, full=True)
    assert [damage.key for damage in damages] == [key]
    if key != "features/tiny.json":
        assert (damages[0].feature_set, damages[0].part) == ("tiny", 1)
        assert damages[0].tracks == ("t03", "t04", "t05", "t06")
    done = api.store_repair(store, source)
    assert (done.left, done.pending) == ([], 0)
    if key == "features/tiny.json":
        assert (done.pending_added, done.not_built) == ({}, {})
    else:  # the folder of its encoder is not given
        assert (done.pending_added, done.parts_built) == ({"tiny": 4}, 0)
        assert "text model 'bert': neither a folder nor a known name" in done.not_built["tiny"]
    done = api.store_repair(store, source, text_model=str(folder / "bert"))
    assert (done.damages, done.pending_added, done.not_built) == ([], {}, {})
    assert verify(store, full=True) == []
    after = tree(store)
    assert all(after[name] == data for name, data in whole.items() if not name.startswith("commits/tiny"))


def test_takedown_clears_added_text_features(store):
    api.store_drop(store, ["t04"])
    with FeatureStore.open(store, text="tiny") as opened:
        assert opened.counts().reasons["DROPPED"] == 1
    assert api.store_compact(store) == 2
    assert verify(store, full=True) == []
    group = zarr.open_group(store, mode="r")
    row = FeatureStore.open(store).tracks.column("id").to_pylist().index("t04")
    assert group["status_tiny"][row] == 2
    assert not group["lyrics_tiny"][row].any()
    assert np.isnan(group["lyrics_pooled_tiny"][row]).all()
    assert api.store_compact(store) == 0
