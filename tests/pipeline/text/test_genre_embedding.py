"""Genre names in the space of the lyrics' encoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from mgc.pipeline.text.encoder import TextEncoder, embed_genres
from mgc.pipeline.text.models import find_text_model

NAMES = ["rock", "hard rock", "drum & bass", "r&b", "música popular brasileira", "k-pop"]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(find_text_model("minilm"))


def test_rows_are_means_over_the_words_of_each_name(encoder: TextEncoder) -> None:
    folder = find_text_model("minilm").folder
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    padded = tokenizer(NAMES, padding=True, return_tensors="pt", return_special_tokens_mask=True)
    content = (1 - padded.pop("special_tokens_mask")).unsqueeze(2)
    with torch.no_grad():
        hidden = model(**padded).last_hidden_state
    expected = (hidden * content).sum(1) / content.sum(1)
    got = embed_genres(encoder, NAMES)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected.numpy(), atol=2e-5)


def test_related_genres_are_nearer_than_unrelated_ones(encoder: TextEncoder) -> None:
    rock, hard_rock, opera = embed_genres(encoder, ["rock", "hard rock", "opera"])

    def cosine(item: np.ndarray, other: np.ndarray) -> float:
        return float(item @ other / np.linalg.norm(item) / np.linalg.norm(other))

    assert cosine(rock, hard_rock) > cosine(rock, opera) + 0.1


def test_no_genres_and_names_without_words(encoder: TextEncoder) -> None:
    assert embed_genres(encoder, []).shape == (0, 384)
    np.testing.assert_array_equal(embed_genres(encoder, ["\u0301"]), np.zeros((1, 384), dtype=np.float32))
