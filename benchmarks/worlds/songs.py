"""Generate the synthetic benchmark: genres with real co-occurrence and evidence in audio, in lyrics, or in both.

Genre sets come from :mod:`benchmarks.worlds.labels`. In the order of frequency, genres take turns: a motif of the audio
is evidence for a third of them, a topic of the lyrics for a third, and two *styles* for a third. A style is a motif
with a topic, each of which belongs to several genres. See docs/design/004.

Every song depends on ``(labels, seed, index)`` only, so a larger benchmark starts with the songs of a smaller one.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.worlds.labels import GenreSet, LabelSets
from benchmarks.worlds.motifs import MOTIFS, render_motifs
from benchmarks.worlds.topics import TOPICS, own_topics, short_lyrics
from mgc.cache.errors import ConfigError
from mgc.pipeline.sources.manifest import Source, Track, write_manifest
from mgc.pipeline.synth.world import artist_number, song_id, write_clip

SHARED_MOTIFS, SHARED_TOPICS, STYLES = 7, 9, 2
RELATIVES = 2
"""Number of frequent genres whose evidence a rare genre shares, with ``kin``."""
SPLIT_SHARES = {"train": 0.60, "validation": 0.07, "test": 0.33}
"""More test tracks than usual, since scoring is cheap and they narrow the confidence intervals."""

P_AWAY = 0.3  # a song unlike others of its artist
P_INSTRUMENTAL = 0.10
P_EVIDENCE_LOST = 0.08  # a missing motif or topic of a genre of the song
P_STRAY = 0.10  # a motif or topic of no genre of the song
P_LABEL_LOST, P_LABEL_WRONG = 0.05, 0.04


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Evidence of each genre in a song.

    Attributes
    ----------
    kinds : ``sound`` (audio), ``words`` (lyrics) or ``both`` per genre.
    styles : (motif, topic) pairs per genre; None for a modality that its kind does not use.
    """

    kinds: tuple[str, ...]
    styles: tuple[tuple[tuple[int | None, int | None], ...], ...]


@dataclass(frozen=True, kw_only=True)
class BenchmarkSong:
    """A song of the synthetic benchmark, not rendered.

    Attributes
    ----------
    true_genres, genres : indices of the genres with evidence, and of the labels, which have noise.
    motifs, topics : indices into ``MOTIFS`` and the names of ``TOPICS``; an instrumental has no topics.
    split : ``train``, ``validation`` or ``test``, by artist.
    """

    seed: int
    index: int
    id: str
    artist: int
    split: str
    true_genres: GenreSet
    genres: GenreSet
    motifs: tuple[int, ...]
    topics: tuple[int, ...]
    lyrics: str | None


@dataclass(frozen=True, kw_only=True)
class BenchmarkWorld:
    """Label sets and a seed, from which songs are generated.

    Attributes
    ----------
    kin : whether genres that occur together share evidence. A genre of the rarer half then has the evidence of one of
        the frequent genres that it occurs with most, or its own. Knowledge of frequent genres thus helps with rare
        ones, which is the purpose of the genre graph.
    """

    labels: LabelSets
    seed: int = 0
    kin: bool = False

    def evidence(self) -> Evidence:
        """Return the evidence of every genre."""
        own = make_evidence(len(self.labels.genres), self.seed)
        return with_relatives(own, self.labels) if self.kin else own

    def songs(self, n_songs: int) -> list[BenchmarkSong]:
        """Generate songs 0 to `n_songs` - 1."""
        evidence, chances = self.evidence(), _artist_chances(self.labels)
        words = {}
        songs = []
        for index in range(n_songs):
            artist = artist_number(self.seed, index)
            if artist not in words:
                words = {artist: list(own_topics(np.random.default_rng([self.seed, 23, artist])).values())}
            rng = np.random.default_rng([self.seed, 24, index])
            example = np.random.default_rng([self.seed, 22, artist]).choice(len(chances), p=chances)
            if rng.random() < P_AWAY:
                example = rng.choice(len(chances), p=chances)
            true = self.labels.artists[example][rng.integers(len(self.labels.artists[example]))]
            motifs, topics = _show(true, evidence, rng)
            sung = rng.random() >= P_INSTRUMENTAL
            songs.append(
                BenchmarkSong(
                    seed=self.seed,
                    index=index,
                    id=song_id(f"mgc benchmark world {self.seed} song {index}"),
                    artist=artist,
                    split=_split_of(self.seed, artist),
                    true_genres=true,
                    genres=_noisy(true, len(self.labels.genres), rng),
                    motifs=motifs,
                    topics=topics if sung else (),
                    lyrics=short_lyrics([words[artist][topic] for topic in topics], rng) if sung else None,
                )
            )
        return songs


