"""Lyrics of the generated demo collection: six themes of real English words, and lines built from them.

The words are real, so that a pretrained encoder represents their meaning, and a model can classify a theme by words
that are not in its training split. All lists and line patterns were written for mgc; no text is copied.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Words of one theme: nouns, verbs (intransitive, after "we" or "to"), adjectives and places."""

    nouns: tuple[str, ...]
    verbs: tuple[str, ...]
    adjectives: tuple[str, ...]
    places: tuple[str, ...]


def _vocabulary(text: str) -> Vocabulary:
    nouns, verbs, adjectives, places = (
        tuple(" ".join(word.split()) for word in part.split(",")) for part in text.split(";")
    )
    return Vocabulary(nouns=nouns, verbs=verbs, adjectives=adjectives, places=places)


_THEME_WORDS = {
    "love": """
        heart, kiss, lover, darling, embrace, sweetheart, romance, desire, valentine, touch, lips, rose, honeymoon,
        wedding, girlfriend, boyfriend, love letter, passion, crush, diamond ring;
        kiss, fall in love, hold hands, cuddle, flirt, adore you, marry, embrace, blush, whisper your name, caress
        you, dance close;
        tender, beloved, romantic, sweet, adoring, intimate, passionate, gorgeous, lovesick, charming;
        your arms, the altar, our first date, your bed, the ballroom, your lips, the honeymoon suite, our anniversary
        """,
    "faith": """
        lord, saviour, prayer, angel, grace, glory, gospel, psalm, heaven, blessing, mercy, spirit, shepherd, choir,
        redeemer, covenant, hallelujah, soul, disciple, resurrection;
        pray, kneel, worship, praise him, believe, rejoice, repent, be baptised, testify, be redeemed, sing hosanna,
        give thanks;
        holy, almighty, eternal, sacred, merciful, faithful, blessed, righteous, divine, forgiven;
        the church, the promised land, the cross, the chapel, the throne of god, the river Jordan, the temple,
        paradise
        """,
    "revolt": """
        riot, government, police, system, revolution, barricade, protest, slogan, tyrant, rebel, prison, strike,
        banner, politician, injustice, anarchy, workers, corruption, censorship, oppression;
        riot, rebel, fight back, protest, resist, march, smash the state, strike, disobey, shout them down, overthrow
        them, rise up;
        angry, corrupt, unjust, defiant, oppressed, rebellious, tyrannical, crooked, furious, radical;
        the picket line, the parliament, the barricades, the factory gate, the courthouse, the capital, the prison
        yard, the squat
        """,
    "road": """
        truck, highway, pickup, cowboy, tractor, saddle, ranch, hometown, gravel road, tailgate, rodeo, gasoline,
        freight train, whiskey, porch, county fair, boots, horses, cattle, farm;
        drive, ride out, saddle up, haul hay, roll down the highway, hitch a ride, fix the truck, wander, fish, raise
        cattle, go home, ride the rails;
        dusty, southern, rusty, small-town, barefoot, sunburnt, rural, homegrown, old-fashioned, hardworking;
        Texas, Tennessee, the county line, the back roads, the ranch, the truck stop, the cornfield, the general store
        """,
    "sorrow": """
        tears, loneliness, misery, heartache, regret, funeral, grief, bottle, sorrow, empty glass, goodbye, debt,
        pain, trouble, graveyard, sleepless night, ghost, hangover, despair, burden;
        cry, weep, mourn, suffer, drink alone, grieve, lie awake, lose everything, ache, drown my sorrow, despair,
        break down;
        lonesome, broken, hopeless, weary, bitter, mournful, miserable, abandoned, penniless, gloomy;
        the graveside, the empty house, the bottom of the glass, the pawnshop, the hospital bed, the jailhouse, skid
        row, the funeral home
        """,
    "nature": """
        meadow, sparrow, willow, river, mountain, harvest, moss, valley, fox, oak tree, wildflower, brook, heron,
        autumn leaves, hillside, seed, thunder, tide, snowfall, orchard;
        bloom, wander the hills, gather berries, sail, plant seeds, follow the stream, climb the ridge, grow, migrate,
        drift downstream, sow, reap;
        green, wild, mossy, windswept, frozen, blooming, ancient, leafy, snowy, silver;
        the forest, the shore, the moor, the riverbank, the glen, the waterfall, the orchard, the mountainside
        """,
}

