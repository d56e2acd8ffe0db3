"""Write inputs of the speed benchmarks: generated mp3 clips, lyrics, a BERT-base with random weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import soundfile
import soxr

from mgc.pipeline.synth.world import make_song, render_song
from mgc.pipeline.text.models import find_text_model

CLIP_RATE_HZ = 44_100
MEAN_WORDS = 245  # about 250 tokens with [CLS] and [SEP]
GENRES = ("rock", "pop", "jazz", "folk")
RECORDINGS = 40


def write_clips(folder: Path, n: int, *, seed: int = 0, seconds: float = 30.0) -> list[Path]:
    """Write `n` clips, 44.1 kHz stereo mp3, with noise in one channel so that the channels differ."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    paths = []
    for index in range(n):
        mono = soxr.resample(render_song(make_song(seed, index)), 22_050, CLIP_RATE_HZ)
        mono = mono[: round(seconds * CLIP_RATE_HZ)]
        side = rng.normal(scale=0.01, size=len(mono)).astype(np.float32)
        path = folder / f"{index:05}.mp3"
        soundfile.write(path, np.stack([mono, 0.9 * mono + side], axis=1), CLIP_RATE_HZ, format="MP3")
        paths.append(path)
    return paths


def make_lyrics(n: int, *, seed: int = 0) -> list[str]:
    """Return `n` different lyrics with realistic lengths: 10 to 500 words, 245 on average."""
    rng = np.random.default_rng(seed)
    songs = (make_song(seed, index).lyrics for index in range(2 * n + 40))
    words = [word for lyrics in songs if lyrics is not None for word in lyrics.split()]
    lengths = np.clip(rng.gamma(4.0, MEAN_WORDS / 4.0, size=n), 10, 500).astype(int)
    starts = rng.integers(0, len(words) - 500, size=n)
    return [" ".join(words[start : start + length]) for start, length in zip(starts, lengths, strict=True)]


def write_collection(folder: Path, n: int) -> list[str]:
    """Write the files of `n` songs, each with its own lyrics and one of `RECORDINGS` clips; return lines of a table."""
    clips = write_clips(folder / "audios", min(n, RECORDINGS))
    (folder / "lyrics").mkdir(exist_ok=True)
    lines = ["id,path,artists,genres,lyrics_path"]
    for index, lyrics in enumerate(make_lyrics(n)):
        text, clip = folder / "lyrics" / f"{index:05}.txt", clips[index % len(clips)]
        text.write_text(lyrics)
        lines.append(f"{index:05},audios/{clip.name},artist {index % 7},{GENRES[index % 4]},lyrics/{text.name}")
    return lines


def random_bert(folder: Path) -> Path:
    """Write a BERT-base with random weights and MiniLM's tokenizer (BERT's own vocabulary)."""
    import torch
    from transformers import BertConfig, BertModel

    if not (folder / "tokenizer.json").exists():
        torch.manual_seed(0)
        BertModel(BertConfig(), add_pooling_layer=False).save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
            source = find_text_model("minilm").folder / name
            if source.exists():
                shutil.copy(source, folder)
    return folder
