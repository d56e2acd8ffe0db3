"""Tiny audio encoders with random weights, one of each layout that mgc reads, saved as transformers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as tf

WIDTH, LAYERS = 16, 2
_STACK: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
_CONVOLUTIONS: dict[str, Any] = {
    "conv_dim": (16, 16, 16),
    "conv_stride": (5, 8, 8),
    "conv_kernel": (10, 8, 8),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
_CLAP_AUDIO: dict[str, Any] = {
    "num_mel_bins": 16,
    "spec_size": 64,
    "window_size": 2,
    "patch_size": 4,
    "patch_stride": (4, 4),
    "patch_embeds_hidden_size": 8,
    "depths": [1, 1],
    "num_attention_heads": [2, 2],
    "hidden_size": 16,
    "projection_dim": 8,
}
_CLAP_TEXT: dict[str, Any] = {**_STACK, "vocab_size": 20, "projection_dim": 8}


def _ast() -> tuple[Any, Any]:
    config = tf.ASTConfig(**_STACK, max_length=128, num_mel_bins=32)
    return tf.ASTModel(config), tf.ASTFeatureExtractor(num_mel_bins=32, max_length=128)


def _clap(**changed: Any) -> tuple[Any, Any]:
    audio = tf.ClapAudioConfig(**{**_CLAP_AUDIO, **changed})
    model = tf.ClapModel(tf.ClapConfig(text_config=_CLAP_TEXT, audio_config=audio.to_dict(), projection_dim=8))
    truncation = "fusion" if changed.get("enable_fusion") else "rand_trunc"
    processor = tf.ClapFeatureExtractor(
        feature_size=16,
        sampling_rate=8_000,
        max_length_s=1,
        hop_length=40,
        fft_window_size=256,
        frequency_max=4_000,
        truncation=truncation,
    )
    return model, processor


def _clap_fused() -> tuple[Any, Any]:
    return _clap(enable_fusion=True, fusion_type=None)


def _clap_audio() -> tuple[Any, Any]:
    model, processor = _clap()
    return model.audio_model, processor


def _wave(family: str, **changed: Any) -> tuple[Any, Any]:
    config = getattr(tf, f"{family}Config")(**_STACK, **_CONVOLUTIONS, **changed)
    return getattr(tf, f"{family}Model")(config), tf.Wav2Vec2FeatureExtractor(do_normalize=bool(changed))


def _whisper() -> tuple[Any, Any]:
    config = tf.WhisperConfig(
        d_model=WIDTH,
        encoder_layers=LAYERS,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        vocab_size=32,
        num_mel_bins=16,
        max_source_positions=100,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    return tf.WhisperForConditionalGeneration(config), tf.WhisperFeatureExtractor(feature_size=16, chunk_length=2)


ENCODERS = {
    "ast": _ast,
    "clap": _clap,
    "clap_fused": _clap_fused,
    "clap_audio": _clap_audio,
    "hubert": lambda: _wave("Hubert"),
    "wav2vec2": lambda: _wave("Wav2Vec2"),
    "wav2vec2_layer_norm": lambda: _wave("Wav2Vec2", feat_extract_norm="layer", do_stable_layer_norm=True),
    "wavlm": lambda: _wave("WavLM"),
    "whisper": _whisper,
}


def save_encoder(name: str, folder: Path, seed: int = 0) -> Path:
    """Save an encoder and the settings of its input; return the folder."""
    torch.manual_seed(seed)
    model, processor = ENCODERS[name]()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
