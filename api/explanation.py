"""Explanation of the scores of one song: the seconds, mel bands, words and modalities that support a genre."""

from __future__ import annotations

import dataclasses
import itertools
import re
import tempfile
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cache.errors import ClipError, ConfigError
from ..cache.format.plan import is_store
from ..cache.format.schema import OK, ORDINARY_FLAGS, Flag
from ..cache.messages import did_you_mean
from ..cache.places import place
from ..cache.reading.store import FeatureStore
from ..cache.steps import Progress, silent
from ..heads.evaluation.predict_options import PredictOptions
from .prediction import load, remarks_on
from .runs import open_for
from .shared import extra, model_folder, with_changes
from .song_features import extracted

if TYPE_CHECKING:
    from ..heads.evaluation.explain import Explanation, Regions, Words
    from ..heads.model.batch import Batch
    from ..heads.runs.published_model import LoadedModel
    from ..pipeline.sources.manifest import Source
    from ..pipeline.text.encoder import TextEncoder

_SEPARATE = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(f"[{_SEPARATE}]|[^\\s{_SEPARATE}]+")
"""Text between white space; kana and Chinese characters count as one word each."""


def explain(
    run: Path,
    song: Path,
    options: PredictOptions | None = None,
    *,
    lyrics: Path | None = None,
    track: str | None = None,
    genres: Sequence[str] = (),
    top: int = 3,
    n_segments: int = 20,
    n_bands: int = 16,
    output: Path | None = None,
    on_progress: Progress = silent,
    **changes: Any,
) -> Explanation:
    """Explain the scores of one song by occlusion: hide a region of the input and score the song again.

    Parameters
    ----------
    run : a run folder, or its ``best/``.
    song : an audio file, or a feature store with `track`.
    options : threshold, text encoder, audio encoder, device.
    lyrics : lyrics file; without it, ``song.txt`` next to ``song.mp3``. A store has no text, so words are explained
        only if this is the file of the stored lyrics.
    track : id of a track of a store.
    genres : genres to explain; by default the predicted ones, or else the one with the highest score.
    top : maximum number of genres without `genres`.
    n_segments, n_bands : numbers of time segments and of groups of mel bands.
    output : an .html page to write.
    changes : options by name, in place of those in `options`.

    Raises
    ------
    ClipError
        If the song cannot be decoded, or the track of the store has failed.
    ConfigError, RunError, StoreError, TextModelError
    """
    from ..heads.metrics.thresholds import threshold_value
    from ..heads.runs.documents import find_model

    options, song = with_changes(options or PredictOptions(), changes), place(song)
    if output is not None and output.suffix.lower() != ".html":
        raise ConfigError(f"{output}: not the name of a page. Use the suffix .html.")
    threshold_value(options.threshold)  # refuses an invalid threshold early
    run = model_folder(run)
    find_model(run)
    if is_store(song) and track is None:
        raise ConfigError(f"{song}: a feature store. Give the id of a track with --track.")
    source = None if is_store(song) else _source(song, lyrics, track, options, on_progress)
    loaded = load(run)
    for genre in genres:
        if genre not in loaded.genres:
            raise ConfigError(f"--genre {genre!r}: not a genre of the model; {did_you_mean(genre, loaded.genres)}")
    with ExitStack() as stack:
        if source is None:
            store = stack.enter_context(open_for(loaded, song))
        else:
            store = stack.enter_context(extracted(source, loaded, options, on_progress))
        row = _track(store, str(track) if source is None else source.tracks[0].id)
        result = _explain(loaded, store, row, source, lyrics, options, (n_segments, n_bands), on_progress)
    order = np.argsort(-result.scores, kind="stable").tolist()
    predicted = [column for column in order if result.scores[column] >= result.thresholds[column]]
    named = [loaded.genres.index(genre) for genre in dict.fromkeys(genres)]
    result = dataclasses.replace(result, model=str(run), explained=named or predicted[:top] or order[:1])
    if output is not None:
        with extra("report"):
            from ..reports.explanation import write_explanation
        write_explanation(output, result)
    return result


def _source(song: Path, lyrics: Path | None, track: str | None, options: PredictOptions, steps: Progress) -> Source:
    with extra("extract"):
        from ..pipeline.sources.datasets import songs_source

    if track is not None:
        raise ConfigError(f"--track needs a feature store, and {song} is not one. Remove the option.")
    if song.is_dir():
        raise ConfigError(f"{song}: is a folder. Give one audio file.")
    return songs_source([song], lyrics, lyrics_encoding=options.lyrics_encoding, on_progress=steps)


