"""Store reports: counts equal to an independent count, in Zarr and HDF5, written outside the store."""

from __future__ import annotations

import base64
import html
import io
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.chromium import Chromium
from benchmarks.worlds import small_store
from benchmarks.worlds.full_store import create_full
from mgc.cache.errors import ConfigError
from mgc.cache.format.meanings import FLAG_MEANINGS, REASON_MEANINGS
from mgc.cache.format.recipe import MelRecipe, Recipe
from mgc.cache.format.schema import Flag, Reason
from mgc.cache.upkeep.hdf5_writer import convert
from mgc.reports.charts import band_of, columns_averaged
from mgc.reports.store import write_store_report
from mgc.reports.store_survey import histogram

ODD_NAMES = ("<script>alert(1)</script>", "$\\frac{x$ $", "日本のロック", "</svg></style><b>", "r&b", "a name, " * 12)
SPLITS = ("train", "train", "validation", "test", None)
LANGUAGES = ("en", "pt", "zxx", None)


@pytest.fixture(scope="module")
def odd(make_world: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A report with 87 genres (some with markup), splits, languages, flags and failures; and its source data."""
    names, n = [*ODD_NAMES, *(f"genre {i}" for i in range(81))], 130
    failed, flags = (
        {5, 77, 78},
        {i: int(Flag.SILENT | Flag.SHORT) if i % 9 == 0 else int(Flag.CLIPPED) for i in range(60)},
    )
    world = make_world(
        n_tracks=n, failed=failed, flags=flags, seconds={i: 20.0 + i for i in range(n - 1)} | {n - 1: 4e4}
    )
    for i, track in enumerate(world.tracks):
        track |= {
            "genres": sorted({names[i % 87], names[i * 7 % 87]}),
            "split": SPLITS[i % 5],
            "language": LANGUAGES[i % 4],
        }
    world.tracks[5]["id"] = world.tracks[4]["id"] + "<img src=x>"
    world.tracks[-1]["genres"] = []
    path = tmp_path_factory.mktemp("odd") / "odd.zarr"
    world.write(path, part_rows=64).close()
    return write_store_report(path), world


def _text(page: Path) -> str:
    """Return the text of a page, with single spaces."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", _source(page))).split())


