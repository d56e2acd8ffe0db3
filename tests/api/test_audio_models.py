"""Train on a pretrained audio encoder, and predict the genres of files with it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from sequence_extractors import make_songs
from tiny_encoders import save_encoder

from mgc import api
from mgc.cache.errors import ConfigError
from mgc.pipeline.sources.manifest import Source

SMALL = {"encoder": "tiny", "epochs": 1, "precision": "fp32", "device": "cpu", "split": "random", "modalities": "audio"}


def test_predictions_from_files_equal_those_from_the_store(tmp_path: Path) -> None:
    source = make_songs(tmp_path / "songs")
    genres = [("jazz",), ("rock",), ("jazz", "rock"), ("jazz",), ("rock",), ("jazz",), ("rock",)]
    tracks = [
        dataclasses.replace(track, genres=names, id=track.path, split=None)
        for track, names in zip(source.tracks, genres, strict=True)
    ]
    store, model = tmp_path / "s.zarr", save_encoder("hubert", tmp_path / "hubert")
    labelled = Source(root=source.root, tracks=tracks)
    api.extract(labelled, store, features=("mel",), clip_s=2.0, workers=0)
    layers = {"audio_layers": "0,2", "audio_pooling": "frames"}
    api.extract(labelled, store, add="net", audio_model=f"hf:{model}", workers=0, **layers)
    run = tmp_path / "run"
    api.train(store, run, options={**SMALL, "audio": "net"})
    from_store = {item.id: item.scores for item in api.predict(run, [store]).predictions}
    files = [source.root / track.path for track in tracks]
    with pytest.raises(ConfigError, match=r"needs the feature set 'net': audio model 'hubert': no such folder"):
        api.predict(run, files)
    done = api.predict(run, files, audio_model=f"hf:{model}").predictions
    for item in done:
        assert item.scores == pytest.approx(from_store[Path(item.id).name], abs=1e-4)
    # A model with other weights is not used: the name in the recipe is looked up in its place.
    other = save_encoder("hubert", tmp_path / "other", seed=1)
    with pytest.raises(ConfigError, match="needs the feature set 'net': audio model 'hubert': no such folder"):
        api.predict(run, files, audio_model=f"hf:{other}")
