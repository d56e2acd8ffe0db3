"""Text models by folder: token states equal those of transformers on padded batches, whatever the neighbours."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    BertConfig,
    ModernBertConfig,
    PretrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from mgc.cache.errors import ConfigError, TextModelError
from mgc.pipeline.text.encoder import TextEncoder, TextSource, encoder_recipe
from mgc.pipeline.text.models import find_text_model

SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
ROBERTA = {"pad_token_id": 0, "bos_token_id": 101, "eos_token_id": 102, "type_vocab_size": 1}
LAYOUTS: dict[str, PretrainedConfig] = {
    "bert": BertConfig(**SIZES, vocab_size=30522, max_position_embeddings=512),
    "roberta": RobertaConfig(**SIZES, **ROBERTA, vocab_size=30522, max_position_embeddings=513),
    "xlm-roberta": XLMRobertaConfig(**SIZES, **ROBERTA, vocab_size=30522, max_position_embeddings=513),
    "modernbert": ModernBertConfig(
        **SIZES, pad_token_id=0, cls_token_id=101, sep_token_id=102, vocab_size=30522, max_position_embeddings=1024,
        local_attention=16, global_attn_every_n_layers=2,
    ),
}  # fmt: skip
LYRICS = [
    "Hello",
    "rain on the window and " * 40,
    "你好，世界 — привет, мир — naïve café",
    "a [PAD] in the middle, as no song has it",
    "one two three four five six seven " * 200,
    "",
]
LEAST = {"fp32": (0.99999, 2e-5), "bf16": (0.999, 0.2)}


def save(config: PretrainedConfig, folder: Path) -> Path:
    """Save a random model of a configuration, with the tokenizer of MiniLM (pad 0, [CLS] 101, [SEP] 102)."""
    torch.manual_seed(3)
    model = AutoModel.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():  # of the size that attention notices
        torch.nn.init.normal_(parameter, std=0.15) if parameter.ndim > 1 else None
    model.save_pretrained(folder)
    shutil.copy(find_text_model("minilm").folder / "tokenizer.json", folder)
    return folder


@pytest.fixture(scope="module", params=LAYOUTS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(LAYOUTS[request.param], tmp_path_factory.mktemp("models") / request.param)


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[np.ndarray]:
    """States of :data:`LYRICS` by transformers, as a padded batch with an attention mask, in float32."""
    tokenizer = TextEncoder(find_text_model(str(folder)))._cutter
    ids = [tokenizer.encode(text).ids for text in LYRICS]
    length = max(map(len, ids))
    rows = torch.tensor([row + [0] * (length - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in ids])
    model = AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad():
        hidden = model(input_ids=rows, attention_mask=mask).last_hidden_state.numpy()
    return [states[: len(row)] for states, row in zip(hidden, ids, strict=True)]


def least_cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(((one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)).min())


@pytest.mark.parametrize("precision", LEAST)
@pytest.mark.parametrize("pack_tokens", [0, 300])
def test_states_equal_those_of_a_padded_batch_in_transformers(
    folder: Path, expected, precision, pack_tokens: int
) -> None:
    encoder = TextEncoder(find_text_model(str(folder)), precision=precision, pack_tokens=pack_tokens)
    assert encoder._backend.pack_tokens == pack_tokens
    least, most = LEAST[precision]
    for order in (range(len(LYRICS)), range(len(LYRICS))[::-1]):
        for i, got in zip(order, encoder.encode_all([LYRICS[i] for i in order]), strict=True):
            assert got.states.shape == expected[i].shape
            assert least_cosine(got.states, expected[i]) > least
            assert np.abs(got.states - expected[i]).max() < most
            if len(expected[i]) > 2:
                assert least_cosine(got.pooled[None], expected[i][1:-1].mean(axis=0)[None]) > least


def test_states_of_openvino_equal_those_of_a_padded_batch_in_transformers(folder: Path, expected) -> None:
    encoder = TextEncoder(find_text_model(str(folder)), backend="openvino")
    for got, states in zip(encoder.encode_all(LYRICS), expected, strict=True):
        assert least_cosine(got.states, states) > 0.9999


def test_a_token_depends_on_its_position_and_on_the_other_tokens(folder: Path) -> None:
    """Guard of the test above: with random weights that attention ignores, it could not fail."""
    encoder = TextEncoder(find_text_model(str(folder)))
    states = encoder.encode("love me do love").states
    assert least_cosine(states[1:2], states[4:5]) < 0.999
    assert least_cosine(states[1:2], encoder.encode("love me not").states[1:2]) < 0.999


def test_limit_of_tokens_follows_from_the_positions_of_the_model(folder: Path) -> None:
    limit = 1024 if folder.name == "modernbert" else 512
    files = find_text_model(str(folder))
    assert files.max_tokens == limit
    source = TextSource(model=str(folder))
    assert encoder_recipe(source, "fp32").max_tokens == 512
    assert encoder_recipe(source, "fp32", max_tokens=limit).max_tokens == limit
    with pytest.raises(ConfigError, match=rf"--text-max-tokens 2048: .* has positions for {limit} tokens"):
        encoder_recipe(source, "fp32", max_tokens=2048)
    longest = TextEncoder(files, max_tokens=limit).encode(LYRICS[4])
    assert (longest.n_tokens, longest.n_tokens_full) == (limit, 1402)


def test_int8_of_a_layout_that_ctranslate2_lacks_is_refused(tmp_path: Path) -> None:
    folder = save(LAYOUTS["modernbert"], tmp_path / "modernbert")
    with pytest.raises(
        TextModelError, match="CTranslate2 cannot convert this model to int8.*Use --text-precision bf16"
    ):
        TextEncoder(find_text_model(str(folder)), backend="ctranslate2", precision="int8")


def test_positions_of_roberta_count_from_behind_the_padding_id_also_where_the_config_does_not_name_it(
    tmp_path: Path,
) -> None:
    config = XLMRobertaConfig(**SIZES, vocab_size=30522, max_position_embeddings=514, pad_token_id=1)
    folder = save(config, tmp_path / "xlm")
    text = (folder / "config.json").read_text().replace('"pad_token_id": 1,', "")
    (folder / "config.json").write_text(text)
    files = find_text_model(str(folder))
    assert files.max_tokens == 512
    assert TextEncoder(files).encode(LYRICS[4]).n_tokens == 512


@pytest.mark.parametrize(("added", "ids"), [("$A [SEP]", [102]), ("[CLS] $A", [101]), ("$A", [])])
def test_tokenizers_without_a_special_token_at_each_end_are_refused(tmp_path: Path, added: str, ids) -> None:
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    folder = save(LAYOUTS["bert"], tmp_path / "bert")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = [(name, i) for name, i in (("[CLS]", 101), ("[SEP]", 102)) if i in ids]
    tokenizer.post_processor = TemplateProcessing(single=added, special_tokens=special)
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(TextModelError, match="one special token at each end"):
        TextEncoder(find_text_model(str(folder)))
