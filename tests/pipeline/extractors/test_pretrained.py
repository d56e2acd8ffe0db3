"""Pretrained audio encoders: equal to transformers, whatever else is in the batch, and refused with one clear line."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from sequence_extractors import OPTIONS, SECONDS, tree
from tiny_encoders import ENCODERS, LAYERS, WIDTH, save_encoder

import mgc
from mgc import api
from mgc.cache.errors import ConfigError, MgcError, MissingExtraError, RecipeMismatchError
from mgc.cache.format.plan import read_plan
from mgc.cache.format.recipe import MelRecipe
from mgc.cache.machine import cpu_has_bf16
from mgc.cache.upkeep.hdf5_writer import convert
from mgc.cache.upkeep.verify import verify
from mgc.pipeline.audio.clip_reader import ClipReader
from mgc.pipeline.extractors import audio_models, pretrained
from mgc.pipeline.extractors.audio_encoders import read_layout
from mgc.pipeline.extractors.pretrained import AudioSettings, AudioSource, pretrained_extractor
from mgc.pipeline.sources.manifest import Source

Base = tuple[Source, Path]
WITH_LAYERS = [name for name in ENCODERS if not name.startswith("clap")]

KILLED = """
import os, signal, sys
from pathlib import Path
from sequence_extractors import make_songs
from mgc import api
from mgc.pipeline.extractors.audio_encoders import AudioEncoder

store, model, done, compute = Path(sys.argv[1]), sys.argv[2], [], AudioEncoder.compute

def killed(self, samples, rate_hz):
    done.append(1)
    if len(done) > 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return compute(self, samples, rate_hz)

AudioEncoder.compute = killed
api.extract(make_songs(store.parent / "songs"), store, add="net", audio_model=model, audio_pooling="frames", workers=0)
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: save_encoder(name, folder / name) for name in ENCODERS}


@pytest.fixture
def store(tones: Base, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tones[1], tmp_path / "s.zarr"))


def add(base: Base, store: Path, model: Path, name: str = "net", **options: Any) -> Any:
    return api.extract(base[0], store, add=name, audio_model=f"hf:{model}", **{**OPTIONS, **options})


def clip(source: Source, i: int, rate_hz: int) -> np.ndarray:
    recipe = MelRecipe(clip_s=2.0, sample_rate_hz=rate_hz, fmax_hz=rate_hz / 2)
    with ClipReader(recipe, form="samples") as reader:
        return reader.read_samples(source.root / f"{i}.wav").samples


