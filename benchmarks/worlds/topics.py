"""Generate the lyrics of the synthetic benchmark: topics of a dozen nouns each, and short lyrics about some of them.

The words are real, so that pretrained encoders represent their meaning. All lists were written for mgc.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mgc.pipeline.synth.lyrics import COMMON, FILLERS, PATTERNS, Vocabulary, fill

_NOUNS = {
    "sea": "sailor, harbour, anchor, lighthouse, whale, captain, sail, seagull, wave, lobster, pirate, coral",
    "space": "rocket, planet, astronaut, comet, satellite, galaxy, moon, telescope, orbit, meteor, alien, Saturn",
    "money": "banker, dollar, wallet, coin, debt, loan, cheque, millionaire, salary, tax, cash, fortune",
    "kitchen": "soup, oven, recipe, pepper, frying pan, onion, chef, spoon, bread, kettle, cheese, garlic",
    "war": "soldier, rifle, trench, general, cannon, bomb, battalion, helmet, grenade, invasion, tank, medal",
    "school": "teacher, classroom, homework, pencil, exam, blackboard, pupil, textbook, headmaster, lesson, essay, "
    "playground",
    "weather": "storm, thunder, hail, drizzle, hurricane, snowflake, lightning, fog, forecast, umbrella, blizzard, "
    "raindrop",
    "motoring": "engine, gearbox, tyre, windscreen, mechanic, petrol, bumper, exhaust, steering wheel, garage, brake, "
    "headlight",
    "hospital": "doctor, nurse, bandage, fever, surgeon, pill, ambulance, vaccine, stretcher, syringe, patient, clinic",
    "law": "judge, lawyer, jury, verdict, witness, sheriff, handcuffs, prison, thief, evidence, alibi, courtroom",
    "sewing": "needle, thread, button, silk, tailor, dress, zipper, lace, velvet, stitch, scarf, embroidery",
    "insects": "beetle, ant, butterfly, wasp, spider, mosquito, caterpillar, cricket, moth, beehive, dragonfly, flea",
    "football": "goalkeeper, referee, penalty, stadium, striker, defender, trophy, halftime, league, corner kick, "
    "offside, fans",
    "church": "priest, altar, prayer, angel, hymn, bishop, psalm, chapel, sermon, miracle, saint, rosary",
    "romance": "kiss, sweetheart, valentine, lover, embrace, bride, wedding, honeymoon, crush, darling, passion, rose",
    "mountains": "summit, glacier, climber, ridge, avalanche, cliff, peak, valley, crevasse, rope, base camp, boulder",
    "forest": "oak, moss, fern, squirrel, pine cone, owl, mushroom, birch, woodpecker, acorn, fox, ivy",
    "desert": "sand dune, camel, cactus, oasis, mirage, scorpion, caravan, lizard, drought, Sahara, rattlesnake, "
    "canteen",
    "computers": "keyboard, software, password, laptop, robot, database, hacker, microchip, screen, website, email, "
    "server",
    "circus": "clown, acrobat, juggler, trapeze, ringmaster, magician, tightrope, elephant, unicycle, tent, lion tamer",
    "royalty": "queen, throne, crown, castle, prince, knight, palace, duke, kingdom, jester, princess, coronation",
    "ghosts": "phantom, graveyard, vampire, coffin, witch, skeleton, curse, werewolf, haunted house, demon, tomb",
    "farming": "tractor, barn, wheat, cow, plough, scarecrow, hay, chicken, orchard, harvest, goat, milk pail",
    "railway": "train, locomotive, platform, conductor, sleeper car, timetable, tunnel, signal box, carriage, station "
    "master, freight, rails",
    "painting": "canvas, brush, portrait, easel, gallery, sculptor, palette, watercolour, sketch, masterpiece, fresco, "
    "museum",
    "drinking": "whiskey, tavern, beer, bartender, hangover, wine glass, cocktail, bottle, vodka, pub, rum, brewery",
    "gambling": "poker, dice, roulette, casino, jackpot, ace of spades, dealer, bet, slot machine, blackjack, bluff, "
    "chips",
    "family": "mother, father, cousin, grandmother, baby, uncle, twin, nephew, daughter, aunt, brother, stepson",
    "politics": "president, senator, election, ballot, parliament, minister, campaign, treaty, mayor, congress, "
    "diplomat, voter",
    "science": "microscope, molecule, laboratory, electron, atom, physicist, experiment, equation, test tube, neutron, "
    "theorem, chemist",
    "birds": "sparrow, eagle, robin, feather, nest, swan, raven, parrot, pigeon, falcon, nightingale, goose",
    "aviation": "pilot, runway, airplane, propeller, cockpit, parachute, hangar, helicopter, takeoff, jet, airport, "
    "turbulence",
    "jewels": "diamond, emerald, necklace, ruby, bracelet, pearl, goldsmith, sapphire, earring, tiara, amulet, opal",
    "furniture": "sofa, wardrobe, armchair, carpet, bookshelf, mattress, curtain, cupboard, stool, lampshade, drawer, "
    "rocking chair",
    "body": "elbow, shoulder, knee, eyebrow, spine, fingertip, ankle, chin, rib, wrist, forehead, toe",
    "building": "bricklayer, cement, scaffold, hammer, crane, plank, roof tile, carpenter, ladder, drill, foundation, "
    "girder",
    "fishing": "trout, fishing rod, salmon, hook, bait, angler, net, carp, worm, riverbank, pike, reel",
    "theatre": "actor, curtain call, rehearsal, playwright, audience, costume, Hamlet, stagehand, applause, tragedy, "
    "dress circle, understudy",
}

TOPICS: dict[str, Vocabulary] = {
    name: Vocabulary(
        nouns=tuple(" ".join(noun.split()) for noun in nouns.split(",")),
        verbs=COMMON.verbs,
        adjectives=COMMON.adjectives,
        places=COMMON.places,
    )
    for name, nouns in _NOUNS.items()
}
"""Topic -> vocabulary with its nouns; verbs, adjectives and places are common to all topics."""

_WITH_NOUNS = tuple(pattern for pattern in PATTERNS if "{n}" in pattern)
_LINES = (4, 6)


def own_topics(rng: np.random.Generator) -> dict[str, Vocabulary]:
    """Draw the half of each topic's nouns that one artist uses."""
    return {
        name: dataclasses.replace(words, nouns=tuple(rng.permutation(words.nouns)[: len(words.nouns) // 2].tolist()))
        for name, words in TOPICS.items()
    }


def short_lyrics(topics: Sequence[Vocabulary], rng: np.random.Generator) -> str:
    """Return lyrics of about 25 to 60 words: one line per topic, two if there are few topics, and fillers."""
    n_lines = max(int(rng.integers(_LINES[0], _LINES[1] + 1)), len(topics) + 1)
    lines = [fill(_pick(_WITH_NOUNS, rng), topic, rng) for topic in topics]
    lines += [fill(_pick(_WITH_NOUNS, rng), topic, rng) for topic in topics if len(lines) < n_lines - 1]
    while len(lines) < n_lines:
        lines.append(_pick(FILLERS, rng) if rng.random() < 0.4 else fill(_pick(PATTERNS, rng), COMMON, rng))
    return "\n".join(lines[i] for i in rng.permutation(len(lines))) + "\n"


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
