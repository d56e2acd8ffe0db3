"""Generate the demo collection: songs with known genres, which follow from rules.

A song has a *scene*, which determines the audio (:mod:`mgc.pipeline.synth.audio`), and a *theme*, which
determines the lyrics (:mod:`mgc.pipeline.synth.lyrics`). :data:`RULES` map both to genres: some depend on audio only,
some on lyrics only, some on both. Artists have a main scene, an equaliser and room, favourite themes and favourite
words, so that only a split by artist is free of leakage.

Every song depends on ``(seed, index)`` only: songs are made in parallel, and a larger collection extends a smaller one.
Files have the layout of Music4All and are read like any data set.
"""

from __future__ import annotations

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile

from ...cache.errors import ConfigError
from ...cache.steps import Progress, silent
from .audio import SAMPLE_RATE_HZ, Samples, render
from .lyrics import COMMON, THEMES, Vocabulary, favourites, write_lyrics

SCENES = {"band": 0.36, "heavy": 0.12, "machine": 0.14, "swing": 0.11, "shuffle": 0.09, "acoustic": 0.18}
"""Scene -> share of the artists whose main scene it is."""

RULES: tuple[tuple[str, str, str, float], ...] = (
    ("rock", "band", "*", 1.0),
    ("rock", "heavy", "*", 0.85),
    ("metal", "heavy", "*", 1.0),
    ("electronic", "machine", "*", 1.0),
    ("jazz", "swing", "*", 1.0),
    ("blues", "shuffle", "*", 1.0),
    ("pop", "*", "love", 1.0),
    ("gospel", "*", "faith", 1.0),
    ("punk", "band heavy", "revolt", 1.0),
    ("country", "band shuffle acoustic", "road", 1.0),
    ("blues", "swing acoustic", "sorrow", 1.0),
    ("folk", "acoustic", "nature revolt none", 1.0),
)
"""(genre, scenes, themes, probability) of a song of such a scene and theme; ``*`` is any, ``none`` is no words."""

GENRES: tuple[str, ...] = tuple(sorted({rule[0] for rule in RULES}))

AFFINITY = {"machine": {"love": 1.5}, "heavy": {"revolt": 1.5, "sorrow": 1.3}, "acoustic": {"nature": 1.4}}
"""Scene -> themes that are more frequent in it than in other scenes."""

P_INSTRUMENTAL = 0.10
P_AWAY = 0.15  # a song outside its artist's preferred scene
P_LABEL_LOST, P_LABEL_WRONG = 0.05, 0.04
ARTIST_SIZES = (1, 2, 4, 5)  # songs of the artists of one block of songs
SYLLABLES = [a + b for a in "bcdfgklmnprstv" for b in "aeo"]


@dataclass(frozen=True, kw_only=True)
class Artist:
    """Artist of songs: main scene, theme preferences and vocabulary. `number` counts artists from 0."""

    number: int
    name: str
    scene: str
    likings: dict[str, float]
    words: dict[str, Vocabulary]


@dataclass(frozen=True, kw_only=True)
class Song:
    """Metadata and lyrics of a song, without its audio.

    Attributes
    ----------
    seed, index : the world and the song's number in it; everything else follows from them.
    id : 16 characters 0-9A-Za-z, as in Music4All.
    genres : sorted, one at least; with the label noise that real collections have.
    lyrics : 40 to 160 words, or None for an instrumental.
    scene, theme : determine the genres; theme is ``none`` for an instrumental. Never written to disk.
    """

    seed: int
    index: int
    id: str
    artist: Artist
    title: str
    album: str
    genres: tuple[str, ...]
    lyrics: str | None
    scene: str
    theme: str


def _draw(weights: dict[str, float], rng: np.random.Generator) -> str:
    p = np.array(list(weights.values()))
    return list(weights)[rng.choice(len(p), p=p / p.sum())]