def alone(name: str, folder: Path, samples: np.ndarray) -> np.ndarray:
    """Frames of all layers (or of the output) of a clip, by transformers' own classes, (L, T, C)."""
    processor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    model, _ = ENCODERS[name]()
    model = type(model).from_pretrained(folder).eval()
    rate, n = processor.sampling_rate, len(samples)
    window = {"ast": 128 * 160, "clap": 8_000, "whisper": 32_000}.get(name.split("_")[0], 30 * rate)
    count = max(1, -(-n // window))
    starts = np.linspace(0, max(0, n - window), count).round().astype(int)
    pieces = []
    for start in starts:
        piece = samples[start : start + window]
        inputs = processor(piece, sampling_rate=rate, return_tensors="pt")
        value = inputs[processor.model_input_names[0]].float()
        with torch.inference_mode():
            if name.startswith("clap"):
                tower = getattr(model, "audio_model", model)
                output = tower(value, is_longer=torch.tensor([[False]])).last_hidden_state
                pieces.append(output[0].mean(1).T[None])
                continue
            encoder = model.get_encoder() if name == "whisper" else model
            states = torch.cat(encoder(value, output_hidden_states=True).hidden_states)
        if name == "ast":
            states = (
                states[:, 2:].reshape(LAYERS + 1, 2, 12, WIDTH).mean(1)
            )  # patches of 16 x 16 in 32 bands, 128 frames
            mel_frames = 128 if len(piece) == window else 1 + (len(piece) - 400) // 160
            states = states[:, : max(1, (mel_frames - 16) // 10 + 1)]
        if name == "whisper":
            states = states[:, : -(-len(piece) // 320)]
        pieces.append(states)
    return torch.cat(pieces, dim=1).numpy()


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)).min())


@pytest.mark.parametrize("name", ENCODERS)
def test_stored_features_equal_the_encoder_run_alone(
    tones: Base, models: dict[str, Path], store: Path, name: str
) -> None:
    layers = "all" if name in WITH_LAYERS else "last"
    report = add(tones, store, models[name], audio_layers=layers, audio_pooling="frames")
    assert (report.ok, report.failed) == (7, 0)
    add(tones, store, models[name], "pooled")
    assert verify(store, full=True) == []
    view = mgc.open(store)
    rate = view.store.extractors["net"].clip["sample_rate_hz"]  # type: ignore[index]
    dims = ("track", *(("net_layer",) if layers == "all" else ()), "net_frame", "net_dim")
    assert (view["net"].dims, view["net"].dtype, view["pooled"].dims) == (dims, np.float16, ("track", "pooled_dim"))
    for i in range(len(SECONDS)):
        expected = alone(name, models[name], clip(tones[0], i, rate))
        length = int(view["net_length"][i])
        stored = view["net"][i] if layers == "all" else view["net"][i][None]
        assert length == expected.shape[1]
        assert cosine(stored[:, :length], expected) > 0.9999
        if name not in ("ast", "wav2vec2_layer_norm"):  # whose output is normalised after the last layer
            assert cosine(view["pooled"][i], expected[-1].mean(0)) > 0.9999


@pytest.mark.parametrize("name", ["ast", "wav2vec2_layer_norm"])
def test_last_layer_is_the_normalised_output(tones: Base, models: dict[str, Path], name: str) -> None:
    extractor = pretrained_extractor(
        "net", AudioSource(model=str(models[name])), AudioSettings(), MelRecipe(clip_s=2.0)
    )
    extractor.prepare_once()
    samples = clip(tones[0], 2, 16_000)[: 128 * 160]
    network = getattr(transformers, str(extractor.parameters["encoder"])).from_pretrained(models[name]).eval()
    processor = transformers.AutoFeatureExtractor.from_pretrained(models[name])
    with torch.inference_mode():
        output = network(processor(samples, sampling_rate=16_000, return_tensors="pt").input_values).last_hidden_state
    frames = output[0, 2:] if name == "ast" else output[0]
    assert cosine(extractor.values(samples, 16_000), frames.mean(0).numpy()) > 0.9999


def test_output_of_clap_is_its_pooled_embedding(tones: Base, models: dict[str, Path]) -> None:
    extractor = pretrained_extractor(
        "net", AudioSource(model=str(models["clap"])), AudioSettings(), MelRecipe(clip_s=1.0)
    )
    extractor.prepare_once()
    samples = clip(tones[0], 2, 8_000)[:8_000]
    processor = transformers.AutoFeatureExtractor.from_pretrained(models["clap"])
    tower = transformers.ClapModel.from_pretrained(models["clap"]).audio_model.eval()
    with torch.inference_mode():
        inputs = processor(samples, sampling_rate=8_000, return_tensors="pt").input_features.float()
        pooled = tower(inputs, is_longer=torch.tensor([[False]])).pooler_output[0]
    np.testing.assert_allclose(extractor.values(samples, 8_000), pooled.numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_neighbours_in_a_batch_do_not_change_values(tones: Base, models: dict[str, Path], name: str) -> None:
    settings = AudioSettings(pooling="frames")
    extractor = pretrained_extractor("net", AudioSource(model=str(models[name])), settings, MelRecipe(clip_s=2.0))
    extractor.prepare_once()
    encoder = extractor.compute.__self__  # type: ignore[attr-defined]
    rate = extractor.sample_rate_hz
    assert rate is not None
    clips = [clip(tones[0], i, rate) for i in range(len(SECONDS))]
    together = encoder.compute_batch(clips, rate)
    for samples, values in zip(clips, together, strict=True):
        np.testing.assert_allclose(values, encoder.compute(samples, rate), atol=1e-4)
    with pytest.raises(ValueError, match="the encoder needs"):
        encoder.compute(clips[0], 11_025)


def test_padding_would_change_an_encoder_with_group_norm(tones: Base, models: dict[str, Path]) -> None:
    """Why only windows of the same length run together."""
    model = transformers.Wav2Vec2Model.from_pretrained(models["wav2vec2"]).eval()
    samples = torch.from_numpy(clip(tones[0], 1, 16_000))[None]
    with torch.inference_mode():
        own = model(samples).last_hidden_state[0]
        padded = model(torch.nn.functional.pad(samples, (0, 24_000))).last_hidden_state[0, : len(own)]
    assert cosine(padded.numpy(), own.numpy()) < 0.999


def test_killed_extraction_continues_to_identical_bytes(
    tones: Base, models: dict[str, Path], store: Path, tmp_path: Path
) -> None:
    shutil.copytree(tones[0].root, tmp_path / "songs")
    whole = Path(shutil.copytree(store, tmp_path / "whole.zarr"))
    add(tones, whole, models["hubert"], audio_pooling="frames")
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path)), "PATH": ""}
    command = [sys.executable, "-c", KILLED, store, f"hf:{models['hubert']}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == -9, done.stderr
    renamed = Path(shutil.copytree(models["hubert"], tmp_path / "renamed"))
    built = add(tones, store, renamed, audio_pooling="frames").parts_built
    assert 0 < built < 4
    assert tree(store) == tree(whole), "hashes identify the model, not the name of its folder"
    convert(store, tmp_path / "s.h5")
    convert(tmp_path / "s.h5", tmp_path / "again.zarr")
    assert tree(tmp_path / "again.zarr") == tree(store)


def test_workers_load_the_encoder_that_is_given(tones: Base, models: dict[str, Path], store: Path) -> None:
    report = add(tones, store, models["wavlm"], audio_layers="0,2", workers=1)
    assert (report.ok, report.failed) == (7, 0)
    assert pretrained.pretrained_extractor.cache_info().currsize == 0, "freed in the main process"
    expected = alone("wavlm", models["wavlm"], clip(tones[0], 0, 16_000)).mean(1)
    assert cosine(mgc.open(store)["net"][0], expected[[0, 2]]) > 0.9999


def test_recipe_identifies_the_encoder_and_other_ones_are_refused(
    tones: Base, models: dict[str, Path], store: Path, tmp_path: Path
) -> None:
    add(tones, store, models["hubert"], audio_layers="0,2")
    recipe = read_plan(store).added["net"].recipe
    parameters = recipe.parameters  # type: ignore[union-attr]
    assert {
        "encoder": "HubertModel",
        "model": "hubert",
        "layers": [0, 2],
        "pooling": "mean",
        "precision": "fp32",
    }.items() <= parameters.items()
    assert {"sampling_rate": 16_000, "do_normalize": False}.items() <= parameters["processor"].items()
    assert len(parameters["weights_sha256"]) == len(parameters["config_sha256"]) == 64
    assert add(tones, store, models["hubert"], audio_layers="0,2").parts_built == 0
    other = save_encoder("hubert", tmp_path / "hubert", seed=1)
    for model, options, output in (
        (other, {"audio_layers": "0,2"}, "parameters.weights_sha256: "),
        (models["hubert"], {"audio_layers": "0,1"}, r"parameters.layers: \[0, 2\] in the store, \[0, 1\] in this"),
        (models["hubert"], {}, "parameters.layers: .*last in this command"),
    ):
        with pytest.raises(RecipeMismatchError, match=output):
            add(tones, store, model, **options)
    with pytest.raises(
        ConfigError, match=r"--add net: its features are those of a pretrained audio encoder\. Give --aud"
    ):
        api.extract(tones[0], store, add="net", **OPTIONS)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 0.1}))
    with pytest.raises(RecipeMismatchError, match="parameters.config_sha256: "):
        add(tones, store, other, audio_layers="0,2")


