"""Backends of the text encoder: each against transformers in float32, and what is refused."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from mgc.cache.errors import ConfigError, MgcError
from mgc.cache.format.recipe import TextRecipe, recipe_document, text_fingerprints
from mgc.cache.machine import cpu_has_bf16
from mgc.pipeline.text.backends import PrepackedLinear, TorchBackend, prepack
from mgc.pipeline.text.encoder import TextEncoder, TextSource, encoder_recipe, load_encoder, text_recipe
from mgc.pipeline.text.models import find_text_model

LYRICS = [
    "Hello",
    "rain on the window and " * 40,
    "你好，世界 — привет, мир — naïve café",
    "one two three four five " * 120,
    "",
]
LEAST_COSINE = {("torch", "fp32"): 0.99999, ("torch", "bf16"): 0.999, ("openvino", "fp32"): 0.99999} | {
    ("openvino", "bf16"): 0.999,
    ("ctranslate2", "int8"): 0.98,
}


def least_cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(((one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)).min())


@pytest.fixture(scope="module")
def reference() -> list[np.ndarray]:
    """Last hidden states of transformers, one text at a time, float32."""
    files = find_text_model("minilm")
    model = BertModel.from_pretrained(files.folder, attn_implementation="eager").eval()
    tokens = TextEncoder(files)._cutter
    with torch.no_grad():
        return [model(torch.tensor([tokens.encode(text).ids])).last_hidden_state[0].numpy() for text in LYRICS]


@pytest.mark.parametrize(("backend", "precision"), LEAST_COSINE)
def test_states_of_each_backend_equal_those_of_transformers(reference, backend: str, precision: str) -> None:
    if precision == "bf16" and not cpu_has_bf16() and backend == "openvino":
        pytest.skip("OpenVINO computes in float32 where the CPU has no bf16")
    encoder = TextEncoder(find_text_model("minilm"), precision=precision, backend=backend)
    for got, expected in zip(encoder.encode_all(LYRICS), reference, strict=True):
        assert got.states.dtype == np.float32
        assert got.states.shape == expected.shape
        assert least_cosine(got.states, expected) > LEAST_COSINE[backend, precision]


@pytest.mark.parametrize("backend", ["openvino", "ctranslate2"])
def test_neighbours_do_not_change_the_states_of_a_text(backend: str) -> None:
    precision = "int8" if backend == "ctranslate2" else "fp32"
    encoder = TextEncoder(find_text_model("minilm"), precision=precision, backend=backend)
    together = list(encoder.encode_all(LYRICS))
    for text, states in zip(LYRICS[::-1], together[::-1], strict=True):
        np.testing.assert_array_equal(encoder.encode(text).states, states.states)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_prepacked_layers_compute_the_same_for_every_activation(activation: str) -> None:
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, hidden_act=activation
    )
    model = BertModel(config, add_pooling_layer=False).eval().requires_grad_(False)
    ids = torch.arange(40)[None]
    expected = model(ids).last_hidden_state
    prepack(model)
    if torch.backends.mkldnn.is_available():
        assert sum(isinstance(module, PrepackedLinear) for module in model.modules()) == 12
    torch.testing.assert_close(model(ids).last_hidden_state, expected, atol=1e-5, rtol=1e-5)


def test_a_torch_without_onednn_keeps_its_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    files = find_text_model("minilm")
    backend = TorchBackend(files, text_recipe(files))
    assert not any(isinstance(module, PrepackedLinear) for module in backend._model.modules())


def test_the_recipe_names_another_backend_and_that_of_torch_is_as_in_version_0_1() -> None:
    recipe = encoder_recipe(TextSource(model="minilm"), "fp32")
    assert "backend" not in recipe_document(recipe)
    other = dataclasses.replace(recipe, backend="openvino")
    assert recipe_document(other)["backend"] == "openvino"
    assert TextRecipe(**recipe_document(other)) == other
    assert text_fingerprints(other, {}) != text_fingerprints(recipe, {})
    int8 = encoder_recipe(TextSource(model="minilm"), "int8")
    assert (int8.precision, int8.backend) == ("int8", "ctranslate2")


def test_auto_precision_is_never_int8_and_auto_backend_is_torch() -> None:
    recipe = encoder_recipe(TextSource(model="minilm"), "auto")
    assert recipe.precision in ("fp32", "bf16")
    assert recipe.backend == "torch"


@pytest.mark.parametrize(
    ("precision", "backend"), [("int8", "torch"), ("int8", "openvino"), ("fp32", "ctranslate2"), ("fp32", "onnx")]
)
def test_combinations_that_do_not_exist_are_refused(precision: str, backend: str) -> None:
    with pytest.raises(ConfigError, match="text backend"):
        text_recipe(find_text_model("minilm"), precision=precision, backend=backend)


@pytest.mark.parametrize(("package", "precision"), [("openvino", "fp32"), ("ctranslate2", "int8")])
def test_a_missing_package_is_reported_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, package: str, precision: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"mgc-music\[{package}\]"):
        TextEncoder(find_text_model("minilm"), precision=precision, backend=package)


def test_other_backends_run_on_cpus_only() -> None:
    source = TextSource(model="minilm", device="cuda")
    recipe = encoder_recipe(TextSource(model="minilm"), "fp32", backend="openvino")
    load_encoder.cache_clear()
    with pytest.raises(MgcError, match="CPUs only"):
        load_encoder(source, recipe)


def test_openvino_sends_no_telemetry(tmp_path: Path) -> None:
    """Its package imports a module for telemetry where that is installed; ours never lets it."""
    (tmp_path / "openvino_telemetry.py").write_text("raise SystemExit('telemetry was imported')")
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from mgc.pipeline.text.encoder import TextEncoder\n"
        "from mgc.pipeline.text.models import find_text_model\n"
        "TextEncoder(find_text_model('minilm'), backend='openvino').encode('hello')\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=120)
