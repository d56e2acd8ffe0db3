"""Names typed in one Unicode form, and stored in another: of tracks, artists, genres and files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from small_world import World
from source_files import put

from mgc.cache.errors import ConfigError
from mgc.cache.reading.view import open_store
from mgc.cache.writing.takedowns import dropped_ids
from mgc.heads.data.labels import choose_genres
from mgc.pipeline.sources.datasets import songs_source
from mgc.reports.run_sections import Player

FORMS = (("Beyonc\u00e9", "Beyonce\u0301"), ("Beyonce\u0301", "Beyonc\u00e9"))
NFC, NFD = FORMS[0]


def write_tone(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.sin(np.arange(30_000) / 10), 22_050)
    return path


def world_of(name: str) -> World:
    """Two tracks, the second one with `name` as id, artist and genre."""
    about = [
        {"id": text, "path": f"{text}.wav", "artists": [text], "song": text, "genres": [text]} for text in ("A", name)
    ]
    return World(n_tracks=2, tracks=about)


@pytest.mark.parametrize(("stored", "typed"), FORMS)
def test_drop_and_select_match_names_in_another_unicode_form(
    call: Callable[..., Any], tmp_path: Path, stored: str, typed: str
) -> None:
    store = tmp_path / "s.zarr"
    world_of(stored).write(store).close()
    with open_store(store) as view:
        for chosen in (view.sel(id=typed), view.sel(genre=[typed]), view.sel(artist=typed, id=stored)):
            assert chosen.tracks.column("id").to_pylist() == [stored]
        with pytest.raises(ConfigError, match="no selected track has the artist 'Beyonce'"):
            view.sel(artist="Beyonce")
    assert call("store", "select", store, "-o", tmp_path / "o.zarr", "--artist", typed, "--json").json["tracks"] == 1
    assert call("store", "drop", store, typed, "--json").json["dropped"] == [stored]
    assert call("store", "drop", store, stored, typed, "--json").json["dropped"] == []
    assert dropped_ids(store) == {stored}


@pytest.mark.parametrize(("stored", "typed"), FORMS)
def test_genres_file_matches_in_another_unicode_form(stored: str, typed: str) -> None:
    labels = np.ones((3, 2), dtype=np.bool_)
    assert choose_genres(labels, ["A", stored], listed=[typed, stored]).names == (stored,)


@pytest.mark.parametrize(("stored", "typed"), FORMS)
def test_report_plays_files_with_names_in_another_unicode_form(tmp_path: Path, stored: str, typed: str) -> None:
    write_tone(tmp_path / "music" / stored / f"{stored}.wav")
    song = Player(page=tmp_path, root=tmp_path / "music").song(f"{typed}/{typed}.wav", None)
    assert song.problem is None
    assert song.source is not None


@pytest.mark.parametrize(("stored", "typed"), FORMS)
def test_predict_finds_songs_in_another_unicode_form(tmp_path: Path, stored: str, typed: str) -> None:
    write_tone(tmp_path / stored / f"{stored}.wav")
    typed_path = tmp_path / typed / f"{typed}.wav"
    (track,) = songs_source([typed_path]).tracks
    assert (track.id, Path("/" + track.path).is_file()) == (str(typed_path), True)
    (track,) = songs_source([tmp_path / typed]).tracks
    assert Path("/" + track.path).is_file()


def test_append_of_a_track_in_another_unicode_form_is_refused(call: Callable[..., Any], tmp_path: Path) -> None:
    options = ("-o", tmp_path / "s.zarr", "--features", "mel", "--workers", 0, "--clip-s", 1)
    write_tone(tmp_path / "songs" / f"{NFD}.wav")
    assert call("extract", tmp_path / "songs", *options).code == 0
    (tmp_path / "songs" / f"{NFD}.wav").rename(tmp_path / "songs" / f"{NFC}.wav")
    for more in ((), ("--append",)):
        done = call("extract", tmp_path / "songs", *options, *more)
        pair = f"{f'{NFD}.wav'!r} ({tmp_path / 's.zarr'}) and {f'{NFC}.wav'!r} (this source)"
        assert (done.code, pair in done.err) == (2, True), done.err


def test_predict_reports_skipped_files_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "songs"
    write_tone(folder / "a.wav")
    put(folder / "cover.jpg", b"\xff\xd8\xff\xe0JFIF")
    source = songs_source([folder])
    assert [track.id for track in source.tracks] == [str(folder / "a.wav")]
    (note,) = source.notes
    assert note.startswith(f"{folder}: 1 file without audio skipped: 1 .jpg; first:")