def _source(page: Path) -> str:
    return re.sub(r"<(script|style)>.*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def _rows(page: Path, about: str) -> dict[str, list[str]]:
    """Return the body of a table: first cell -> other cells."""
    table = re.search(rf'aria-label="{about}">.*?<tbody>(.*?)</tbody>', _source(page), flags=re.DOTALL)
    assert table
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", table[1])]
    plain = [[html.unescape(re.sub(r"<small>.*?</small>|<[^>]*>", "", cell)) for cell in row] for row in cells]
    return {first: rest for first, *rest in plain}


def test_every_flag_and_reason_has_a_meaning() -> None:
    assert FLAG_MEANINGS.keys() == set(Flag)
    assert REASON_MEANINGS.keys() == set(Reason)


def test_report_of_an_incomplete_store_counts_pending_tracks(tmp_path: Path) -> None:
    """Eight of ten tracks are extracted: one failed, seven have the flag SHORT."""
    path = small_store.create(tmp_path / "growing.zarr")
    small_store.fill(path, [0, 1])
    page = write_store_report(path)
    text = _text(page)
    assert "features (audio, lyrics) of 7 of 10 planned tracks by 1 artist." in text
    assert "Extraction is not finished: 2 tracks pending" in text
    assert f"EMPTY 1 {' '.join(REASON_MEANINGS[Reason.EMPTY])} t05: no samples" in text
    assert _rows(page, "Flags") == {"SHORT": ["8", FLAG_MEANINGS[Flag.SHORT]]}
    assert _rows(page, "Coverage by split") == {"all (no split)": ["10", "1", "2", "7", "6", "6"]}


def test_tables_equal_an_independent_count(odd: tuple[Path, Any]) -> None:
    page, world = odd
    ok = [i for i in range(world.n_tracks) if i not in world.failed]
    with_lyrics = {i for i in ok if world.lyrics_tokens[i]}
    genres = _rows(page, "Tracks by genre")
    assert next(iter(genres)) == min(genres, key=lambda name: (-int(genres[name][0]), name))
    planned = {name: [i for i, t in enumerate(world.tracks) if name in t["genres"]] for name in genres}
    assert len(genres) == 87
    assert sum(map(len, planned.values())) == sum(len(track["genres"]) for track in world.tracks)
    for name, (all_, here, share, words, *by_split) in genres.items():
        those = [i for i in planned[name] if i in ok]
        splits = Counter(world.tracks[i]["split"] for i in those)
        assert [int(all_), int(here), int(words)] == [len(planned[name]), len(those), len(with_lyrics & set(those))]
        assert share == f"{100 * len(those) / len(planned[name]):.1f}\N{NO-BREAK SPACE}%"
        assert [int(n) for n in by_split] == [splits[split] for split in ("train", "validation", "test")]
    coverage = _rows(page, "Coverage by split")
    for shown, split in (("train", "train"), ("test", "test"), ("no split", None)):
        of_split = [i for i, track in enumerate(world.tracks) if track["split"] == split]
        n_ok, n_words = len(set(of_split) & set(ok)), len(set(of_split) & with_lyrics)
        want = [len(of_split), len(of_split) - n_ok, 0, n_ok, n_words, n_words]
        assert coverage[shown] == [str(n) for n in want], shown
    assert coverage["all"][:2] == ["130", "3"]
    flags = Counter(name for bits in world.flags.values() for name in Flag(bits).names)
    assert {name: int(row[0]) for name, row in _rows(page, "Flags").items()} == flags
    assert _rows(page, "Failures by reason")["NOT_AUDIO"][0] == "3"


def test_report_shows_lengths_languages_and_labels(odd: tuple[Path, Any]) -> None:
    page, world = odd
    text = _text(page)
    ok = np.asarray([i not in world.failed for i in range(world.n_tracks)])
    seconds = np.asarray([world.seconds[i] for i in range(world.n_tracks)])[ok]
    assert f"{len(seconds)} files, {seconds.sum() / 3600:.1f} hours in total: shortest 20.0 s" in text
    assert f"median {np.median(seconds):.1f} s, longest 40,000.0 s" in text
    tokens = world.lyrics_tokens[ok & (world.lyrics_tokens > 0)]
    assert f"{len(tokens)} tracks with lyrics: shortest {tokens.min()} tokens, median" in text
    assert "No lyrics exceed the limit of 24 tokens." in text
    n_en = sum(track["language"] == "en" for track in world.tracks)
    assert f"The most frequent of 3 languages is en, with {100 * n_en / 130:.1f} %" in text
    mean = np.mean([len(track["genres"]) for track in world.tracks])
    assert f"87 genres in 130 planned tracks, {mean:.2f} per track on average, 2 at most. 1 track without" in text


def test_names_with_markup_are_escaped(odd: tuple[Path, Any]) -> None:
    page, _ = odd
    source, text = _source(page), _text(page)
    assert not re.search(r"<(img|i|script)\b", source)
    assert "<img src=x>: text" in text
    shown = [name if len(name) <= 28 else name[:27].rstrip() for name in ODD_NAMES]
    texts = [" ".join(html.unescape(found).split()) for found in re.findall(r"<text[^>]*>(.*?)</text>", source)]
    assert [name for name in shown if not any(name in one for one in texts)] == []
    assert page.stat().st_size < 2_000_000


def test_mel_charts_show_the_stored_values(odd: tuple[Path, Any]) -> None:
    """The brightness of the first image follows the stored dB."""
    page, world = odd
    source = _source(page)
    shown = re.findall(r"<h3>[^<]*: (t\d+)</h3>", source)
    assert len(shown) == len(set(shown)) == 6
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(code))).convert("RGB"), dtype=float)
        for code in re.findall(r"data:image/png;base64,\s*([A-Za-z0-9+/=\s]+)", source)
    ]
    wide = [picture for picture in pictures if picture.shape[0] == 128]
    assert len(wide) == 6
    tracks = [int(name[1:]) for name in shown]
    assert not any(world.flags.get(i, 0) & Flag.SILENT for i in tracks)
    mel = world.mel[tracks[0], :, : world.mel_frames[tracks[0]]].astype(float)
    for_sure = wide[0].sum(axis=-1)  # magma grows brighter all the way
    assert for_sure.shape == mel.shape
    best = max(np.corrcoef(for_sure.ravel(), mel.ravel())[0, 1], np.corrcoef(for_sure[::-1].ravel(), mel.ravel())[0, 1])
    assert best > 0.97