def artist_number(seed: int, index: int) -> int:
    """Number of the artist of song `index`: songs come in blocks, each shared by artists of 1 to 5 songs."""
    block, place = divmod(index, sum(ARTIST_SIZES))
    sizes = np.random.default_rng([seed, 1, block]).permutation(ARTIST_SIZES)
    return block * len(ARTIST_SIZES) + int(np.searchsorted(np.cumsum(sizes), place, side="right"))


@lru_cache(maxsize=256)
def make_artist(seed: int, number: int) -> Artist:
    """Artist `number` of world `seed`; no two artists of a world share a name."""
    rng = np.random.default_rng([seed, 2, number])
    # A golden-ratio walk over the shares: in every run of artists each scene is about as frequent as it should be.
    ends = np.cumsum(list(SCENES.values()))
    start = np.random.default_rng([seed, 4]).random()
    scene = list(SCENES)[np.searchsorted(ends, (start + number * 0.6180339887498949) % 1.0 * ends[-1], side="right")]
    likings = {theme: AFFINITY.get(scene, {}).get(theme, 1.0) * rng.gamma(1.2) for theme in THEMES}
    words = {theme: favourites(vocabulary, 0.5, rng) for theme, vocabulary in (THEMES | {"common": COMMON}).items()}
    surname, rest = "", number + len(SYLLABLES)
    while rest:
        rest, digit = divmod(rest, len(SYLLABLES))
        surname += SYLLABLES[digit]
    first = COMMON.adjectives[rng.integers(len(COMMON.adjectives))]
    return Artist(number=number, name=f"The {first} {surname}s".title(), scene=scene, likings=likings, words=words)


def genres_of(scene: str, theme: str, rng: np.random.Generator) -> tuple[str, ...]:
    """:data:`RULES` applied, then label noise: a label lost where there are two or more, a wrong one added."""

    def fits(value: str, pattern: str) -> bool:
        return pattern == "*" or value in pattern.split()

    genres = {g for g, scenes, themes, p in RULES if fits(scene, scenes) and fits(theme, themes) and rng.random() < p}
    if len(genres) > 1 and rng.random() < P_LABEL_LOST:
        genres.remove(sorted(genres)[rng.integers(len(genres))])
    if rng.random() < P_LABEL_WRONG:
        genres.add(GENRES[rng.integers(len(GENRES))])
    return tuple(sorted(genres))


