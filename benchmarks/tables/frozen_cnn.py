"""A store of a benchmark world with the frames of a frozen audio CNN, on which a head is trained in seconds.

The CNN is that of the default preset, trained on audio alone with seed 0, on the training split only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mgc import api
from mgc.cache.format.recipe import MelRecipe
from mgc.cache.reading.store import FeatureStore
from mgc.heads.model.audio_cnn import TIME_STRIDE
from mgc.heads.model.batch import Batch
from mgc.heads.runs.published_model import load_run
from mgc.pipeline.audio.mel import log_mel
from mgc.pipeline.extractors import registry
from mgc.pipeline.extractors.extractor import Extractor

NAME = "frozen_cnn"


def store_with_frozen_cnn(store: Path, songs: Path, options: Mapping[str, Any]) -> Path:
    """Return a copy of the store that has the feature set; made once.

    Parameters
    ----------
    songs : source of the store.
    options : of the training of the CNN, without modalities and seed.
    """
    copy, run = store.with_name(f"{NAME}.zarr"), store.with_name(NAME)
    if not (run / "best").exists():
        api.train(store, run, preset="default", options={**options, "modalities": "audio", "seed": 0})
    if not copy.exists():
        api.store_copy(store, copy)
    with FeatureStore.open(copy) as opened:
        mel = opened.recipe.mel
        done = NAME in opened.added
    assert mel is not None
    if not done:
        extractor = frozen_cnn(run, mel)
        registry.BUILT_IN[extractor.name] = extractor
        api.extract(api.read_source(songs).source, copy, add=NAME, workers=0)
    return copy


def frozen_cnn(run: Path, recipe: MelRecipe) -> Extractor:
    """Return an extractor of the CNN's frames of full clips, (K, E) float32."""
    model = load_run(run).model.eval()
    n_frames = recipe.n_frames // TIME_STRIDE
    encoder: Any = model.encoder

    def frames(samples: npt.NDArray[np.float32], sample_rate_hz: int) -> npt.NDArray[np.float32]:
        mel = torch.from_numpy(log_mel(samples, recipe).astype(np.float16))[None]
        nothing = torch.zeros(1, 0)
        batch = Batch(
            mel=mel,
            mel_frames=torch.tensor([mel.shape[-1]]),
            lyrics=nothing,
            lyrics_tokens=nothing,
            lyrics_pooled=nothing,
            labels=nothing,
            track_key=nothing,
            lyrics_key=nothing,
            rows=torch.zeros(1),
        )
        with torch.no_grad():
            encoded, _ = encoder.encode(*model.normalise_mel(batch), padded=False)
        return encoded[0].numpy()  # type: ignore[no-any-return]

    return Extractor(
        name=NAME,
        version="1",
        input="clip",
        dims=(f"{NAME}_frame", f"{NAME}_dim"),
        shape=(n_frames, encoder.out_channels),
        dtype="float32",
        unit="1",
        description="frames of the audio CNN of a trained model",
        compute=frames,
    )
