"""Spellings and abbreviations of one genre, merged on request (``--merge-genres``).

The built-in table was written from public facts and has only spellings of the same name. Related genres
are not merged: ``electronica`` and ``electronic``, ``rap`` and ``hip hop``, ``alternative`` and
``alternative rock``. What a name becomes depends on the name alone, so that sources, stores and later tracks agree.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...cache.errors import ManifestError
from ...cache.messages import counted, join_names, limit_lines
from ...cache.normalise import normalise
from .label_tables import COMMON
from .names import clean_name, look_alikes
from .tables import Row, read_table

LISTED = 20
MIN_TYPED = 6
"""Number of letters from which on names that differ in one letter are probably the same: not "punk" and "funk"."""

_SPELLINGS = """
a cappella: acapella, a capella, acappella | acid house | acid jazz | acoustic | alternative country: alt country
alternative metal: alt metal | alternative rock: alt rock | ambient | art rock | avant-garde | ballad | baroque pop
bebop | big band | big beat | black metal | bluegrass | blues | blues rock | boogie woogie | bossa nova | brazilian
breakbeat | breakcore | britpop | celtic | chamber pop | chanson | children's music | chillout | chillwave
chiptune | classic rock | classical | country | country rock | dance | dance pop | dancehall | dark ambient
darkwave | death metal | deep house | disco | doo-wop | doom metal | downtempo: down tempo | dream pop | drone
drum and bass: dnb, drumnbass, dandb | dub | dubstep | easy listening | electro | electro house | electronic
electronic body music: ebm | electronic dance music: edm | electronica | electropop | emo | ethno | eurodance
experimental | flamenco | folk | folk metal | folk pop | folk punk | folk rock | free improvisation: free improv
free jazz | funk | funk rock | g-funk | garage | garage rock | glam rock | glitch | gospel | gothic rock: goth rock
grime | grindcore | groove metal | grunge | gypsy jazz | hard bop | hard rock | hardcore | heavy metal | hip hop
honky tonk | house | indie | indie folk | indie pop | indie rock | industrial | industrial metal | industrial rock
instrumental | instrumental rock | intelligent dance music: idm | italo disco | j-pop: japanese pop
j-rock: japanese rock | jazz | jazz funk | jazz fusion | jazz rock | jungle | k-pop: korean pop | krautrock | latin
latin jazz | latin pop | lo-fi | lounge | math rock | melodic death metal: melodeath | metal | metalcore
minimal techno | mpb: música popular brasileira, musica popular brasileira | musique concrète: musique concrete
neo soul | neoclassical | new age | new wave | noise | noise pop | noise rock | nu disco | nu jazz
nu metal: nü metal | nwobhm: new wave of british heavy metal | opera | piano | pop | pop punk | pop rock
post hardcore | post metal | post punk | post rock | power metal | power pop | progressive house: prog house
progressive metal: prog metal | progressive rock: prog rock | progressive trance: prog trance
psychedelic folk: psych folk | psychedelic pop: psych pop | psychedelic rock: psych rock
psychedelic trance: psytrance, psy trance | psychobilly | punk | punk rock | r&b: rnb, rhythm and blues | ragtime
rap | rap metal | rap rock | reggae | reggaeton: reggaetón, regueton, reguetón | rock | rock and roll: rocknroll
rockabilly | salsa | samba | shoegaze: shoegazing | singer-songwriter: singer/songwriter | ska | ska punk | slowcore
sludge metal | smooth jazz | soft rock | soul | soundtrack | southern rock | space rock | spoken word | stoner metal
stoner rock | surf rock | swing | synth rock | synthpop | synthwave | tango | tech house | techno | thrash metal
trance | trap | trip hop | turntablism | uk garage: ukg | vaporwave: vapourwave | vocal jazz | world music
"""
_LETTERS_FOR_AND = re.compile(r"\s*&\s*|(?:\s+|\s*['’ʼ`´])n\b['’ʼ`´]?\s*")
_BETWEEN_WORDS = re.compile(r"[\s\-‐‑‒–—_.'’ʼ`´]+")


def spelling_key(name: str) -> str:
    """Return the key of a name without case, width, hyphens, dots, blanks and the spelling of "and".

    Signs that may separate two genres (``/``, ``,``, ``;``, ``|``, ``+``) count, so that "pop/rock" is not "pop rock".

    Examples
    --------
    >>> spelling_key("Drum'n'Bass"), spelling_key("drum & bass"), spelling_key("Hip-Hop")
    ('drumandbass', 'drumandbass', 'hiphop')
    """
    folded = normalise("NFKC", clean_name(name).casefold())
    return _BETWEEN_WORDS.sub("", _LETTERS_FOR_AND.sub("and", folded)) or folded


def _read_spellings() -> dict[str, str]:
    names: dict[str, str] = {}
    for entry in _SPELLINGS.replace("\n", "|").split("|"):
        name, _, others = entry.strip().partition(":")
        names |= {spelling_key(text): name for text in (name, *filter(None, others.split(",")))}
    del names[""]
    return names


COMMON_SPELLINGS: Mapping[str, str] = _read_spellings()
"""Key of a spelling -> the name of the genre."""


@dataclass(frozen=True, kw_only=True)
class GenreAliases:
    """Map of genre names that are merged into other names.

    Attributes
    ----------
    choice : ``common`` or the name of a table, as the user gave it.
    names : the names that the table lists; empty for the built-in one.
    name_of : the genre that a name is merged into, or the name itself.
    """

    choice: str
    names: frozenset[str]
    name_of: Callable[[str], str]


@dataclass(frozen=True, kw_only=True, slots=True)
class MergedGenre:
    """A genre that was merged into another, and the tracks that had it."""

    name: str
    into: str
    n_tracks: int

    def to_dict(self) -> dict[str, str | int]:
        return {"from": self.name, "to": self.into, "tracks": self.n_tracks}


def genre_aliases(choice: str) -> GenreAliases:
    """Read the aliases that `choice` names: ``common``, or a table with the columns ``from`` and ``to``.

    Raises
    ------
    ManifestError
        If the table is invalid, lists no genre or a genre twice, or merges a genre into one that is merged itself (a
        chain or a cycle); the message names the rows.
    """
    if choice == COMMON:
        return GenreAliases(
            choice=choice, names=frozenset(), name_of=lambda name: COMMON_SPELLINGS.get(spelling_key(name), name)
        )
    path = Path(choice)
    if not path.exists():
        raise ManifestError(
            f"--merge-genres {choice}: no such file. Give a table with the columns 'from' and 'to', or "
            f"{COMMON!r} for the built-in one."
        )
    table = read_table(path, ("from", "to"))
    table.require(("from", "to"))
    names: dict[str, str] = {}
    rows: dict[str, Row] = {}
    for row in table.rows:
        name, into = clean_name(row.required_text("from")), clean_name(row.required_text("to"))
        if name in names:
            raise ManifestError(
                f"{row.location}: genre {name!r} is merged into {into!r}, and into {names[name]!r} by "
                f"{rows[name].location}. Keep one of the two rows."
            )
        names[name], rows[name] = into, row
    if not names:
        raise ManifestError(f"{path}: the table lists no genre")
    for name, into in names.items():
        if (end := names.get(into, into)) != into:
            raise ManifestError(
                f"{rows[name].location}: genre {name!r} is merged into {into!r}, which "
                f"{rows[into].location} merges into {end!r}. Merge both into one name that no row merges."
            )
    return GenreAliases(choice=choice, names=frozenset(names), name_of=lambda name: names.get(name, name))


def merge_genres(
    genres: Iterable[Sequence[str]], aliases: GenreAliases
) -> tuple[list[tuple[str, ...]], list[MergedGenre]]:
    """Merge the genres of each track; return the genres without duplicates, and the merges sorted by name.

    Parameters
    ----------
    genres : of each track, in order.
    """
    counts: Counter[str] = Counter()
    merged: dict[tuple[str, ...], tuple[str, ...]] = {}
    kept = []
    for names in map(tuple, genres):
        if names not in merged:
            merged[names] = tuple(dict.fromkeys(map(aliases.name_of, names)))
        kept.append(merged[names])
        counts.update(names)
    pairs = [(name, aliases.name_of(name)) for name in sorted(counts)]
    return kept, [MergedGenre(name=name, into=into, n_tracks=counts[name]) for name, into in pairs if into != name]


def remark_merged(merged: Sequence[MergedGenre], aliases: GenreAliases, genres: Iterable[str]) -> list[str]:
    """Return notes on the merged `genres` (all before merging), one line each, and on unused rows of a table."""
    lines = [f"  {genre.name!r} into {genre.into!r} ({counted(genre.n_tracks, 'track')})" for genre in merged]
    notes = [f"--merge-genres {aliases.choice}: {counted(len(merged), 'genre')} merged"]
    notes += limit_lines(lines, "merged genres", LISTED)
    if unused := sorted(aliases.names - set(genres)):
        notes.append(f"{counted(len(unused), 'genre')} of {aliases.choice} without a track here: {_quoted(unused)}")
    return notes


def remark_mergeable(genres: Iterable[str]) -> list[str]:
    """Return notes on genres that are spellings of the same genre in the built-in table."""
    groups: dict[str, list[str]] = {}
    for name in sorted(set(genres)):
        if (into := COMMON_SPELLINGS.get(spelling_key(name))) is not None:
            groups.setdefault(into, []).append(name)
    pairs = [f"{_quoted(names)} into {into!r}" for into, names in groups.items() if len(names) > 1]
    listed = "; ".join(limit_lines(pairs, "such genres", LISTED))
    return [f"--merge-genres {COMMON} would merge {listed}"] if pairs else []


@dataclass(frozen=True, kw_only=True, slots=True)
class SimilarGenre:
    """A genre whose name is nearly that of a more frequent one, and so probably the same.

    Attributes
    ----------
    reason : ``spelling`` (case, punctuation, look-alike letters, or the built-in table), ``plural``, or ``typing
        error`` (one letter added, left out, replaced, or two exchanged).
    """

    name: str
    into: str
    n_tracks: int
    n_tracks_into: int
    reason: str

    def to_dict(self) -> dict[str, str | int]:
        """Return the columns of a table for ``--merge-genres``, and the reason."""
        return {
            "from": self.name,
            "to": self.into,
            "tracks": self.n_tracks,
            "tracks_to": self.n_tracks_into,
            "reason": self.reason,
        }


def similar_genres(tracks: Mapping[str, int]) -> list[SimilarGenre]:
    """Return the genres that are probably spellings of a more frequent one, given the number of tracks of each.

    Names of `MIN_TYPED` letters and more are compared for typing errors, unless the built-in table has both as
    different genres (electronic, electronica).
    """
    found: list[SimilarGenre] = []
    by_key: dict[str, str] = {}  # any form of a name -> the most frequent genre with it
    by_deletion: dict[str, list[str]] = {}
    into_of: dict[str, str] = {}
    plain = {name for name in tracks if not set(name) & set("/,;|+")}  # signs that may separate two genres
    skeletons = {name: group[0] for group in look_alikes(plain) for name in group}
    for name in sorted(tracks, key=lambda name: (-tracks[name], name)):
        key = spelling_key(skeletons.get(name, name))
        common = COMMON_SPELLINGS.get(key)
        forms = {key, key if common is None else spelling_key(common)}
        into = next((by_key[form] for form in sorted(forms) if form in by_key), None)
        reason = "spelling"
        if into is None:
            plurals = (f"{key}s", key.removesuffix("s"))
            into, reason = next((by_key[form] for form in plurals if form in by_key), None), "plural"
        deletions: set[str] = set()
        if name in plain and len(key) >= MIN_TYPED:
            deletions = {key, *(key[:i] + key[i + 1 :] for i in range(len(key)))}
        if into is None:
            others = [other for form in sorted(deletions) for other in by_deletion.get(form, ())]
            others = [other for other in others if common is None or spelling_key(other) not in COMMON_SPELLINGS]
            into, reason = max(others, key=lambda other: tracks[other], default=None), "typing error"
        into_of[name] = name if into is None else into_of[into]
        if into is not None:
            target = into_of[name]
            found.append(
                SimilarGenre(name=name, into=target, n_tracks=tracks[name], n_tracks_into=tracks[target], reason=reason)
            )
        for form in forms:
            by_key.setdefault(form, name)
        for form in deletions:
            by_deletion.setdefault(form, []).append(name)
    return found


def _quoted(names: Sequence[str]) -> str:
    return join_names(list(map(repr, names)), LISTED)