def song_id(song: str) -> str:
    """16 characters 0-9A-Za-z, as in Music4All, derived from the attributes that identify a song."""
    digest = int.from_bytes(hashlib.sha256(song.encode()).digest()[:16])
    alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    return "".join(alphabet[digest // 62**place % 62] for place in range(16))


def make_song(seed: int, index: int) -> Song:
    """Song `index` (from 0) of world `seed`, without its audio (see :func:`render_song`)."""
    rng = np.random.default_rng([seed, 3, index])
    artist = make_artist(seed, artist_number(seed, index))
    scene = _draw(SCENES, rng) if rng.random() < P_AWAY else artist.scene
    theme, other = _draw(artist.likings, rng), _draw(dict.fromkeys(THEMES, 1.0), rng)
    adjective, noun = (rng.choice(words) for words in (COMMON.adjectives, COMMON.nouns))
    lyrics: str | None = None
    if rng.random() < P_INSTRUMENTAL:
        theme = "none"
    else:
        focus, stray = rng.uniform(0.25, 0.6), rng.uniform(0.0, 0.15)
        lyrics = write_lyrics(
            artist.words[theme], artist.words[other], artist.words["common"], rng, focus=focus, stray=stray
        )
    return Song(
        seed=seed,
        index=index,
        id=song_id(f"mgc world {seed} song {index}"),
        artist=artist,
        title=f"{adjective} {noun}".title() + f" No. {index + 1}",
        album=f"Volume {artist.number % 9 + 1}",
        genres=genres_of(scene, theme, rng),
        lyrics=lyrics,
        scene=scene,
        theme=theme,
    )


def unheard_song(seed: int, n_songs: int) -> Song:
    """Return the first song with lyrics by an artist of whom songs 0 to `n_songs` - 1 hold none: one to predict."""
    index = -(-n_songs // sum(ARTIST_SIZES)) * sum(ARTIST_SIZES)
    while make_song(seed, index).lyrics is None:
        index += 1
    return make_song(seed, index)


def render_song(song: Song, *, clip_s: float = 30.0) -> Samples:
    """Return the audio of a song: (round(clip_s * 22 050),) float32, mono, peak at most 0.9."""
    sung = song.lyrics is not None
    return render(song.scene, seed=song.seed, index=song.index, artist=song.artist.number, sung=sung, clip_s=clip_s)


def write_song(song: Song, audio_folder: Path, lyrics_folder: Path, *, clip_s: float = 30.0) -> Path:
    """Write ``<id>.mp3`` (``.flac`` where libsndfile has no MP3 encoder) and ``<id>.txt`` to their folders.

    Returns the path of the audio. An instrumental's text is the one word INSTRUMENTAL, as in Music4All.
    """
    audio = write_clip(render_song(song, clip_s=clip_s), audio_folder / song.id)
    lyrics_folder.mkdir(parents=True, exist_ok=True)
    (lyrics_folder / f"{song.id}.txt").write_bytes((song.lyrics or "INSTRUMENTAL\n").encode())
    return audio


def write_clip(samples: Samples, stem: Path, *, lossless: bool = False) -> Path:
    """Write mono samples at 22 050 Hz as `stem` with ``.mp3``; ``.flac`` where asked for or libsndfile has no MP3."""
    extension = "mp3" if "MP3" in soundfile.available_formats() and not lossless else "flac"
    path = stem.with_name(f"{stem.name}.{extension}")
    path.parent.mkdir(parents=True, exist_ok=True)
    quality = {"compression_level": 0.5} if extension == "mp3" else {}  # about 43 kbit/s, and quicker to encode
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, SAMPLE_RATE_HZ, format=extension.upper(), **quality)
    path.write_bytes(encoded.getvalue())
    return path


def make_collection(
    folder: Path,
    n_songs: int = 240,
    seed: int = 0,
    *,
    first: int = 0,
    clip_s: float = 30.0,
    workers: int = 1,
    on_progress: Progress = silent,
) -> Path:
    """Write songs of world `seed` in Music4All's layout; the same arguments give the same bytes.

    Parameters
    ----------
    folder : created if missing; files with the same names are replaced.
    n_songs, first : songs `first` to `first` + `n_songs` - 1.
    clip_s : length of each clip, seconds.
    workers : threads (numpy and the encoder release the GIL).
    on_progress : receives songs written and `n_songs` after each song.

    Returns
    -------
    Path
        `folder`, a SOURCE for every command.

    Raises
    ------
    ConfigError
        `n_songs` or `clip_s` is not positive.
    """
    if n_songs < 1 or clip_s <= 0:
        raise ConfigError(f"a collection needs at least one song of some length, not {n_songs} songs of {clip_s} s")
    songs = [make_song(seed, index) for index in range(first, first + n_songs)]
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        written = pool.map(lambda song: write_song(song, folder / "audios", folder / "lyrics", clip_s=clip_s), songs)
        for done, _ in enumerate(written, start=1):
            on_progress("generate", done, n_songs)
    language = {song.id: "INTRUMENTAL" if song.lyrics is None else "en" for song in songs}  # sic, as in Music4All
    tables = {
        "id_information.csv": [
            "id\tartist\tsong\talbum_name",
            *(f"{s.id}\t{s.artist.name}\t{s.title}\t{s.album}" for s in songs),
        ],
        "id_genres.csv": ["id\tgenres", *(f"{s.id}\t{','.join(s.genres)}" for s in songs)],
        "id_lang.csv": ["id\tlang", *(f"{id_}\t{lang}" for id_, lang in language.items())],
    }
    for name, lines in tables.items():
        (folder / name).write_bytes(("\n".join(lines) + "\n").encode())
    return folder
