"""Small tables next to a store: other labels for its tracks, and genre name prompts.

They need only pyarrow, so that they can be read if only the extra ``train`` is installed.

A genre name prompt is the text embedded for a genre, in place of the spelling of a data set. The training text of an
encoder has "hip hop" and "drum and bass" in sentences, but hardly "hiphop" and "drumnbass"; paper.md section 12
makes the map one of the switches of ``plus``. It is part of a store's recipe, so that genre embeddings made with and
without it are distinguished.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from ...cache.errors import ManifestError
from .names import clean_name
from .tables import Row, Table, read_table

T = TypeVar("T")

COMMON = "common"
"""Name of the built-in map, accepted in place of a file."""

_WORDS = """
acid jazz, alternative rock, blues rock, bossa nova, chill out, classic rock, dark ambient, dark wave, deep house,
drum and bass, easy listening, electro pop, euro dance, hard rock, hip hop, indie pop, indie rock, instrumental pop,
instrumental rock, jazz funk, jazz fusion, new age, new wave, pop folk, pop punk, pop rock, post punk, post rock,
punk rock, singer songwriter, synth pop, trip hop, world fusion
"""
COMMON_NAMES: Mapping[str, str] = {
    **{text.replace(" ", ""): text for text in " ".join(_WORDS.split()).split(", ")},
    **{f"{decade}s": f"music of the 19{decade}s" for decade in (60, 70, 80, 90)},
    **dict.fromkeys(("dnb", "drum&bass", "drum'n'bass", "drumnbass"), "drum and bass"),
    **dict.fromkeys(("j-pop", "jpop"), "japanese pop"),
    **dict.fromkeys(("k-pop", "kpop"), "korean pop"),
    **dict.fromkeys(("r&b", "rnb"), "rhythm and blues"),
    "ebm": "electronic body music",
    "edm": "electronic dance music",
    "ethno": "ethnic music",
    "hip-hop": "hip hop",
    "idm": "intelligent dance music",
    "mpb": "brazilian popular music",
    "nwobhm": "new wave of british heavy metal",
    "psytrance": "psychedelic trance",
    "rocknroll": "rock and roll",
}
"""Genre as data sets spell it -> genre name prompt. A genre that is not listed is its own prompt."""


def labels_table(path: Path, wanted: Sequence[str]) -> Table:
    """Read the table that --labels names; raises as :func:`mgc.pipeline.sources.tables.read_table` does.

    The message on a missing table has the option name.
    """
    if not path.exists():
        raise ManifestError(f"--labels {path}: no such file. Expected a table with the columns 'id' and 'genres'.")
    return read_table(path, wanted)


def read_labels(path: Path, genre_delimiter: str | None = None) -> dict[str, tuple[str, ...]]:
    """Read genres by track id, from a table with the columns ``id`` and ``genres``.

    Parameters
    ----------
    genre_delimiter : separator of genres in a cell; lists (JSON Lines, Parquet) need none.

    Raises
    ------
    ManifestError
        If the table is invalid, lists a track twice, or has no track; the message has the line.
    """
    table = labels_table(path, ("id", "genres"))
    table.require(("id", "genres"))
    cells = ((row, row.required_text("id"), row.names("genres", genre_delimiter)) for row in table.rows)
    return _unique("track", cells, path)


def genre_names(choice: str) -> dict[str, str]:
    """Return the prompts that `choice` names: ``common``, or a table with the columns ``genre`` and ``text``.

    Entries that change nothing are left out, as they would change the fingerprint of the recipe.

    Raises
    ------
    ManifestError
        If the table is invalid, lists a genre twice, or has none; the message has the line.
    """
    names = COMMON_NAMES
    if choice != COMMON:
        table = read_table(Path(choice), ("genre", "text"))
        table.require(("genre", "text"))
        cells = (
            (row, clean_name(row.required_text("genre")), clean_name(row.required_text("text"))) for row in table.rows
        )
        names = _unique("genre", cells, table.path)
    return {genre: text for genre, text in sorted(names.items()) if text != genre}


def _unique(noun: str, cells: Iterable[tuple[Row, str, T]], path: Path) -> dict[str, T]:
    """Collect values by name; refuse a name that is listed twice, and an empty table."""
    values: dict[str, T] = {}
    for row, name, value in cells:
        if name in values:
            raise ManifestError(f"{row.location}: {noun} {name!r} is listed twice. Keep one row per {noun}.")
        values[name] = value
    if not values:
        raise ManifestError(f"{path}: the table lists no {noun}")
    return values