def test_repair_finds_the_encoder_or_reports_it(tones: Base, models: dict[str, Path], store: Path) -> None:
    add(tones, store, models["whisper"], audio_pooling="frames")
    before = tree(store)
    (store / "net_length" / "c" / "1").unlink()
    report = api.store_repair(store, tones[0])
    assert "audio model 'whisper': no such folder" in report.not_built["net"]
    assert api.store_repair(store, tones[0], audio_model=f"hf:{models['whisper']}").parts_built == 1
    assert verify(store, full=True) == []
    assert all(key.startswith("commits/") for key, data in before.items() if tree(store).get(key) != data)


def _without(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink()


def _without_weights(folder: Path, key: str) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({name: value for name, value in weights.items() if key not in name}, folder / "model.safetensors")


def _with_config(folder: Path, **changed: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changed}))


FAULTS: dict[str, tuple[str, Any, dict[str, str], str]] = {
    "no weights": ("ast", lambda f: _without(f, "model.safetensors"), {}, "only safetensors weights are read"),
    "no settings": ("ast", lambda f: _without(f, "preprocessor_config.json"), {}, "no preprocessor_config.json"),
    "no config": ("ast", lambda f: _without(f, "config.json"), {}, "config.json: not readable"),
    "other layout": ("ast", lambda f: _with_config(f, model_type="bert"), {}, "its layout 'bert' is not supported"),
    "other shape": ("ast", lambda f: _with_config(f, max_length=64), {}, "the preprocessor has others"),
    "other window": ("whisper", lambda f: _with_config(f, max_source_positions=50), {}, "windows of another length"),
    "lost weights": ("hubert", lambda f: _without_weights(f, "layers.1"), {}, "weights are not in the files, such as"),
    "damaged": ("ast", lambda f: (f / "model.safetensors").write_bytes(b"x"), {}, "transformers cannot load it"),
    "no such layer": ("ast", lambda f: None, {"audio_layers": "3"}, "has the layers 0 to 2"),
    "a layer twice": ("ast", lambda f: None, {"audio_layers": "1,1"}, "different numbers"),
    "not a layer": ("ast", lambda f: None, {"audio_layers": "first"}, "Use last, all, or different numbers"),
    "layers of CLAP": (
        "clap",
        lambda f: None,
        {"audio_layers": "all"},
        "CLAP has layers of different widths. Use last",
    ),
    "no folder": ("ast", shutil.rmtree, {}, "no such folder. Use hf:FOLDER, or hf:OWNER/NAME"),
}