THEMES = {theme: _vocabulary(text) for theme, text in _THEME_WORDS.items()}
"""Theme -> its words."""

COMMON = _vocabulary(
    """
    morning, window, story, colour, picture, shadow, summer, winter, voice, minute, name, mirror, secret, question,
    stranger, song, paper, corner, number, reason, telephone, ticket, coat, clock, coffee, door, light, circle;
    wait, turn around, remember, begin again, stand here, keep going, look away, listen, change, slow down, count to
    ten, move on;
    new, old, quiet, little, long, strange, plain, different, early, late, simple, second;
    the kitchen, the street, the station, the bridge, the room upstairs, the other side, the corner, the hallway
    """
)
"""Words that belong to no theme."""

FILLERS = (
    "oh yeah, one more time",
    "and I know, and I know",
    "la la la, here it comes again",
    "well, what can I say",
    "na na na, all day long",
    "hey now, hey now",
    "so it goes, so it goes",
    "tell me, tell me why",
)
"""Filler lines."""

PATTERNS = (
    "the {a} {n} is waiting at {p}",
    "I saw the {n} and the {n} near {p}",
    "we {v} when the {n} is {a}",
    "you taught me to {v} and to {v}",
    "every {n} was {a} by {p}",
    "tonight we {v}, tomorrow we {v}",
    "give me a {n}, give me a {a} {n}",
    "take me to {p}, I want to {v}",
    "no more {n}, only the {a} {n}",
    "they {v} at {p} with the {n}",
    "my {n} is {a}, my {n} is {a}",
    "nobody told me how to {v}",
)


def fill(pattern: str, words: Vocabulary, rng: np.random.Generator) -> str:
    """A line: `pattern` with words drawn for its slots."""
    slots = {"{n}": words.nouns, "{v}": words.verbs, "{a}": words.adjectives, "{p}": words.places}
    for slot, choices in slots.items():
        while slot in pattern:
            pattern = pattern.replace(slot, choices[rng.integers(len(choices))], 1)
    return pattern


def favourites(words: Vocabulary, keep: float, rng: np.random.Generator) -> Vocabulary:
    """Return the part of a vocabulary that one artist uses: `keep` (0 to 1) of every list, drawn by `rng`."""

    def some(choices: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(rng.permutation(choices)[: max(2, round(keep * len(choices)))].tolist())

    return Vocabulary(**{name: some(choices) for name, choices in vars(words).items()})


def write_lyrics(
    theme: Vocabulary, other: Vocabulary, common: Vocabulary, rng: np.random.Generator, *, focus: float, stray: float
) -> str:
    """Lyrics of 40 to 160 words in verses of four lines with a chorus.

    Parameters
    ----------
    theme, other, common : the song's own words, those of a theme it only mentions, and words of no theme.
    focus, stray : share (0 to 1) of lines about `theme` and about `other`; the rest is common words and fillers.
    """

    def line() -> str:
        draw = rng.random()
        if draw > focus + stray and rng.random() < 0.2:
            return FILLERS[rng.integers(len(FILLERS))]
        words = theme if draw < focus else other if draw < focus + stray else common
        return fill(PATTERNS[rng.integers(len(PATTERNS))], words, rng)

    target_words = int(rng.integers(45, 140))
    chorus = [line(), line()]
    lines: list[str] = []
    while sum(len(text.split()) for text in lines) < target_words:
        verse = [line() for _ in range(4)]
        lines += [*verse, "", *chorus, ""]
    n_words = itertools.accumulate(len(text.split()) for text in lines)
    short = [text for text, n in zip(lines, n_words, strict=True) if n <= 160]
    return "\n".join(short).strip() + "\n"