def _track(store: FeatureStore, track_id: str) -> dict[str, Any]:
    """Return the newest row of a track with features."""
    tracks = store.newest_tracks()
    ids = tracks.column("id").to_pylist()
    if track_id not in ids:
        raise ConfigError(f"--track {track_id!r}: not in {store.path}; {did_you_mean(track_id, ids, limit=5)}")
    row: dict[str, Any] = tracks.slice(ids.index(track_id), 1).to_pylist()[0]
    if row["status"] != OK:
        raise ClipError(row["reason"] or "PENDING", f"{track_id}: {row['detail'] or 'not extracted yet'}")
    return row


def _explain(
    loaded: LoadedModel,
    store: FeatureStore,
    row: Mapping[str, Any],
    source: Source | None,
    lyrics: Path | None,
    options: PredictOptions,
    n_regions: tuple[int, int],
    on_progress: Progress,
) -> Explanation:
    from ..heads.device import resolve_device
    from ..heads.evaluation import explain as heads
    from ..heads.model.config import MEL
    from ..pipeline.sources.files import resolve_inside
    from ..pipeline.text.encoder import TextSource, load_encoder

    model, mel = loaded.model, loaded.recipe.mel
    modalities = [name for name in ("audio", "lyrics") if model.config.modalities in ("both", name)]
    device = resolve_device(options.device)
    model.to(device)
    batch = heads.track_batch(loaded, store, row["row"], device)
    places = [{"modality": name} for name in modalities]
    batches = heads.without_modalities(model, batch, modalities)
    regions = {heads.MODALITIES: heads.score_regions(loaded, heads.MODALITIES, places, batches)}
    methods: dict[str, str] = {}
    has_lyrics, flags = np.asarray([int(batch.lyrics_tokens) > 0]), np.asarray([row["flags"]], dtype=np.uint32)
    remarks = remarks_on(loaded, options.threshold, has_lyrics, flags)
    if unusual := [flag.name for flag in Flag(row["flags"]) if flag not in ORDINARY_FLAGS]:
        remarks.append(f"flags: {', '.join(map(str, unusual))}")
    start_s = end_s = row["offset_s"] or 0.0
    file = None if source is None else resolve_inside(source.root, source.tracks[0].path)
    if "audio" in modalities:
        assert mel is not None
        if model.config.audio == (MEL,):
            audio = heads.hide_mel(loaded, batch, mel, start_s, *n_regions, on_progress)
        elif file is None:
            audio = {}
            remarks.append("seconds and bands are not explained: a model on added feature sets needs the audio file")
        else:
            audio = _hide_in_waveform(loaded, batch, file, options, n_regions, on_progress)
            methods = dict.fromkeys((heads.SECONDS, heads.BANDS), heads.IN_WAVEFORM)
        regions |= audio
        if audio:
            end_s = audio[heads.SECONDS].places[-1]["end_s"]
    attention = text = None
    if "lyrics" in modalities and int(batch.lyrics_tokens):
        assert loaded.recipe.lyrics is not None
        text = _read_lyrics(loaded, row, source, lyrics, options)
        if text is None:
            remarks.append("words are not explained: a store has no text. Give the lyrics file with --lyrics.")
        else:
            encoder = load_encoder(
                TextSource(model=options.text_model, device=options.text_device, emulates=True), loaded.recipe.lyrics
            )
            text, words = split_words(encoder, text)
            if words.places:
                batches = heads.without_words(batch, words.encoded)
                regions[heads.WORDS] = heads.score_regions(loaded, heads.WORDS, words.places, batches, on_progress)
                attention = heads.word_attention(loaded, batch, words.tokens, start_s, end_s)
    return heads.Explanation(
        model=str(loaded.folder),
        id=row["id"],
        file=file,
        lyrics=text,
        start_s=start_s,
        end_s=end_s,
        genres=loaded.genres,
        thresholds=loaded.thresholds.cuts(options.threshold),
        explained=(),
        regions=regions,
        attention=attention,
        methods={kind: heads.METHODS[kind] for kind in regions} | methods,
        remarks=remarks,
    )