@pytest.mark.parametrize(("name", "spoil", "options", "output"), FAULTS.values(), ids=FAULTS.keys())
def test_faults_are_reported_before_anything_is_planned(
    tones: Base, models: dict[str, Path], store: Path, tmp_path: Path, name: str, spoil: Any, options: Any, output: str
) -> None:
    folder = Path(shutil.copytree(models[name], tmp_path / "model"))
    spoil(folder)
    with pytest.raises(ConfigError) as error:
        add(tones, store, folder, **options)
    assert output in str(error.value)
    assert str(error.value).startswith("--add net: audio ")
    assert read_plan(store).added == {}


def test_missing_library_is_reported_with_how_to_install_it(
    tones: Base, models: dict[str, Path], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "mgc.pipeline.extractors.audio_encoders", raising=False)
    monkeypatch.setitem(sys.modules, "transformers", None)
    pretrained.release()
    with pytest.raises(MissingExtraError, match=r"transformers.*mgc-music\[extract\]"):
        add(tones, store, models["ast"])
    assert read_plan(store).added == {}


def test_model_of_the_hub_comes_from_the_cache_and_its_absence_is_one_message(
    tones: Base, models: dict[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "hub" / "models--owner--net"
    shutil.copytree(models["hubert"], cache / "snapshots" / ("0" * 40))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert api.extract(tones[0], store, add="net", audio_model="hf:owner/net", **OPTIONS).ok == 7
    assert read_plan(store).added["net"].recipe.parameters["model"] == "owner/net"  # type: ignore[union-attr]
    (store / "net" / "c" / "1" / "0").write_bytes(b"")
    assert api.store_repair(store, tones[0]).parts_built == 1, "the name in the recipe is enough"
    with pytest.raises(ConfigError) as error:
        audio_models.find_audio_model("hf:owner/other")
    for output in ("'hf:owner/other': no such folder", "not in the local cache", "hf download owner/other", "HF_HOME"):
        assert output in str(error.value)


def test_code_in_the_folder_of_a_model_is_not_run(
    tones: Base, models: dict[str, Path], store: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(models["hubert"], tmp_path / "model"))
    _with_config(folder, auto_map={"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"})
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(
        json.dumps({**settings, "auto_map": {"AutoFeatureExtractor": "evil.Evil"}})
    )
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    assert add(tones, store, folder).ok == 7
    assert not (tmp_path / "ran").exists()


def test_bf16_is_a_parameter_of_the_recipe_and_needs_a_device_that_has_it(
    tones: Base, models: dict[str, Path], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "computes_in", lambda precision, device: precision != "bf16")
    with pytest.raises(ConfigError, match=r"audio precision bf16: cpu on this machine does not compute in it"):
        add(tones, store, models["hubert"], audio_precision="bf16")
    monkeypatch.setattr(pretrained, "computes_in", lambda precision, device: True)
    assert add(tones, store, models["hubert"], audio_precision="bf16").ok == 7
    assert read_plan(store).added["net"].recipe.parameters["precision"] == "bf16"  # type: ignore[union-attr]
    add(tones, store, models["hubert"], "exact")
    view = mgc.open(store)
    assert not np.array_equal(view["net"][:], view["exact"][:])
    assert cosine(view["net"][:], view["exact"][:]) > 0.99
    assert isinstance(cpu_has_bf16(), bool)


def test_command_adds_an_encoder(tones: Base, models: dict[str, Path], store: Path, call: Any) -> None:
    labels = store.parent / "tones.csv"
    labels.write_text("id,path\n" + "".join(f"t{i},{i}.wav\n" for i in range(7)))
    source = (labels, "--root", tones[0].root, "-o", store, "--workers", 0)
    encoder = ("--audio-model", f"hf:{models['hubert']}", "--audio-layers", "0,2", "--audio-pooling", "frames")
    done = call("extract", *source, "--add", "net", *encoder)
    assert (done.code, "planned 7 = ok 7 + failed 0" in done.out) == (0, True)
    assert mgc.open(store)["net"].shape == (7, 2, 99, WIDTH)
    for options, output in (
        (encoder, "its features can only be added to a store. Use --add NAME"),
        ((*encoder, "--add", "net", "--text-model", "minilm"), "--audio-model and --text-model exclude each other"),
        ((*encoder, "--add", "pooled_mel"), "an extractor has this name, but --audio-model is given too"),
        (("--audio-model", "hf:none", "--add", "more"), "audio model 'hf:none': no such folder"),
    ):
        refused = call("extract", *source, *options)
        assert (refused.code, output in refused.err) == (2, True)


def test_page_lists_the_windows_and_frames_of_default_configurations(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "audio-encoders.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| layout \|.*\n\|[-|]+\n((?:\|.*\n)+)", page, re.M)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert {row[1].strip("`") for row in rows} == audio_models.FAMILIES.keys() - {"clap_audio_model"}
    for _, family, seconds, frames, layers in rows:
        name = family.strip("`")
        config = transformers.CONFIG_MAPPING[name]()
        config.save_pretrained(tmp_path / name)
        with warnings.catch_warnings(action="ignore"):  # AST has mel bands narrower than a bin
            transformers.FEATURE_EXTRACTOR_MAPPING[type(config)]().save_pretrained(tmp_path / name)
        (tmp_path / name / "model.safetensors").write_bytes(b"")
        layout = read_layout(audio_models.find_audio_model(str(tmp_path / name)))
        assert f"{layout.window / layout.sample_rate_hz:g} s" == seconds
        assert (str(layout.n_frames), "all" if layout.n_layers else "last") == (frames, layers)


def test_every_error_is_one_of_mgc(tmp_path: Path) -> None:
    for model in ("", "hf:", "hf:a b", "hf:../x/y", "hf:" + "x" * 300, "hf:a\0b"):
        with pytest.raises(MgcError, match="no such folder"):
            audio_models.find_audio_model(model)
