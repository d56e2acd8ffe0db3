"""Recipes: every parameter that a feature depends on, and their fingerprints."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from ..bounds import AtMost, Between, Count, Matching
from ..durable import fingerprint

_Rate = Annotated[float, Between(0, 1e6)]
_Samples = Annotated[int, Between(1, 2**20)]

SIDES = ("the store", "this command")
"""Default names of the two sides of a difference."""


@dataclass(frozen=True, kw_only=True)
class MelRecipe:
    """Every parameter of a log-mel (paper section 3.1; librosa's definitions).

    The stored value is ``power_to_db(power mel, ref=1.0, amin=1e-10, top_db=None)`` in dB; reference level and
    clipping belong to the reader.
    """

    backend: Literal["fast", "librosa"] = "fast"
    sample_rate_hz: Annotated[int, Between(100, 10**6)] = 22_050
    clip_s: Annotated[float, Between(0.001, 1e6)] = 30.0
    offset: Literal["start", "middle"] = "middle"
    n_fft: _Samples = 2048
    hop_length: _Samples = 512
    n_mels: Annotated[int, Between(1, 2**12)] = 128
    fmin_hz: _Rate = 0.0
    fmax_hz: _Rate = 11_025.0
    min_clip_s: Annotated[float, Between(0, 1e6)] = 0.05

    @property
    def n_samples(self) -> int:
        """Samples in a clip after cropping or zero-padding."""
        return round(self.clip_s * self.sample_rate_hz)

    @property
    def n_frames(self) -> int:
        """Frames of a centred STFT over a whole clip (1292 for 30 s)."""
        return 1 + self.n_samples // self.hop_length


@dataclass(frozen=True, kw_only=True)
class TextRecipe:
    """Frozen encoder of the token states, and its parameters. Hashes identify it; the name is for people.

    ``prefix`` is read before each text; its tokens have no states of their own in the store.
    """

    model: str
    weights_sha256: str
    tokenizer_sha256: str
    hidden_size: Annotated[int, Between(1, 2**16)]
    max_tokens: Annotated[int, Between(1, 2**16 - 1)] = 512
    precision: Literal["fp32", "bf16", "int8"] = "fp32"
    backend: Literal["torch", "openvino", "ctranslate2"] = "torch"
    pooling: Literal["mean_non_special"] = "mean_non_special"
    cleaning: Annotated[int, Between(0, 2**31)] = 1
    prefix: Annotated[str, AtMost(1000)] = ""


@dataclass(frozen=True, kw_only=True)
class ExtractorRecipe:
    """A feature of an extractor plug-in, and its parameters (:mod:`mgc.pipeline.extractors.registry`).

    Attributes
    ----------
    input : input of the extractor per track: its ``clip``, or the ``text`` of its lyrics.
    version : of the extractor; its author raises it whenever values change.
    dims, shape : of the values of one track.
    parameters : all other parameters that determine the values, as JSON values.
    clip : how clips are cut and resampled, parameters of :class:`MelRecipe`; None for ``text``.
    length : of a sequence, the dimension along which a track may have fewer values than `shape`. The array
        ``NAME_length`` has their number.
    """

    extractor: str
    version: str
    input: Literal["clip", "text"]
    dims: Annotated[tuple[str, ...], AtMost(20)]
    shape: Annotated[tuple[Count, ...], AtMost(20)]
    dtype: Annotated[str, Matching("float(16|32|64)|u?int(8|16|32|64)", "a type of numbers such as float32")]
    unit: str
    description: str
    parameters: Mapping[str, Any]
    clip: Mapping[str, Any] | None
    length: str | None = None


FeatureSetRecipe = TextRecipe | ExtractorRecipe
"""Recipe of an added feature set."""


def feature_set_recipe(data: Mapping[str, Any]) -> FeatureSetRecipe:
    """Return the recipe of an added feature set from JSON."""
    if "extractor" not in data:
        return TextRecipe(**data)
    return extractor_recipe(data)


def extractor_recipe(data: Mapping[str, Any]) -> ExtractorRecipe:
    """Return the recipe of an extractor's feature set from JSON."""
    return ExtractorRecipe(**{**data, "dims": tuple(data["dims"]), "shape": tuple(data["shape"])})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Recipe of a store: of its mels, of its lyrics and genre embeddings, or of both.

    ``genre_names`` maps a genre to its prompt, the text that is embedded for it; the prompt of any other genre is its
    name.
    """

    mel: MelRecipe | None
    lyrics: TextRecipe | None
    genre_names: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        recipes = {"mel": self.mel, "lyrics": self.lyrics}
        document = {name: recipe_document(recipe) for name, recipe in recipes.items() if recipe is not None}
        return document | ({"genre_names": dict(self.genre_names)} if self.genre_names else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        mel, lyrics = data.get("mel"), data.get("lyrics")
        return cls(
            mel=MelRecipe(**mel) if mel else None,
            lyrics=TextRecipe(**lyrics) if lyrics else None,
            genre_names=dict(data.get("genre_names", {})),
        )

    def fingerprints(self) -> dict[str, str]:
        """Return the sha256 of the canonical recipe of each feature; it covers the hashes of weights and tokenizer."""
        prints = {} if self.mel is None else {"mel": fingerprint(dataclasses.asdict(self.mel))}
        return prints | ({} if self.lyrics is None else text_fingerprints(self.lyrics, self.genre_names))

    def differences(self, other: Recipe, sides: tuple[str, str] = SIDES) -> list[str]:
        """Return one readable line per parameter that differs; `sides` has the names of the two recipes."""
        return differing_values(_flat(self.to_dict()), _flat(other.to_dict()), sides)


_EARLIER: dict[type, dict[str, Any]] = {
    TextRecipe: {"backend": "torch", "prefix": ""},
    ExtractorRecipe: {"length": None},
}
"""Values that earlier versions used without a key for them."""


def recipe_document(recipe: MelRecipe | FeatureSetRecipe) -> dict[str, Any]:
    """Return the recipe of one feature as JSON values, without the keys that an earlier version did not have, where
    they have its value."""
    document = dataclasses.asdict(recipe)
    earlier = _EARLIER.get(type(recipe), {})
    return {key: value for key, value in document.items() if key not in earlier or value != earlier[key]}


def _flat(data: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}.{key}": value for name, values in data.items() for key, value in values.items()}


def feature_set_differences(
    first: FeatureSetRecipe, second: FeatureSetRecipe, sides: tuple[str, str] = SIDES
) -> list[str]:
    """Return one readable line per entry of two recipes that differs; of an extractor, under ``extractor.entry``.

    The name of a model is not compared where a hash identifies its weights.
    """
    prefix = f"{first.extractor}." if isinstance(first, ExtractorRecipe) else ""
    flat: list[dict[str, Any]] = []
    for recipe in (first, second):
        document = dataclasses.asdict(recipe)
        nested = {name: dict(document.pop(name, None) or {}) for name in ("parameters", "clip")}
        for values in (document, nested["parameters"]):
            if "weights_sha256" in values:
                values.pop("model", None)
        flat.append({f"{prefix}{name}": value for name, value in {**document, **_flat(nested)}.items()})
    return differing_values(flat[0], flat[1], sides)


def differing_values(first: Mapping[str, Any], second: Mapping[str, Any], sides: tuple[str, str] = SIDES) -> list[str]:
    """Return one readable line per key whose values differ.

    >>> differing_values({"hop_length": 512, "n_mels": 128}, {"hop_length": 256, "n_mels": 128})
    ['hop_length: 512 in the store, 256 in this command']
    """
    return [
        difference(key, first.get(key, "absent"), second.get(key, "absent"), sides)
        for key in sorted({*first, *second})
        if first.get(key) != second.get(key)
    ]


def difference(name: str, first: object, second: object, sides: tuple[str, str] = SIDES) -> str:
    """Return a readable line on a value that differs between two sides."""
    return f"{name}: {first} in {sides[0]}, {second} in {sides[1]}"


def added_fingerprints(recipe: FeatureSetRecipe, genre_names: Mapping[str, str]) -> dict[str, str]:
    """Return the sha256 of the canonical recipe of each feature of an added feature set."""
    if isinstance(recipe, TextRecipe):
        return text_fingerprints(recipe, genre_names)
    return {recipe.extractor: fingerprint(recipe_document(recipe))}


def text_fingerprints(text: TextRecipe, genre_names: Mapping[str, str]) -> dict[str, str]:
    """Return the sha256 of the canonical recipes of token states and genre embeddings."""
    lyrics = fingerprint(recipe_document(text))
    names = {"genre_names": dict(genre_names)} if genre_names else {}
    return {"lyrics": lyrics, "genre_embedding": fingerprint({"feature": "genre_embedding", "lyrics": lyrics, **names})}