def _hide_in_waveform(
    loaded: LoadedModel,
    batch: Batch,
    file: Path,
    options: PredictOptions,
    n_regions: tuple[int, int],
    on_progress: Progress,
) -> dict[str, Regions]:
    """Hide segments and bands of the audio itself, and extract all features again."""
    import soundfile

    from ..heads.evaluation import explain as heads
    from ..pipeline.audio.clip_reader import ClipReader
    from ..pipeline.sources.datasets import songs_source

    recipe = loaded.recipe.mel
    assert recipe is not None
    with ClipReader(recipe, form="samples") as reader:
        clip = reader.read_samples(file)
    n, rate_hz = len(clip.samples), recipe.sample_rate_hz
    seconds, edges = heads.segments(n, n_regions[0], clip.offset_s, 1 / rate_hz)
    groups, _ = heads.bands(recipe, n_regions[1])
    step, hz, spectrum = np.arange(n), np.fft.rfftfreq(n, 1 / rate_hz), np.fft.rfft(clip.samples)
    copies = [clip.samples]
    copies += [np.where((step >= a) & (step < b), 0, clip.samples) for a, b in itertools.pairwise(edges)]
    for group in groups:
        inside = (hz >= group["low_hz"]) & (hz < group["high_hz"])
        copies.append(np.fft.irfft(np.where(inside, 0, spectrum), n).astype(np.float32))
    with tempfile.TemporaryDirectory(prefix="mgc-") as scratch:
        files = [Path(scratch) / f"{i:04}.wav" for i in range(len(copies))]
        for path, samples in zip(files, copies, strict=True):
            soundfile.write(path, samples, rate_hz, subtype="FLOAT")
        source = songs_source(files, with_lyrics=False)
        options = dataclasses.replace(options, workers=options.workers or 0)
        with extracted(source, loaded, options, on_progress) as store:
            batches = []
            for path in files:
                copy = heads.track_batch(loaded, store, _track(store, str(path))["row"], batch.mel.device)
                batches.append(batch.with_tensors(mel=copy.mel, mel_frames=copy.mel_frames, embeddings=copy.embeddings))
    n_seconds = len(seconds) + 1
    return {
        kind: heads.score_regions(loaded, kind, places, [batches[0], *rest])
        for kind, places, rest in (
            (heads.SECONDS, seconds, batches[1:n_seconds]),
            (heads.BANDS, groups, batches[n_seconds:]),
        )
    }


def _read_lyrics(
    loaded: LoadedModel, row: Mapping[str, Any], source: Source | None, file: Path | None, options: PredictOptions
) -> str | None:
    """Return the text of a track's lyrics, cleaned as in the model's recipe; None for a track of a store without."""
    from ..pipeline.sources.files import resolve_inside
    from ..pipeline.text.lyrics import load_lyrics, read_lyrics

    assert loaded.recipe.lyrics is not None
    rule = loaded.recipe.lyrics.cleaning
    if source is None:
        if file is None:
            return None
        read = load_lyrics(file, rule=rule, encoding=options.lyrics_encoding)
        if read.sha256 != row["lyrics_sha256"]:
            raise ConfigError(
                f"--lyrics {file}: not the lyrics of track {row['id']!r} (other SHA-256). Give the file that the "
                "store was extracted from."
            )
        return read.text
    track = source.tracks[0]
    if track.lyrics is not None:
        return read_lyrics(track.lyrics, rule=rule).text
    assert track.lyrics_path is not None
    path = resolve_inside(source.root, track.lyrics_path)
    return load_lyrics(path, rule=rule, encoding=options.lyrics_encoding).text


def split_words(encoder: TextEncoder, text: str) -> tuple[str, Words]:
    """Return the part of lyrics that the encoder keeps, and its words with token states."""
    from ..heads.evaluation.explain import Words

    spans = encoder.token_spans(text)
    text = text[: max(end for _, end in spans)]
    spans_of_words: list[tuple[int, int]] = []
    tokens: list[list[int]] = []
    for match in _WORD.finditer(text):
        start, end = match.span()
        while start < end and not _is_letter(text[start]):
            start += 1
        while start < end and not _is_letter(text[end - 1]):
            end -= 1
        if own := [i for i, (first, last) in enumerate(spans) if first < end and start < last]:
            spans_of_words.append((start, end))
            tokens.append(own)
    places = [{"word": text[start:end], "start": start, "end": end} for start, end in spans_of_words]
    texts = [text, *(text[:start] + text[end:] for start, end in spans_of_words)]
    encoded = ((states.states, states.pooled) for states in encoder.encode_all(texts))
    return text, Words(places=places, tokens=tokens, encoded=encoded)


def _is_letter(character: str) -> bool:
    """Return whether a character is no punctuation or symbol."""
    return unicodedata.category(character)[0] not in "PS"
