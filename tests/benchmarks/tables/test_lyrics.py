"""Test the count of correctly read encodings, in a small form."""

from __future__ import annotations

from benchmarks.tables.lyrics import codecs, count_outcomes, read_again
from benchmarks.worlds.multilingual import LINES


def test_encodings_are_counted_by_outcome() -> None:
    assert {"cp1251", "koi8_r", "euc_jp", "iso2022_jp", "mac_roman"} <= set(codecs())
    assert not {"utf_8", "cp037", "hex_codec", "undefined"} & set(codecs())
    song = "\n".join(LINES["Russian"])
    assert count_outcomes([song], ["cp1251", "koi8_r", "cp1252"]) == {"right": 2}  # cp1252 has no Cyrillic letters
    assert read_again("plain", "cp1251") is None  # the same bytes as in UTF-8
    assert count_outcomes([song], ["cp1251", "koi8_r", "iso8859_5", "cp866", "mac_cyrillic"]) == {"right": 5}