def test_report_lists_added_feature_sets_and_takedowns(tmp_path: Path) -> None:
    page = write_store_report(create_full(tmp_path / "full.zarr"))
    added = _rows(page, "Added feature sets")
    assert added["other"] == ["text encoder other", "9", "0", "0", "–"]
    assert added["tempo"] == ["extractor tempo 1, from audio", "9", "0", "0", "–"]
    assert _rows(page, "Coverage by split")["all (no split)"][-2:] == ["8", "9"]  # t00 has no lyrics
    assert f"DROPPED 1 {REASON_MEANINGS[Reason.DROPPED][0]}" in _text(page)


def test_report_states_missing_features_and_labels(make_world: Callable[..., Any], tmp_path: Path) -> None:
    bare = make_world(n_tracks=3, recipe=Recipe(mel=MelRecipe(clip_s=1.0), lyrics=None))
    for track in bare.tracks:
        track["genres"] = []
        track["artists"] = []
    bare.write(tmp_path / "bare.zarr", genres=["none has it"]).close()
    text = _text(write_store_report(tmp_path / "bare.zarr"))
    for phrase in ("No track has a genre", "no lyrics features", "no language tags", "Evenly spaced tracks"):
        assert phrase in text
    assert "3 planned tracks; the source has no artist names." in text
    make_world(n_tracks=3, failed={0, 1, 2}).write(tmp_path / "failed.zarr").close()
    text = _text(write_store_report(tmp_path / "failed.zarr"))
    for phrase in ("of 0 of 3 planned tracks", "No track has audio. No track has lyrics.", "No chart: no track"):
        assert phrase in text
    assert "Mel spectrograms" not in text


def test_zarr_and_hdf5_give_the_same_report(songs_store: Path, tmp_path: Path) -> None:
    sealed = tmp_path / "songs.h5"
    convert(songs_store, sealed)
    pages = []
    for path in (songs_store, sealed):
        source = write_store_report(path, tmp_path / f"{path.suffix}.html").read_text(encoding="utf-8")
        n_bytes = sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
        assert f"{n_bytes:,} bytes" in source
        source = re.sub(r"<b>\d[\d.]* [kM]B</b>", "", source.replace(f"{n_bytes:,} bytes", ""))
        pages.append(source.replace(path.name, "STORE"))
    assert pages[0] == pages[1]


def test_report_is_written_next_to_the_store_and_never_inside(songs_store: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.zarr"
    link.symlink_to(songs_store)
    before = small_store.tree(songs_store)
    assert write_store_report(link) == tmp_path / "link.zarr.report.html"
    for inside in (link / "page.html", songs_store / "log/deep/page.html", songs_store):
        with pytest.raises(ConfigError, match=r"is a feature store\. Write the page to a folder outside"):
            write_store_report(link, inside)
    assert small_store.tree(songs_store) == before


def test_store_report_fits_a_phone_without_console_errors(odd: tuple[Path, Any], browser: Chromium) -> None:
    for dark in (False, True):
        tab = browser.open(odd[0], width=360, height=740, dark=dark)
        assert tab.run("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
        assert tab.run("document.querySelectorAll('h3').length") == 4 + 6
        assert tab.errors == []
        tab.close()


def test_mel_band_positions_equal_librosa() -> None:
    import librosa

    for recipe in (MelRecipe(), MelRecipe(n_mels=64, fmin_hz=50, fmax_hz=8000)):
        hz = librosa.mel_frequencies(recipe.n_mels + 2, fmin=recipe.fmin_hz, fmax=recipe.fmax_hz)[1:-1]
        np.testing.assert_allclose([band_of(each, recipe) for each in hz], np.arange(recipe.n_mels), atol=1e-9)


def test_frames_are_averaged_and_outliers_counted_in_the_last_bin() -> None:
    mel = np.random.default_rng(0).normal(size=(4, 1292)).astype(np.float32)
    narrow = columns_averaged(mel)
    assert narrow.shape == (4, 431)
    np.testing.assert_allclose(narrow[:, :430], mel[:, :1290].reshape(4, 430, 3).mean(axis=2), atol=1e-6)
    np.testing.assert_allclose(narrow[:, 430], mel[:, 1290:].mean(axis=1), atol=1e-6)
    found = histogram(np.asarray([*np.arange(1.0, 301.0), 9e5]))
    assert found is not None
    assert (found.n, found.n_beyond, found.high, found.counts.sum()) == (301, 3, 9e5, 301)
    assert found.edges[-1] == 298.0
    assert histogram(np.zeros(0)) is None
