"""Character probabilities per language, from the letters that charset-normalizer lists by frequency."""

from __future__ import annotations

import functools
import math
import unicodedata
from collections.abc import Callable, Iterator, Sequence

_LETTERS = {
    "English": "éèêïçñáíóöüäô",
    "German": "äöüßé",
    "French": "àâæçèéêëîïôœùûüÿ",
    "Dutch": "éèëïöüáóí",
    "Italian": "àèéìíòóùú",
    "Spanish": "áéíñóúü",
    "Portuguese": "áâãàçéêíóôõúü",
    "Swedish": "åäöéàü",
    "Norwegian": "æøåéèêòóô",
    "Danish": "æøåéü",
    "Finnish": "åäöšž",
    "Indonesian": "é",
    "Polish": "ąćęłńóśźż",
    "Czech": "áčďéěíňóřšťúůýž",
    "Hungarian": "áéíóöőúüű",
    "Slovak": "áäčďéíĺľňóôŕšťúýž",
    "Slovene": "čšžćđ",
    "Croatian": "čćđšž",
    "Romanian": "ăâîșşțţ",
    "Turkish": "çğıöşüâîû",
    "Lithuanian": "ąčęėįšųūžāēģīķļņ",
    "Estonian": "äõöüšž",
    "Vietnamese": "àáảãạăằắẳẵặâầấẩẫậèéẻẽẹêềếểễệìíỉĩịòóỏõọôồốổỗộơờớởỡợùúủũụưừứửữựỳýỷỹỵđ",
    "Russian": "абвгдежзийклмнопрстуфхцчшщъыьэюяё",
    "Ukrainian": "абвгґдеєжзиіїйклмнопрстуфхцчшщьюя",
    "Bulgarian": "абвгдежзийклмнопрстуфхцчшщъьюя",
    "Serbian": "абвгдђежзијклљмнњопрстћуфхцчџш",
    "Kazakh": "абвгдежзийклмнопрстуфхцчшщъыьэюяёәғқңөұүһі",
    "Greek": "αβγδεζηθικλμνξοπρστυφχψωςάέήίόύώϊϋΐΰ",
    "Hebrew": "אבגדהוזחטיךכלםמןנסעףפץצקרשת",
    "Arabic": "ءآأؤإئابةتثجحخدذرزسشصضطظعغفقكلمنهوىي",
    "Farsi": "آأؤئابتثجحخدذرزسشصضطظعغفقلمنهوپچژکگیء",
    "Thai": "".join(map(chr, [*range(0x0E01, 0x0E3B), *range(0x0E40, 0x0E4F)])),
}
"""Letters of each language; for the Latin script those beyond ASCII. Latvian is counted as Lithuanian."""

# Of two-byte character sets: a codec, lead bytes of its frequent characters, and the probability of each of these that
# is not in a list of the most frequent ones, and of each rare one.
_LEVELS = {
    "Chinese": ("gb2312", range(0xB0, 0xD8), 0.52 / 3700, 0.01 / 3000),
    "Traditional": ("cp950", range(0xA4, 0xC7), 0.52 / 5300, 0.01 / 7000),
    "Japanese": ("euc_jp", range(0xB0, 0xD0), 0.2 / 2900, 0.01 / 3300),
    "Korean": ("euc_kr", range(0xB0, 0xC9), 0.52 / 2300, 0.003 / 4888),
}
_TRADITIONAL = str.maketrans(
    "个这们来为国说时会对后发过种经么学现当没动还进样从实", "個這們來為國說時會對後發過種經麼學現當沒動還進樣從實"
)
_PUNCTUATION = frozenset("“”‘’´–—…«»¡¿·•♪♫\xa0。、，！？：；「」『』（）《》〜～・ー\u3000")
_ASCII_LETTER = math.log(0.03 / 52)
"""Probability of an ASCII letter in a language of another script."""


class Letters(dict[str, float]):
    """Log-probability of lower-case characters in a language.

    Attributes
    ----------
    entropy : nats per letter of a usual text.
    is_latin, has_spaces : of its script.
    """

    def __init__(self, language: str) -> None:
        self._level = _LEVELS.get(language)
        self._alphabet = frozenset(_LETTERS.get(language, ""))
        self._scripts = {_script(char) for char in self._alphabet}
        self.is_latin = "LATIN" in self._scripts
        self.has_spaces = self._level is None and language != "Thai"
        shares: dict[str, float] = {}
        for chars, share, weight in _ranked(language):
            weights = [weight(rank) for rank in range(len(chars))]
            for char, of_char in zip(chars, weights, strict=True):
                shares[char] = shares.get(char, 0) + share * of_char / sum(weights)
        super().__init__({char: math.log(share) for char, share in shares.items()})
        rest = 1 - sum(shares.values()) if self._level else 0
        self.entropy = rest * 8.2 - sum(share * math.log(share) for share in shares.values())

    def __missing__(self, char: str) -> float:
        self[char] = self._other(char)
        return self[char]

    def is_foreign(self, char: str) -> bool:
        """Return whether a letter beyond ASCII is of no alphabet or character set of the language."""
        return self[char] <= -12

    def _other(self, char: str) -> float:
        kind = unicodedata.category(char)
        if char in _PUNCTUATION:
            return -6
        if kind[0] not in "LM":
            return -3.5 if char == "\n" or (char.isascii() and kind != "Cc") else -13
        if char.isascii():
            return _ASCII_LETTER
        if self._level is None:
            return -12 if _script(char) in self._scripts else -15
        codec, frequent, of_frequent, of_rare = self._level
        try:
            code = char.encode(codec)
        except UnicodeEncodeError:
            return -17
        if _script(char) not in ("CJK", "HANGUL") or len(code) != 2:
            return -14
        return math.log(of_frequent if code[0] in frequent else of_rare)


letters_of = functools.cache(Letters)


def _script(char: str) -> str:
    return unicodedata.name(char, "?").split()[0]


def _alphabetic(rank: int) -> float:
    return math.exp(-0.13 * rank)


def _syllabic(rank: int) -> float:
    return math.exp(-0.05 * rank)


def _zipf(rank: int) -> float:
    return 1 / (rank + 6)


def _even(rank: int) -> float:
    return 1.0


def _ranked(language: str) -> Iterator[tuple[Sequence[str], float, Callable[[int], float]]]:
    """Yield characters by frequency, their share in a text, and how their weights decrease with the rank."""
    from charset_normalizer.constant import FREQUENCIES

    if language == "Japanese":
        yield FREQUENCIES["Japanese——"], 0.58, _syllabic  # hiragana
        yield FREQUENCIES["Japanese—"], 0.12, _syllabic  # katakana
        yield FREQUENCIES["Japanese"], 0.07, _zipf
    elif language == "Traditional":
        yield [char.translate(_TRADITIONAL) for char in FREQUENCIES["Chinese"]], 0.44, _zipf
    elif language in _LEVELS:
        yield FREQUENCIES[language], 0.44, _zipf
    else:
        alphabet = _LETTERS[language]
        scripts = {_script(char) for char in alphabet}
        ranked = [char for char in FREQUENCIES[language] if _script(char) in scripts]
        # The list of Thai has consonants only.
        yield ranked, 0.5 if language == "Thai" else 0.955, _alphabetic
        share = {"Thai": 0.48, "English": 0.004}.get(language, 0.03)
        yield [char for char in alphabet if char not in ranked], share, _even
        if "LATIN" not in scripts:
            yield FREQUENCIES["English"], 0.015, _alphabetic
