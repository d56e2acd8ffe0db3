"""Detect the encoding of lyrics without a byte order mark that are not UTF-8.

Each candidate encoding is written for some languages. A decoded text gets a log-probability under a model of the
letters of each of these languages (:mod:`mgc.pipeline.text.letters`). The most probable text is accepted if its letters
are as frequent as those of its language should be, and any other text that the bytes may stand for is much less
probable (docs/design/012-encodings-of-lyrics.md).
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from ...cache.normalise import normalise
from .letters import letters_of

MARGIN = 9.0
"""Least difference of log-probability (nats) between an accepted text and any other: a factor of 8000."""
TOLERANCE = 0.7
"""Most nats per letter by which a text may be less probable than is usual for its language."""
SAMPLE_BYTES = 1 << 13

_WESTERN = "English German French Dutch Italian Spanish Portuguese Swedish Norwegian Danish Finnish Indonesian"
_CENTRAL = "Polish Czech Hungarian Slovak Slovene Croatian Romanian German"
_BALTIC = "Lithuanian Estonian Danish Norwegian Swedish Finnish German Polish"
_CYRILLIC = "Russian Ukrainian Bulgarian Serbian Kazakh"
_CANDIDATES = {
    **dict.fromkeys(("cp1252", "iso8859_15", "mac_roman", "cp850", "cp437", "cp865", "cp860"), _WESTERN),
    **dict.fromkeys(("cp1250", "iso8859_2", "cp852", "iso8859_16"), _CENTRAL),
    **dict.fromkeys(("cp1257", "iso8859_13"), _BALTIC),
    **dict.fromkeys(("cp1254", "cp857", "mac_turkish"), "Turkish"),
    "cp1258": "Vietnamese",
    **dict.fromkeys(("cp1251", "koi8_r", "koi8_u", "iso8859_5", "cp866", "cp855", "mac_cyrillic"), _CYRILLIC),
    **dict.fromkeys(("cp1253", "iso8859_7", "cp737", "mac_greek"), "Greek"),
    **dict.fromkeys(("cp1255", "iso8859_8", "cp862"), "Hebrew"),
    **dict.fromkeys(("cp1256", "iso8859_6"), "Arabic Farsi"),
    "cp874": "Thai",
    "gb18030": "Chinese Traditional",
    **dict.fromkeys(("cp950", "big5hkscs"), "Traditional"),
    **dict.fromkeys(("cp932", "euc_jp"), "Japanese"),
    **dict.fromkeys(("cp949", "johab"), "Korean"),
}
LANGUAGES = tuple(dict.fromkeys(" ".join(_CANDIDATES.values()).split()))
_RARITY = {
    **dict.fromkeys(("cp1252", "cp1251", "cp1253", "cp1255", "cp1256", "cp874"), 0.0),
    **dict.fromkeys(("gb18030", "cp950", "cp932", "euc_jp", "cp949"), 0.0),
    **dict.fromkeys(("cp1250", "cp1254", "cp1257", "cp1258", "koi8_r", "koi8_u", "big5hkscs"), 1.0),
    **dict.fromkeys(("iso8859_6", "iso8859_7", "iso8859_8"), 1.0),
    "iso8859_16": 6.0,
}
"""Minus the log-probability (nats) that a file is in an encoding, from 0 for the usual ones; 3 for all others."""

# What no text has inside a word: symbols, and digits between letters beyond ASCII.
_BROKEN_WORD = re.compile(
    r"(?<=[^\W\d_])(?:(?![\s’´·‘–—…])[^\w\x00-\x7f])+(?=[^\W\d_])|(?<=[^\W\d_\x00-\x7f])\d(?=[^\W\d_])"
)
_MIXED_SCRIPTS = re.compile(r"[A-Za-z](?=[^\W\d_\x00-\x7f])|[^\W\d_\x00-\x7f](?=[A-Za-z])")
_JOINED_WORDS = re.compile(r"(?<=[^\W\d_])[‘–—…\xa0](?=[^\W\d_])")
_CAPITALS = re.compile(r"(?<![^\W\d_])[A-ZÀ-ÖØ-ÞЀ-ЯΑ-Ω]{2,}")


@dataclass(frozen=True)
class Decoded:
    """The text of some bytes.

    Attributes
    ----------
    is_certain : False if another encoding fits nearly as well, so that letters beyond ASCII may be wrong ones.
    """

    text: str
    encoding: str
    is_certain: bool = True


@dataclass(frozen=True)
class _Reading:
    """A sample decoded by an encoding, as a text of a language.

    Attributes
    ----------
    log_probability : of the sample (nats).
    is_sound : its letters are as frequent as usual, and nothing in it is impossible.
    has_doubts : some of its characters are unusual in the language.
    """

    encoding: str
    is_latin: bool
    log_probability: float
    is_sound: bool
    has_doubts: bool


class _Sample:
    """A sample decoded by an encoding; counts what does not depend on the language."""

    def __init__(self, text: str, encoding: str) -> None:
        self._encoding = encoding
        self._counts = Counter(text.lower())
        kinds = {char: unicodedata.category(char) for char in self._counts}
        self._of_letters = {char: n for char, n in self._counts.items() if kinds[char][0] in "LM"}
        impossible = (char for char, kind in kinds.items() if kind in ("Cc", "Cn", "Co") and char not in "\n\t\f")
        self._n_impossible = sum(self._counts[char] for char in impossible)
        self._n_case_changes = sum(
            before.islower() and after.isupper() and not (before.isascii() and after.isascii())
            for before, after in itertools.pairwise(text)
        )
        self._n_broken_words = len(_BROKEN_WORD.findall(text))
        self._n_mixed_scripts = len(_MIXED_SCRIPTS.findall(text))
        self._n_joined_words = len(_JOINED_WORDS.findall(text))
        self._n_capitals = len(_CAPITALS.findall(text))
        self._is_upper = text == text.upper() != text.lower()

    def read(self, language: str, *, is_usual: bool) -> _Reading:
        letters, n_letters = letters_of(language), max(1, sum(self._of_letters.values()))
        rarity = -sum(n * letters[char] for char, n in self._of_letters.items()) / n_letters - letters.entropy
        n_broken = self._n_case_changes + (self._n_broken_words if letters.has_spaces else 0)
        n_broken += self._n_mixed_scripts if letters.has_spaces and not letters.is_latin else 0
        log_probability = sum(n * letters[char] for char, n in self._counts.items())
        log_probability -= 6 * n_broken + self._n_capitals + _RARITY.get(self._encoding, 3) + (0 if is_usual else 2)
        n_foreign = sum(letters.is_foreign(char) for char in self._of_letters) + self._n_joined_words
        return _Reading(
            encoding=self._encoding,
            is_latin=letters.is_latin,
            log_probability=log_probability,
            is_sound=rarity <= TOLERANCE + 3 / n_letters**0.5 and n_broken + self._n_impossible == 0,
            has_doubts=n_foreign > 0 or (self._is_upper and not letters.is_latin),
        )


def decode_escaped(data: bytes) -> Decoded | None:
    """Decode ISO-2022-JP, ISO-2022-KR and HZ, whose escape sequences name them; None for other bytes."""
    names = ["iso2022_kr"] if b"\x1b$)C" in data else []
    if not names and (b"\x1b$" in data or b"\x1b(" in data):
        names = ["iso2022_jp_2", "iso2022_jp_ext", "iso2022_jp_3", "iso2022_jp_2004"]
    if re.search(rb"~\{(?:[\x21-\x77][\x21-\x7e])+~\}", data):
        names.append("hz")
    for name in names:
        text = decode_strictly(data, name)
        if text is not None and count_controls(text) == 0:
            return Decoded(text, name)
    return None


def decode_wide(data: bytes) -> Decoded | None:
    """Decode UTF-16 or UTF-32 without a mark; None if there is no NUL byte, or no text of a known language."""
    if b"\0" not in data:
        return None
    matches = []
    for name in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"):
        text = decode_strictly(data, name)
        if text and count_controls(text) == 0 and _is_sound(text[:SAMPLE_BYTES]):
            matches.append((sum(map(str.isascii, text)), text, name))
    matches.sort(reverse=True)
    if not matches or matches[0][0] == 0 or (len(matches) > 1 and matches[1][0] == matches[0][0]):
        return None
    return Decoded(matches[0][1], matches[0][2])


def decode_legacy(data: bytes) -> Decoded | None:
    """Decode by the most probable of the legacy encodings; None where no text is probable enough.

    A text in the Latin script is also returned where another is nearly as probable, as one that is not certain.
    """
    lines = dict.fromkeys(data.replace(b"\r", b"\n").split(b"\n"))  # a repeated line is not further evidence
    sample = b"\n".join(lines)[:SAMPLE_BYTES]  # no candidate has LF or CR inside a character
    readings: dict[str, _Reading] = {}
    for encoding, languages in _CANDIDATES.items():
        if decode_strictly(data, encoding) is None:
            continue
        text = normalise("NFC", sample.decode(encoding, "ignore"))  # the end may be cut
        counted = _Sample(text, encoding)
        for language in dict.fromkeys([*languages.split(), "English"]):
            reading = counted.read(language, is_usual=language in languages)
            if text not in readings or reading.log_probability > readings[text].log_probability:
                readings[text] = reading
    if not readings:
        return None
    best, *others = sorted(readings.values(), key=lambda reading: -reading.log_probability)
    is_certain = not best.has_doubts and not (others and best.log_probability - others[0].log_probability < MARGIN)
    if not best.is_sound or not (is_certain or best.is_latin):
        return None
    return Decoded(data.decode(best.encoding), best.encoding, is_certain)


def count_controls(text: str) -> int:
    """Count the control characters other than white space."""
    return sum(n for char, n in Counter(text).items() if unicodedata.category(char) == "Cc" and not char.isspace())


def _is_sound(text: str) -> bool:
    """Return whether the letters of a text are those of some language."""
    counted = _Sample(normalise("NFC", text), "utf-16")
    return any(counted.read(language, is_usual=True).is_sound for language in LANGUAGES)


def decode_strictly(data: bytes, encoding: str) -> str | None:
    """Decode bytes; None where they are not of this encoding."""
    try:
        return data.decode(encoding)
    except UnicodeError:
        return None
