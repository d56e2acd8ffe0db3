"""Read lyrics files and return clean text, or a flag with the reason why there is none.

Decoding (:func:`_decode`) is strict. If no encoding is certain enough, the lyrics fail and the track's audio does not.
Cleaning follows a rule (:func:`clean_lyrics`) whose number is
part of the recipe.
"""

from __future__ import annotations

import codecs
import hashlib
import html
import os
import re
import stat
import unicodedata
from dataclasses import dataclass
from html.entities import html5
from pathlib import Path

from ...cache.format.schema import Flag
from ...cache.normalise import limit_marks, normalise
from .encodings import count_controls, decode_escaped, decode_legacy, decode_strictly, decode_wide
from .timing import without_timing

CLEANING_RULE = 2
"""Newest rule of :func:`clean_lyrics`. A store keeps the rule that its recipe names."""
MAX_LYRICS_BYTES = 1 << 20
MAX_CONTROLS, MAX_CONTROL_SHARE = 2, 0.05
"""Maximum number and share of control characters that may be removed from a text; other bytes are not text."""

# UTF-32's little-endian mark starts with UTF-16's, so it is tried first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_TAG_NAMES = (
    "a|abbr|article|aside|b|big|blockquote|body|br|center|cite|code|dd|del|div|dl|dt|em|figure|font|footer|form|h[1-6]|"
    "head|header|hr|html|i|iframe|img|ins|label|li|link|main|mark|meta|nav|noscript|ol|p|pre|q|s|script|section|small|"
    "span|strike|strong|style|sub|sup|table|tbody|td|tfoot|th|thead|title|tr|tt|u|ul"
)
_TAG = re.compile(rf"</?(?:{_TAG_NAMES})(?:\s[^<>]*)?/?>|<!doctype[^<>]*>", re.IGNORECASE)
_LINE_TAG = re.compile(r"</?(?:br|p|div|li|tr|h[1-6])\b", re.IGNORECASE)
_BLOCKS = tuple(
    (re.compile(opening, re.IGNORECASE), re.compile(closing, re.IGNORECASE))
    for opening, closing in (
        ("<!--", "-->"),
        (r"<script(?:\s[^<>]*)?>", r"</script\s*>"),
        (r"<style(?:\s[^<>]*)?>", r"</style\s*>"),
    )
)
# Only with its semicolon: "love &not hate" holds no entity. Encoded ampersands are undone however often repeated.
_ENTITY = re.compile(r"&(#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_AMPERSANDS = re.compile(r"&(?:amp;|#38;|#x26;)+", re.IGNORECASE)
_MAX_PASSES = 8

_LINE_END = re.compile("\r\n|[\r\u2028\u2029]")
_CONTROL_LINE_END = re.compile("[\x0b\x0c\x85]")
_UNWANTED = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u2060\ufeff\ud800-\udfff]")
# str.strip() alone would also take control characters, which are to be counted.
_BLANKS = " \t\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_INSTRUMENTAL = re.compile(r"(?:[\W_]*ins?trumental)+[\W_]*", re.IGNORECASE)


@dataclass(frozen=True)
class Lyrics:
    """Clean text, or None if there is none to embed; `flags` has the changes, or the reason."""

    text: str | None
    flags: Flag

    @property
    def sha256(self) -> str | None:
        """SHA-256 of the clean text, hexadecimal."""
        return None if self.text is None else hashlib.sha256(self.text.encode()).hexdigest()


def load_lyrics(path: Path, *, rule: int = CLEANING_RULE, encoding: str | None = None) -> Lyrics:
    """Read a lyrics file; set ``NO_LYRICS`` if it is missing, ``LYRICS_FAILED`` if it cannot be read as text.

    A folder, a FIFO, an unreadable file and a file above 1 MiB fail; none of them blocks.
    """
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_LYRICS_BYTES:
                return read_lyrics(file.read(MAX_LYRICS_BYTES + 1), rule=rule, encoding=encoding)
    except (FileNotFoundError, NotADirectoryError):
        return Lyrics(None, Flag.NO_LYRICS)
    except OSError:  # a folder, a file that may not be read, a disk or a share that fails half-way
        pass
    return Lyrics(None, Flag.LYRICS_FAILED)


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a FIFO without a writer would block a plain open


def read_lyrics(data: bytes | str, *, rule: int = CLEANING_RULE, encoding: str | None = None) -> Lyrics:
    """Decode and clean the lyrics of one track; no input raises.

    Parameters
    ----------
    data : the file's bytes, or text from a table (which has been decoded already).
    rule : number of the rule of :func:`clean_lyrics`.
    encoding : encoding of bytes without a byte order mark that are not UTF-8; None detects it.

    Returns
    -------
    Lyrics
        ``text`` None with ``EMPTY_LYRICS`` (nothing but white space), ``INSTRUMENTAL`` (only that word, in any case,
        misspelled as in Music4All, in brackets or not) or ``LYRICS_FAILED`` (no encoding fits, or several do, or over
        1 MiB); otherwise the text, with ``TEXT_RECODED`` where it was not UTF-8 without a mark, with
        ``ENCODING_DOUBTFUL`` where another encoding fits nearly as well, and with ``TEXT_CLEANED``
        where cleaning removed something.
    """
    if len(data) > MAX_LYRICS_BYTES:
        return Lyrics(None, Flag.LYRICS_FAILED)
    decoded = (data, Flag(0)) if isinstance(data, str) else _decode(data, encoding)
    if decoded is None:
        return Lyrics(None, Flag.LYRICS_FAILED)
    raw, flags = decoded
    text, changed = clean_lyrics(raw, rule)
    if changed:
        flags |= Flag.TEXT_CLEANED
    if _is_blank(text):
        return Lyrics(None, flags | Flag.EMPTY_LYRICS)
    if _INSTRUMENTAL.fullmatch(text):
        return Lyrics(None, flags | Flag.INSTRUMENTAL)
    return Lyrics(text, flags)


def clean_lyrics(text: str, rule: int = CLEANING_RULE) -> tuple[str, bool]:
    """Clean lyrics by a numbered rule; the function is idempotent.

    Returns the text and whether markup, entities, time stamps, control or invisible characters, or surplus combining
    marks (:func:`mgc.cache.normalise.limit_marks`), were removed. Unicode NFC, one kind of line end and no white space
    around lines or the whole are applied too, without counting as a change.

    Notes
    -----
    Rule 1 removes comments, scripts and styles with their content, and known HTML tags; tags of lines and paragraphs
    become a newline. It replaces entities (``&quot;``, ``&lt;3``, also when encoded twice). It removes control
    characters except newline and tab, half surrogates, soft hyphens and zero-width spaces. Text in angle brackets that
    is no HTML tag (``<chorus>``) is kept. Text that still changes after eight passes is an attack, and loses every
    ``<``, ``>`` and ``&``.

    Rule 2 is rule 1 and :func:`mgc.pipeline.text.timing.without_timing`; an attack also loses square brackets.
    """
    text, unlimited = limit_marks(text), text
    plain = current = _tidy(text)
    # An entity may spell a tag, and a removal may join the parts of one.
    for _ in range(_MAX_PASSES):
        previous, current = current, _without_markup(current, rule)
        if current == previous:
            return current, current != plain or text != unlimited
    if rule == 1:
        return _tidy(_visible(re.sub("[<>&]", "", current))), True
    return _tidy(without_timing(_tidy(_visible(re.sub(r"[<>&\[\]]", "", current))))), True


def _without_markup(text: str, rule: int) -> str:
    text = _visible(text)
    if rule > 1:
        text = without_timing(text)
    for opening, closing in _BLOCKS:
        text = _without_blocks(text, opening, closing)
    text = _TAG.sub(lambda tag: "\n" if _LINE_TAG.match(tag.group()) else "", text)
    return _tidy(_visible(_ENTITY.sub(_character, _AMPERSANDS.sub("&", text))))


def _without_blocks(text: str, opening: re.Pattern[str], closing: re.Pattern[str]) -> str:
    # One search each way from where the last ended: a pattern with ".*?" would take quadratic time on open comments.
    kept, position = [], 0
    while (start := opening.search(text, position)) and (end := closing.search(text, start.end())):
        kept += [text[position : start.start()], "\n"]
        position = end.end()
    return "".join([*kept, text[position:]])


def _character(entity: re.Match[str]) -> str:
    name = entity.group(1)
    return html.unescape(entity.group()) if name.startswith("#") else html5.get(f"{name};", entity.group())


def _visible(text: str) -> str:
    return _UNWANTED.sub("", _CONTROL_LINE_END.sub("\n", text))


def _tidy(text: str) -> str:
    lines = _LINE_END.sub("\n", normalise("NFC", text)).split("\n")
    return "\n".join(line.strip(_BLANKS) for line in lines).strip("\n")


def _is_blank(text: str) -> bool:
    """Return whether a text has no visible character: only white space, formatting, unassigned and replacement ones."""
    return all(char == "\ufffd" or unicodedata.category(char)[0] in "CZ" for char in text)


def _is_unicode(encoding: str) -> bool:
    return codecs.lookup(encoding).name.startswith(("utf-8", "utf-16", "utf-32"))


def _decode(data: bytes, encoding: str | None) -> tuple[str, Flag] | None:
    """Decode the bytes of a file by its byte order mark, else as UTF-8, else by `encoding`, else by detection.

    Bytes with many control characters are no UTF-8 text: they are UTF-16 or UTF-32 without a mark, contain escape
    sequences, or fail. A named encoding comes before UTF-8 for bytes that are all ASCII, such as those of UTF-7 or
    ISO-2022-JP.
    """
    for mark, name in _MARKS:
        if data.startswith(mark):
            text = decode_strictly(data[len(mark) :], name)
            return None if text is None else (text, Flag.TEXT_RECODED)
    text, escaped = decode_strictly(data, "utf-8"), decode_escaped(data)
    n_controls = 0 if text is None else count_controls(text)
    is_text = text is not None and escaped is None and n_controls <= max(MAX_CONTROLS, MAX_CONTROL_SHARE * len(text))
    is_text &= n_controls < len(data) / 4  # as in UTF-16
    if encoding is not None and (not is_text or (data.isascii() and not _is_unicode(encoding))):
        named = decode_strictly(data, encoding)
        if named is None or count_controls(named) > max(MAX_CONTROLS, MAX_CONTROL_SHARE * len(named)):
            return None
        return named, Flag(0) if named == text else Flag.TEXT_RECODED
    if text is not None and (is_text or _is_blank(text)):
        return text, Flag(0)
    decoded = escaped or (decode_wide(data) if text is None or n_controls >= len(data) / 4 else None)
    if decoded is None and text is None and b"\x1b" not in data:
        decoded = decode_legacy(data)
    if decoded is None:
        return None
    return decoded.text, Flag.TEXT_RECODED | (Flag(0) if decoded.is_certain else Flag.ENCODING_DOUBTFUL)