def make_evidence(n_genres: int, seed: int) -> Evidence:
    """Assign motifs and topics to genres in order of frequency.

    Raises
    ------
    ConfigError
        If there are more genres than motifs and topics can distinguish.
    """
    rng = np.random.default_rng([seed, 25])
    kinds = [kind for _ in range(0, n_genres, 3) for kind in rng.permutation(["sound", "words", "both"]).tolist()]
    kinds = kinds[:n_genres]
    motifs, topics = rng.permutation(len(MOTIFS)).tolist(), rng.permutation(len(TOPICS)).tolist()
    pairs = [(motif, topic) for motif in motifs[:SHARED_MOTIFS] for topic in topics[:SHARED_TOPICS]]
    own_motifs, own_topics_ = motifs[SHARED_MOTIFS:], topics[SHARED_TOPICS:]
    enough = {"sound": len(own_motifs), "words": len(own_topics_), "both": len(pairs) // STYLES}
    if any(kinds.count(kind) > n for kind, n in enough.items()):
        raise ConfigError(
            f"{n_genres} genres: too many for the motifs and topics. Use at most {3 * min(enough.values())}."
        )
    pairs = [pairs[i] for i in rng.permutation(len(pairs))]
    styles: list[tuple[tuple[int | None, int | None], ...]] = []
    for kind in kinds:
        if kind == "sound":
            styles.append(((own_motifs.pop(), None),))
        elif kind == "words":
            styles.append(((None, own_topics_.pop()),))
        else:
            styles.append(tuple(pairs.pop() for _ in range(STYLES)))
    return Evidence(kinds=tuple(kinds), styles=tuple(styles))


def with_relatives(evidence: Evidence, labels: LabelSets) -> Evidence:
    """Add to each genre of the rarer half the styles of the frequent genres that it occurs with most."""
    matrix = labels.matrix().astype(np.int64)
    together, n_frequent = matrix.T @ matrix, -(-len(labels.genres) // 2)
    styles = list(evidence.styles)
    for genre in range(n_frequent, len(styles)):
        nearest = np.argsort(-together[genre, :n_frequent], kind="stable")[:RELATIVES].tolist()
        styles[genre] += tuple(style for relative in nearest for style in evidence.styles[relative][:1])
    return Evidence(kinds=evidence.kinds, styles=tuple(styles))


def _artist_chances(labels: LabelSets) -> npt.NDArray[np.float64]:
    """Weight real artists by their tracks, so that songs have the genre sets of real tracks."""
    sizes = np.array([len(rows) for rows in labels.artists], dtype=np.float64)
    return np.asarray(sizes / sizes.sum())


def _show(true: GenreSet, evidence: Evidence, rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Draw motifs and topics of a song, each once, in random order."""
    motifs, topics = set(), set()
    for genre in true:
        motif, topic = evidence.styles[genre][rng.integers(len(evidence.styles[genre]))]
        if motif is not None and rng.random() >= P_EVIDENCE_LOST:
            motifs.add(motif)
        if topic is not None and rng.random() >= P_EVIDENCE_LOST:
            topics.add(topic)
    if rng.random() < P_STRAY:
        motifs.add(int(rng.integers(len(MOTIFS))))
    if rng.random() < P_STRAY:
        topics.add(int(rng.integers(len(TOPICS))))
    return tuple(rng.permutation(sorted(motifs)).tolist()), tuple(rng.permutation(sorted(topics)).tolist())


def _noisy(true: GenreSet, n_genres: int, rng: np.random.Generator) -> GenreSet:
    """Add label noise: remove one of several labels, add a wrong one."""
    labels = set(true)
    if len(labels) > 1 and rng.random() < P_LABEL_LOST:
        labels.remove(true[rng.integers(len(true))])
    if rng.random() < P_LABEL_WRONG:
        labels.add(int(rng.integers(n_genres)))
    return tuple(sorted(labels))


def _split_of(seed: int, artist: int) -> str:
    position = (np.random.default_rng([seed, 26]).random() + artist * 0.6180339887498949) % 1.0
    ends = np.cumsum(list(SPLIT_SHARES.values()))
    return list(SPLIT_SHARES)[int(np.searchsorted(ends, position, side="right").clip(0, len(ends) - 1))]


def make_benchmark(
    folder: Path,
    world: BenchmarkWorld,
    n_songs: int,
    *,
    clip_s: float = 5.0,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the clips of songs, and ``tracks.jsonl``, a manifest with their lyrics, artists, genres and split.

    Existing clips are kept, so that an interrupted call can be continued.

    Returns
    -------
    Path
        The manifest, a SOURCE for commands.

    Raises
    ------
    ConfigError
        If `n_songs` or `clip_s` is not positive.
    """
    if n_songs < 1 or clip_s <= 0:
        raise ConfigError(f"{n_songs} songs of {clip_s} s: not positive. Use at least one song and a positive length.")
    songs = world.songs(n_songs)
    names = world.labels.genres
    existing = {path.stem: path for path in (folder / "audios").glob("*")}

    def clip(song: BenchmarkSong) -> str:
        path = existing.get(song.id)
        if path is None:
            samples = render_motifs(song.motifs, seed=song.seed, index=song.index, artist=song.artist, clip_s=clip_s)
            path = write_clip(samples, folder / "audios" / song.id, lossless=True)
        return f"audios/{path.name}"

    paths = []
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        for done, path in enumerate(pool.map(clip, songs), start=1):
            paths.append(path)
            if on_progress is not None:
                on_progress(done, n_songs)
    tracks = [
        Track(
            id=song.id,
            path=path,
            artists=(f"Artist {song.artist}",),
            song=f"Song {song.index}",
            genres=tuple(names[genre] for genre in song.genres),
            language="zxx" if song.lyrics is None else "en",
            split=song.split,
            lyrics=song.lyrics,
        )
        for song, path in zip(songs, paths, strict=True)
    ]
    manifest = folder / "tracks.jsonl"
    write_manifest(Source(root=folder, tracks=sorted(tracks, key=lambda track: track.id)), manifest)
    return manifest
