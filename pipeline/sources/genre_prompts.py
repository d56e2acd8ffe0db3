"""Genre name prompts: the texts embedded for genres, in place of spellings that data sets have and people do not write.

A text encoder has met "hip hop" and "drum and bass" in sentences, but "hiphop" and "drumnbass" as odd strings; paper.md
section 12 makes the map one of the switches of ``plus``. It is part of a store's recipe, so that genre embeddings made
with and without it are distinguished.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .label_tables import read_genre_names

COMMON = "common"
"""Name of the built-in map, where a file could be named."""

COMMON_NAMES: Mapping[str, str] = {
    "60s": "music of the 1960s",
    "70s": "music of the 1970s",
    "80s": "music of the 1980s",
    "90s": "music of the 1990s",
    "acidjazz": "acid jazz",
    "alternativerock": "alternative rock",
    "bluesrock": "blues rock",
    "bossanova": "bossa nova",
    "chillout": "chill out",
    "classicrock": "classic rock",
    "darkambient": "dark ambient",
    "darkwave": "dark wave",
    "dnb": "drum and bass",
    "drum&bass": "drum and bass",
    "drum'n'bass": "drum and bass",
    "drumandbass": "drum and bass",
    "drumnbass": "drum and bass",
    "deephouse": "deep house",
    "easylistening": "easy listening",
    "ebm": "electronic body music",
    "edm": "electronic dance music",
    "electropop": "electro pop",
    "ethno": "ethnic music",
    "eurodance": "euro dance",
    "hardrock": "hard rock",
    "hip-hop": "hip hop",
    "hiphop": "hip hop",
    "idm": "intelligent dance music",
    "indiepop": "indie pop",
    "indierock": "indie rock",
    "instrumentalpop": "instrumental pop",
    "instrumentalrock": "instrumental rock",
    "jazzfunk": "jazz funk",
    "jazzfusion": "jazz fusion",
    "kpop": "korean pop",
    "k-pop": "korean pop",
    "jpop": "japanese pop",
    "j-pop": "japanese pop",
    "mpb": "brazilian popular music",
    "newage": "new age",
    "newwave": "new wave",
    "nwobhm": "new wave of british heavy metal",
    "popfolk": "pop folk",
    "poppunk": "pop punk",
    "poprock": "pop rock",
    "postpunk": "post punk",
    "postrock": "post rock",
    "psytrance": "psychedelic trance",
    "punkrock": "punk rock",
    "r&b": "rhythm and blues",
    "rnb": "rhythm and blues",
    "rocknroll": "rock and roll",
    "singersongwriter": "singer songwriter",
    "synthpop": "synth pop",
    "triphop": "trip hop",
    "worldfusion": "world fusion",
}
"""Genre as data sets spell it -> text for the encoder. A genre that is not listed is embedded as it is."""


def genre_names(choice: str) -> dict[str, str]:
    """Return the map that `choice` names: ``common``, or the table at that path; see :func:`read_genre_names`.

    Entries that change nothing are left out: they would make two recipes of one.
    """
    names = COMMON_NAMES if choice == COMMON else read_genre_names(Path(choice))
    return {genre: text for genre, text in sorted(names.items()) if text != genre}
