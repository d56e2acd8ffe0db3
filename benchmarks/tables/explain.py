"""Check explanations and doubtful labels on the synthetic benchmark, in which the cause of every label is known.

A `default` model is trained on the world `plain` of `benchmarks.tables.paper`. Then test songs are explained, for each
label that is predicted correctly and whose evidence is in the song: a motif of the audio, a topic of the lyrics, or
both. The region with the largest effect is compared with the planted cause:

- Words: the noun of the topic.
- Seconds: a motif sounds all the time, so clips are rendered again with the motif of the label in 3 of 10 segments
  only, and all other motifs as before. Labels that the model no longer predicts are left out.
- Bands: groups of mel bands in which the motif has more power than the noise and than every other motif of the song.
- Removed motif: the clip is rendered again without one motif after the other. This shows on which motif the model
  relies, independently of occlusion. The rows "relies on it" have the labels for which that is the planted motif.

Chance is the mean share of such regions among all regions. Deletion hides the fifth of the regions with the largest
effects, and a random fifth (mean of `RANDOM_SETS` sets); the difference of the two decreases of the log odds is paired.
Intervals: 95 %, bootstrap over artists.

Doubtful labels are those that `mgc store labels` lists first. The labels have planted noise: genres without evidence in
the song, and genres whose label was removed. The model judges the test and validation songs. A song can also lack the
evidence of a correct label, and no model can distinguish this from a wrong label.

    python -m benchmarks.tables.explain [--folder tables] [--songs 200] > benchmarks/tables/explain.md

FOLDER holds the world, its store and the run; existing ones are kept.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.machine import print_heading
from benchmarks.tables.paper import OPTIONS, world_of
from benchmarks.tables.world import CLIP_S, N_SONGS, make_store
from benchmarks.worlds.labels import multi_hot
from benchmarks.worlds.motifs import layers
from benchmarks.worlds.songs import BenchmarkSong, BenchmarkWorld
from benchmarks.worlds.topics import TOPICS
from mgc import api
from mgc.api.explanation import split_words
from mgc.cache.format.recipe import MelRecipe
from mgc.cache.reading.store import FeatureStore
from mgc.heads.evaluation import explain
from mgc.heads.evaluation.label_issues import MIN_TRACKS, find_issues
from mgc.heads.evaluation.predict import score_store
from mgc.heads.metrics.bootstrap import Resampling, interval
from mgc.heads.model.batch import Batch
from mgc.heads.runs.published_model import LoadedModel, load_run
from mgc.pipeline.audio.mel import log_mel, mel_power
from mgc.pipeline.synth.audio import SAMPLE_RATE_HZ, studio_filter
from mgc.pipeline.text.encoder import TextSource, load_encoder

N_SEGMENTS, N_PLANTED, N_BANDS = 10, 3, 16
DELETED_SHARE, RANDOM_SETS = 0.2, 5
REPLICATES, SEED = 1000, 0
RANKS = (10, 20, 40, 80)
KINDS = {"sound": "audio", "words": "lyrics", "both": "both"}
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """A correctly predicted label with its evidence, and its column among the outputs of the model."""

    column: int
    kind: str
    motif: int | None
    topic: int | None


@dataclass
class Tally:
    """Values per row of a table, with the artist of each."""

    values: dict[str, list[tuple[float, float, int]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, row: str, value: float, other: float, artist: int) -> None:
        self.values[row].append((value, other, artist))


class Check:
    """Explanations of test songs, and the tallies of all tables."""

    def __init__(self, loaded: LoadedModel, store: FeatureStore, world: BenchmarkWorld) -> None:
        assert isinstance(store.recipe.mel, MelRecipe)
        assert store.recipe.lyrics is not None
        self.loaded, self.store, self.recipe = loaded, store, store.recipe.mel
        self.encoder = load_encoder(TextSource(emulates=True), store.recipe.lyrics)
        self.world, self.evidence = world, world.evidence()
        self.top, self.deleted = Tally(), Tally()
        self.rng = np.random.default_rng(SEED)
        self.n_cases = 0

    def cases(self, song: BenchmarkSong, scores: Floats) -> list[Case]:
        """Return the labels of a song to explain."""
        found = []
        for genre in set(song.genres) & set(song.true_genres):
            name = self.world.labels.genres[genre]
            if name not in self.loaded.genres:
                continue
            column = self.loaded.genres.index(name)
            if scores[column] < self.loaded.thresholds.overall:
                continue
            for motif, topic in self.evidence.styles[genre]:
                if (motif is None or motif in song.motifs) and (topic is None or topic in song.topics):
                    found.append(Case(column, self.evidence.kinds[genre], motif, topic))
                    break
        return found

    def explain(self, song: BenchmarkSong, row: int, cases: list[Case]) -> None:
        self.n_cases += len(cases)
        batch = explain.track_batch(self.loaded, self.store, row, torch.device("cpu"))
        self._modalities(song, batch, cases)
        if words := [case for case in cases if case.topic is not None]:
            self._words(song, batch, words)
        if motifs := [case for case in cases if case.motif is not None]:
            n_samples = round(CLIP_S * SAMPLE_RATE_HZ)
            own = np.random.default_rng([song.seed, 21, song.index])
            sounds = np.stack(layers(song.motifs, n_samples, own))
            self._bands(song, batch, motifs, sounds)
            for case in motifs:
                self._seconds(song, batch, case, sounds)

    def _modalities(self, song: BenchmarkSong, batch: Batch, cases: list[Case]) -> None:
        batches = explain.without_modalities(self.loaded.model, batch, ["audio", "lyrics"])
        places = [{"modality": "audio"}, {"modality": "lyrics"}]
        effects = explain.score_regions(self.loaded, explain.MODALITIES, places, batches).effects
        for case in (case for case in cases if case.kind != "both" and song.lyrics is not None):
            planted = 0 if case.kind == "sound" else 1
            self.top.add(f"modality, {KINDS[case.kind]}", effects[:, case.column].argmax() == planted, 0.5, song.artist)

    def _words(self, song: BenchmarkSong, batch: Batch, cases: list[Case]) -> None:
        assert song.lyrics is not None
        text, words = split_words(self.encoder, song.lyrics.strip())
        effects = self._score(explain.without_words(batch, words.encoded)).T
        for case in cases:
            assert case.topic is not None
            nouns = {word for noun in list(TOPICS.values())[case.topic].nouns for word in noun.split()}
            planted = np.asarray([place["word"] in nouns for place in words.places])
            self._add("words", case, effects[case.column], planted, song.artist)
            texts = [
                "".join(
                    character
                    for i, character in enumerate(text)
                    if not any(words.places[n]["start"] <= i < words.places[n]["end"] for n in chosen)
                )
                for chosen in self._sets(effects[case.column])
            ]
            encoded = ((states.states, states.pooled) for states in self.encoder.encode_all([text, *texts]))
            self._delete("words", case, explain.without_words(batch, encoded), song.artist)

    def _bands(self, song: BenchmarkSong, batch: Batch, cases: list[Case], sounds: Floats) -> None:
        _, edges = explain.bands(self.recipe, N_BANDS)
        groups = explain.masks(edges, self.recipe.n_mels)
        power = np.stack([mel_power(sound, self.recipe).sum(axis=1) for sound in sounds]) @ groups.numpy().T
        effects = self._score(explain.without_cells(batch, groups[:, :, None])).T
        mixes = [sounds.sum(axis=0), *(np.delete(sounds, i + 1, axis=0).sum(axis=0) for i in range(len(song.motifs)))]
        removed = self._score(self._clip(song, batch, mix) for mix in mixes).T
        for case in cases:
            assert case.motif is not None
            place = song.motifs.index(case.motif)
            planted = power.argmax(axis=0) == place + 1
            relies = removed[case.column].argmax() == place
            self.top.add("removed motif", relies, 1 / len(song.motifs), song.artist)
            self._add("bands", case, effects[case.column], planted, song.artist)
            strongest = power[:, effects[case.column].argmax()].argmax()
            if relies:
                self.top.add("bands, relies on it", strongest == place + 1, planted.mean(), song.artist)
            self.top.add("bands, dominated by noise", strongest == 0, (power.argmax(axis=0) == 0).mean(), song.artist)
            sets = [groups[chosen].any(dim=0) for chosen in self._sets(effects[case.column])]
            self._delete("bands", case, explain.without_cells(batch, torch.stack(sets)[:, :, None]), song.artist)

    def _seconds(self, song: BenchmarkSong, batch: Batch, case: Case, sounds: Floats) -> None:
        assert case.motif is not None
        first = int(self.rng.integers(N_SEGMENTS - N_PLANTED + 1))
        planted = (np.arange(N_SEGMENTS) >= first) & (np.arange(N_SEGMENTS) < first + N_PLANTED)
        gated = sounds.copy()
        gated[song.motifs.index(case.motif) + 1] *= np.repeat(planted, -(-sounds.shape[1] // N_SEGMENTS))[
            : sounds.shape[1]
        ]
        clip = self._clip(song, batch, gated.sum(axis=0))
        if 1 / (1 + np.exp(-self._logits([clip])[0, case.column])) < self.loaded.thresholds.overall:
            return
        n_frames, size = int(batch.mel_frames), batch.mel.shape[-1]
        _, edges = explain.segments(n_frames, N_SEGMENTS, 0.0, 1.0)
        parts = explain.masks(edges, size)
        effects = self._score(explain.without_cells(clip, parts[:, None, :]))[:, case.column]
        self._add("seconds", case, effects, planted, song.artist)
        mean = float(self.loaded.model.mel_mean)
        filled = (clip.with_tensors(mel=torch.where(part, mean, clip.mel)) for part in parts)
        other = self._score([clip, *filled])[:, case.column]
        self.top.add("seconds, filled with the training mean", planted[other.argmax()], planted.mean(), song.artist)
        sets = [parts[chosen].any(dim=0) for chosen in self._sets(effects)]
        self._delete("seconds", case, explain.without_cells(clip, torch.stack(sets)[:, None, :]), song.artist)

    def _clip(self, song: BenchmarkSong, batch: Batch, mix: Floats) -> Batch:
        """Return the batch with the mel spectrogram of another mix of the song's layers."""
        n_samples = len(mix)
        mix = np.fft.irfft(np.fft.rfft(mix) * studio_filter(song.seed, song.artist, n_samples), n_samples)
        mel = log_mel(0.6 * mix / np.abs(mix).max(), self.recipe)
        padded = torch.zeros(batch.mel.shape)
        padded[0, :, : mel.shape[1]] = torch.from_numpy(mel)[:, : padded.shape[-1]]
        return batch.with_tensors(mel=padded)

    def _logits(self, batches: Iterable[Batch]) -> Floats:
        with torch.inference_mode():
            return np.concatenate([self.loaded.model(batch).logits.numpy() for batch in batches])

    def _score(self, batches: Iterable[Batch]) -> Floats:
        """Return the effects (R, C) of the regions that are hidden in all batches but the first track."""
        logits = self._logits(batches)
        return logits[0] - logits[1:]

    def _sets(self, effects: Floats) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the regions to delete: those with the largest effects, and then random ones."""
        n = max(1, round(DELETED_SHARE * len(effects)))
        yield np.argsort(-effects, kind="stable")[:n]
        for _ in range(RANDOM_SETS):
            yield self.rng.choice(len(effects), n, replace=False)

    def _add(self, kind: str, case: Case, effects: Floats, planted: Bools, artist: int) -> None:
        for row in (kind, f"{kind}, evidence in {KINDS[case.kind]}"):
            self.top.add(row, planted[effects.argmax()], planted.mean(), artist)

    def _delete(self, kind: str, case: Case, batches: Iterable[Batch], artist: int) -> None:
        drops = self._score(batches)[:, case.column]
        self.deleted.add(kind, drops[0], drops[1:].mean(), artist)


def cell(values: npt.ArrayLike, artists: list[int]) -> str:
    """Return a mean with its interval over artists."""
    values = np.asarray(values, dtype=np.float64)
    resampling = Resampling.of([str(artist) for artist in artists], REPLICATES, SEED)
    weights = resampling.draws[:, resampling.group_of]
    low, high = interval((weights @ values) / weights.sum(axis=1))
    return f"{values.mean():.3f}" if np.isnan(low) else f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def report(check: Check, n_songs: int) -> None:
    print(
        f"{check.n_cases} correctly predicted labels of {n_songs} test songs. "
        f"{N_SEGMENTS} segments, {N_BANDS} groups of bands.\n\n"
        "## The region with the largest effect\n\n"
        "| region | it is the planted cause | chance | labels |\n|---|---|---|---|"
    )
    order = {"seconds": 0, "bands": 1, "removed motif": 2, "words": 3, "modality": 4}
    for row in sorted(check.top.values, key=lambda row: (order[row.split(",")[0]], row)):
        hits, chances, artists = zip(*check.top.values[row], strict=True)
        print(f"| {row} | {cell(hits, list(artists))} | {np.mean(chances):.3f} | {len(hits)} |")
    print(
        "\n## Deletion\n\nDecrease of the log odds of the label if a fifth of the regions is hidden.\n\n"
        "| regions | largest effects | random | difference | labels |\n|---|---|---|---|---|"
    )
    for row, values in check.deleted.values.items():
        largest, random, artists = (list(column) for column in zip(*values, strict=True))
        difference = np.subtract(largest, random)
        print(
            f"| {row} | {np.mean(largest):.2f} | {np.mean(random):.2f} | {cell(difference, artists)} | {len(values)} |"
        )


def report_doubtful(songs: list[BenchmarkSong], loaded: LoadedModel, scores: Floats, genres: Sequence[str]) -> None:
    """Print how many of the doubtful labels that are listed first are planted ones."""
    columns = [genres.index(genre) for genre in loaded.genres]
    labels = multi_hot([song.genres for song in songs], len(genres))[:, columns]
    truth = multi_hot([song.true_genres for song in songs], len(genres))[:, columns]
    often = (labels.sum(axis=0) >= MIN_TRACKS) & (len(labels) - labels.sum(axis=0) >= MIN_TRACKS)
    print(
        f"\n## Doubtful labels\n\n{len(songs)} songs, {int(often.sum())} genres with at least {MIN_TRACKS} of them.\n\n"
        f"| kind | planted | share at random | listed |{''.join(f' precision, first {rank} |' for rank in RANKS)}\n"
        f"|---|---|---|---|{'---|' * len(RANKS)}"
    )
    issues = find_issues(labels, scores)
    for kind, side in (("wrong", labels), ("missing", ~labels)):
        hits = [bool(truth[i, c] != labels[i, c]) for i, c, found, _ in issues if found == kind]
        planted, possible = (side & (truth != labels))[:, often].sum(), side[:, often].sum()
        shares = "".join(f" {np.mean(hits[:rank]):.2f} |" for rank in RANKS)
        print(f"| {kind} | {planted} | {planted / possible:.4f} | {len(hits)} |{shares}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("tables"))
    parser.add_argument("--songs", type=int, default=200, help="test songs with a correctly predicted label")
    options = parser.parse_args()
    world = world_of("plain")
    path, run = make_store(options.folder / "plain", world, N_SONGS, clip_s=CLIP_S, workers=0), options.folder / "run"
    if not (run / "best" / "config.json").exists():
        api.train(path, run, preset="default", options=dict(OPTIONS))
    songs = {song.id: song for song in world.songs(N_SONGS)}
    with FeatureStore.open(path) as store:
        tracks = store.tracks.select(["row", "id", "split"]).to_pylist()
        tracks = [track for track in tracks if track["split"] != "train"]
        loaded = load_run(run)
        scores = score_store(loaded, store, np.asarray([track["row"] for track in tracks])).scores
        check, n_songs = Check(loaded, store, world), 0
        for track, own in zip(tracks, scores, strict=True):
            if n_songs == options.songs:
                break
            song = songs[track["id"]]
            if song.split != "test":
                continue
            if cases := check.cases(song, own):
                check.explain(song, track["row"], cases)
                n_songs += 1
                print(f"\r{n_songs} of {options.songs} songs", end="", file=sys.stderr, flush=True)
    print_heading(
        "Explanations on the synthetic benchmark",
        __file__,
        ", which describes the checks. The world is made by our own code (docs/design/004): none of this is a result "
        "on music.",
        torch_version=torch.__version__,
    )
    report(check, n_songs)
    report_doubtful([songs[track["id"]] for track in tracks], loaded, scores, world.labels.genres)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
