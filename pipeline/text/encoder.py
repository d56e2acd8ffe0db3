"""Encode lyrics to token states of a frozen encoder, on unpadded texts, packed where that is faster."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from ...cache.errors import ConfigError, TextModelError
from ...cache.format.recipe import Recipe, TextRecipe
from ...cache.machine import cpu_has_bf16
from .lyrics import CLEANING_RULE
from .models import TextModelFiles, find_text_model
from .packing import in_packs

if TYPE_CHECKING:
    import tokenizers

Precision = Literal["fp32", "bf16", "int8"]
TextBackend = Literal["torch", "openvino", "ctranslate2"]

MAX_TOKENS = 512
"""Default maximum length of a text in tokens: the positions of BERT."""


@dataclass(frozen=True, kw_only=True)
class TokenStates:
    """Encoder output for one text.

    Attributes
    ----------
    states : (n_tokens, hidden_size) float32, last hidden states, with those of the special tokens at both ends: [CLS]
        and [SEP], or <s> and </s>. The tokens of the recipe's prefix have none.
    pooled : (hidden_size,) float32, mean of the states of the non-special tokens; 0 if there is none (a text without
        any token).
    n_tokens, n_tokens_full : tokens kept, and tokens before truncation; with the special tokens, without the prefix.
    """

    states: npt.NDArray[np.float32]
    pooled: npt.NDArray[np.float32]
    n_tokens: int
    n_tokens_full: int


class TextEncoder:
    """A frozen text encoder, loaded once.

    Parameters
    ----------
    files : what :func:`find_text_model` found.
    precision, backend : ``fp32``, ``bf16`` for the matrix products, or ``int8``, which runs on CTranslate2; see Notes.
    device : a torch device.
    max_tokens : maximum length of a text in tokens, specials and prefix included; limited by the positions of the
        model, and then ``recipe.max_tokens`` has the limit. A longer text keeps its first tokens and both specials.
    pack_tokens : maximum tokens per pack; None takes the fastest setting, 0 encodes one text at a time.
    cleaning : rule that cleaned the texts, for the recipe.

    Attributes
    ----------
    recipe : TextRecipe of the states, for the store.

    Raises
    ------
    TextModelError
        If transformers cannot load the files, weights that the states depend on are missing, or the tokenizer does not
        put one special token at each end.

    Notes
    -----
    In bf16 the weights of linear layers are rounded once and products run under autocast, while embeddings, residual
    sums and layer norms stay in float32: as fast as the whole model in bf16 and nearer to fp32. Measured with MiniLM on
    37 real lyrics, one thread, with avx512_bf16: least cosine of a token to fp32 0.99984 (whole model in bf16:
    0.99977), 4 500 tokens/s against 2 700 in fp32.

    In float32 on a CPU texts run one at a time, and the same text gives the same bits on the same machine, versions and
    number of threads. Otherwise texts are packed in the given order and do not attend to each other; neighbours may
    change the last bits of a text. So identical bytes need the same texts in the same order. The number of Torch's
    threads is not changed. The tokenizer's own padding and truncation (MiniLM: both to 128) are switched off.
    """

    def __init__(
        self,
        files: TextModelFiles,
        *,
        precision: Precision = "fp32",
        backend: TextBackend = "torch",
        device: str = "cpu",
        max_tokens: int = MAX_TOKENS,
        pack_tokens: int | None = None,
        cleaning: int = CLEANING_RULE,
    ) -> None:
        from .backends import load_backend

        self.recipe = text_recipe(files, precision=precision, backend=backend, max_tokens=max_tokens, cleaning=cleaning)
        self._backend = load_backend(files, self.recipe, device, pack_tokens)
        self._tokenizer = _load_tokenizer(files.folder)
        self._cutter = _load_tokenizer(files.folder)
        self._cutter.enable_truncation(max_length=self.recipe.max_tokens)
        self._n_prefix = len(self._tokenizer.encode(self.recipe.prefix, add_special_tokens=False).ids)

    def encode(self, text: str) -> TokenStates:
        """Run the model over one text.

        Parameters
        ----------
        text : clean text, such as :func:`mgc.pipeline.text.lyrics.read_lyrics` gives.
        """
        return next(self.encode_all([text]))

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """Return start and end in `text` of each token whose state :meth:`encode` returns; equal for special tokens."""
        before = len(self.recipe.prefix)
        spans = self._cutter.encode(self.recipe.prefix + text).offsets
        del spans[1 : 1 + self._n_prefix]
        return [(max(0, start - before), max(0, end - before)) for start, end in spans]

    def encode_all(self, texts: Sequence[str]) -> Iterator[TokenStates]:
        """Run the model over texts, packed in the order given; their states in that order."""
        texts = [self.recipe.prefix + text for text in texts]
        prefix = slice(1, 1 + self._n_prefix)  # behind the first special token
        full = [self._tokenizer.encode(text) for text in texts]
        cut = [
            tokens if len(tokens.ids) <= self.recipe.max_tokens else self._cutter.encode(text)
            for tokens, text in zip(full, texts, strict=True)
        ]
        for pack in in_packs([len(tokens.ids) for tokens in cut], self._backend.pack_tokens):
            for i, states in zip(pack, self._backend([cut[i].ids for i in pack]), strict=True):
                states = np.delete(states, prefix, axis=0)
                content = states[np.delete(cut[i].special_tokens_mask, prefix) == 0]
                pooled = content.mean(axis=0) if len(content) else np.zeros(states.shape[1], dtype=np.float32)
                n_tokens_full = len(full[i].ids) - self._n_prefix
                yield TokenStates(states=states, pooled=pooled, n_tokens=len(states), n_tokens_full=n_tokens_full)


def text_recipe(
    files: TextModelFiles,
    *,
    precision: Precision = "fp32",
    backend: TextBackend = "torch",
    max_tokens: int = MAX_TOKENS,
    cleaning: int = CLEANING_RULE,
) -> TextRecipe:
    """Return the recipe of a :class:`TextEncoder` made with these arguments, without loading the model.

    Raises
    ------
    ConfigError
        If an argument is invalid.
    """
    if precision not in get_args(Precision):
        raise ConfigError(
            f"text precision {precision!r}: unknown choice. Choose one of {', '.join(get_args(Precision))}."
        )
    if backend not in get_args(TextBackend):
        raise ConfigError(
            f"text backend {backend!r}: unknown choice. Choose one of {', '.join(get_args(TextBackend))}."
        )
    if (precision == "int8") != (backend == "ctranslate2"):
        raise ConfigError(
            f"text precision {precision} with text backend {backend}: int8 needs ctranslate2, which has only int8."
        )
    if not 1 <= cleaning <= CLEANING_RULE:
        raise ConfigError(
            f"lyrics cleaned by rule {cleaning}: this version of mgc has the rules 1 to {CLEANING_RULE}. Install a "
            "newer version."
        )
    if max_tokens < 3:
        raise ConfigError(f"max_tokens is {max_tokens}; with two special tokens at least 3 are needed")
    return TextRecipe(
        model=files.name,
        weights_sha256=files.weights_sha256,
        tokenizer_sha256=files.tokenizer_sha256,
        hidden_size=files.hidden_size,
        max_tokens=min(max_tokens, files.max_tokens or max_tokens),
        precision=precision,
        backend=backend,
        cleaning=cleaning,
        prefix=files.prefix,
    )


def resolve_precision(precision: str, device: str = "cpu") -> Precision:
    """Resolve ``auto`` to ``bf16`` if `device` multiplies it in hardware, else to ``fp32``; keep other values.

    A CPU needs avx512_bf16 or amx_bf16 (names of Linux); emulated bf16 is slower than fp32.
    """
    if precision != "auto":
        return cast(Precision, precision)
    return "bf16" if computes_in("bf16", device) else "fp32"


def computes_in(precision: Precision, device: str = "cpu") -> bool:
    """Return whether `device` multiplies in `precision` itself; emulated bf16 gives slightly different values."""
    if precision != "bf16":
        return True
    if device.startswith("cuda"):
        import torch

        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return cpu_has_bf16()


def _load_tokenizer(folder: Path) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer

    try:
        if (folder / "tokenizer.json").is_file():
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        else:
            from transformers import AutoTokenizer

            loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            tokenizer = Tokenizer.from_str(loaded.backend_tokenizer.to_str())
    except Exception as error:  # tokenizers raises bare Exception
        raise TextModelError(f"{folder}: the tokenizer cannot be loaded: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    special = tokenizer.encode("a").special_tokens_mask
    if (special[0], sum(special), special[-1]) != (1, 2, 1):
        raise TextModelError(
            f"{folder}: its tokenizer does not put one special token at each end of a text, such as [CLS] and [SEP]. "
            "Use an encoder like BERT, RoBERTa or ModernBERT."
        )
    return tokenizer


@dataclass(frozen=True, kw_only=True)
class TextSource:
    """Location of the text encoder on this machine: a name (``bert-base-uncased``, ``minilm``, ``multilingual``) or a
    folder.

    Attributes
    ----------
    emulates : accept a device that does not compute in the recipe's precision. Features of a store must not depend on
        the worker that computed them; a prediction may.
    """

    model: str | None = None
    device: str = "cpu"
    emulates: bool = False


def encoder_recipe(
    text: TextSource,
    precision: str,
    *,
    backend: str = "auto",
    max_tokens: int | None = None,
    cleaning: int = CLEANING_RULE,
) -> TextRecipe:
    """Return the recipe of the encoder that `text` names, without loading it.

    Parameters
    ----------
    precision : as for :func:`resolve_precision`, on the device of `text`.
    backend : a :data:`TextBackend`; ``auto`` is ctranslate2 for int8, else torch.
    max_tokens : maximum length of lyrics; None takes 512, or the positions of a model with fewer.
    cleaning : rule that cleans the lyrics.

    Raises
    ------
    ConfigError
        If the model has fewer positions than `max_tokens`, or an argument is invalid.
    """
    precision = resolve_precision(precision, text.device)
    if backend == "auto":
        backend = "ctranslate2" if precision == "int8" else "torch"
    files = find_text_model(text.model)
    if max_tokens is not None and files.max_tokens is not None and max_tokens > files.max_tokens:
        raise ConfigError(
            f"--text-max-tokens {max_tokens}: text model {files.name} has positions for {files.max_tokens} tokens. "
            f"Use at most {files.max_tokens}, or a model for longer texts."
        )
    return text_recipe(
        files,
        precision=precision,
        backend=cast(TextBackend, backend),
        max_tokens=max_tokens or MAX_TOKENS,
        cleaning=cleaning,
    )


@functools.lru_cache(maxsize=1)
def load_encoder(text: TextSource, recipe: TextRecipe) -> TextEncoder:
    """Return the encoder that `recipe` names, loaded once per process.

    Raises
    ------
    TextModelError
        If the model on this machine differs from the recipe in the hashes of weights or tokenizer, or the device
        does not compute in its precision.
    """
    if not text.emulates and not computes_in(recipe.precision, text.device):
        raise TextModelError(
            f"text precision {recipe.precision}: {text.device} on this machine does not compute in it, and would make "
            "other features, slowly. Leave this machine out, or make the store with --text-precision fp32"
        )
    files = find_text_model(text.model or recipe.model)
    encoder = TextEncoder(
        files,
        precision=recipe.precision,
        backend=recipe.backend,
        device=text.device,
        max_tokens=recipe.max_tokens,
        cleaning=recipe.cleaning,
    )
    actual = encoder.recipe
    identity = (recipe.weights_sha256, recipe.tokenizer_sha256, recipe.prefix)
    if (actual.weights_sha256, actual.tokenizer_sha256, actual.prefix) != identity:
        raise TextModelError(
            f"text model {files.name}: another encoder than {recipe.model}, which computed these features "
            f"(weights {actual.weights_sha256[:12]}, wanted {recipe.weights_sha256[:12]}); "
            "name the right one with --text-model"
        )
    return encoder


def embed_genres(encoder: TextEncoder, names: Sequence[str]) -> npt.NDArray[np.float32]:
    """Embed genre names, each as a separate text: the nodes of the genre graph (paper.md section 5).

    Returns
    -------
    (genre, hidden_size) float32
        The mean of the non-special tokens' states, neither centred nor normalised.
    """
    rows = [encoder.encode(name).pooled for name in names]
    return np.array(rows, dtype=np.float32).reshape(len(names), encoder.recipe.hidden_size)


def embed_prompts(genres: Sequence[str], recipe: Recipe, text: TextSource) -> npt.NDArray[np.float32]:
    """Embed the genre name prompts of `recipe` by its encoder: (genre, text_dim) float32."""
    assert recipe.lyrics is not None
    if not genres:
        return np.zeros((0, recipe.lyrics.hidden_size), dtype=np.float32)
    return embed_genres(load_encoder(text, recipe.lyrics), [recipe.genre_names.get(genre, genre) for genre in genres])
