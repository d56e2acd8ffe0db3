"""The page of a timeline: heat map, player, cursor, keyboard, names of files that contain markup."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.chromium import Chromium, Tab
from mgc.heads.evaluation.timeline import Timeline
from mgc.reports.timeline import MAX_ROWS, write_timeline_page

GENRES = ["rock", "<b>jazz</b>", "polka", *(f"rare {i}" for i in range(20))]
HOSTILE = "a\"><img src=x onerror=alert(1)>#%3F?'&amp;javascript:.wav"
"""A name of a file: markup, and characters that URLs reserve."""


def timeline(file: Path, *, gap: bool = False) -> Timeline:
    """60 s in 6 windows: rock at first, then jazz; with `gap`, the second window has no scores."""
    scores = np.full((6, len(GENRES)), 0.001, np.float32)
    scores[:, 0], scores[:, 1], scores[5, 2] = (0.8, 0.8, 0.7, 0.1, 0.1, 0.1), (0.1, 0.1, 0.1, 0.6, 0.6, 0.2), 0.9
    if gap:
        scores[1] = np.nan
    starts_s = 10.0 * np.arange(6)
    reasons = [None, "NONFINITE" if gap else None, *[None] * 4]
    return Timeline(
        id=f"songs/{file.name}", file=file, starts_s=starts_s, ends_s=starts_s + 10, scores=scores, reasons=reasons
    )


@pytest.fixture
def song(tmp_path: Path) -> Path:
    (tmp_path / "songs").mkdir()
    path = tmp_path / "songs" / HOSTILE.replace("/", "")
    soundfile.write(path, 0.1 * np.sin(np.arange(60 * 8_000) / 10), 8_000)
    return path


def written(folder: Path, *songs: Timeline) -> Path:
    return write_timeline_page(folder / "page.html", GENRES, songs, ["scores by a <i>model</i>"])


def wait_for(tab: Tab, condition: str) -> None:
    assert tab.run(
        f"new Promise((ok) => {{ const start = Date.now(), test = () => ({condition}) ? ok(true) :"
        " Date.now() - start > 20000 ? ok(false) : setTimeout(test, 50); test(); })"
    ), condition


NUMBERS = "[...document.querySelectorAll('.names b')].slice(0, 2).map((cell) => cell.textContent)"


def test_click_and_keys_seek_and_the_cursor_follows_playback(browser: Chromium, song: Path, tmp_path: Path) -> None:
    tab = browser.open(written(tmp_path, timeline(song)))
    assert tab.run("document.querySelector('.plot').clientWidth") > 600  # a page without contents uses the whole width
    wait_for(tab, "document.querySelector('audio').readyState >= 1")
    assert tab.run("document.querySelector('audio').duration") == pytest.approx(60, abs=0.1)
    assert tab.run(NUMBERS) == ["0.433", "0.283"]  # means
    tab.run(
        "(() => { const plot = document.querySelector('.plot'), box = plot.getBoundingClientRect();"
        "plot.dispatchEvent(new MouseEvent('click', {clientX: box.left + 0.55 * box.width})); })()"
    )
    wait_for(tab, "document.querySelector('audio').currentTime > 32")
    assert tab.run("document.querySelector('audio').currentTime") == pytest.approx(33, abs=0.3)
    assert tab.run(NUMBERS) == ["0.100", "0.600"]
    tab.run("document.querySelector('.song input').focus()")
    tab.press("ArrowRight", 39)
    wait_for(tab, "document.querySelector('audio').currentTime > 33.5")
    assert tab.run("document.querySelector('audio').currentTime") == pytest.approx(34, abs=0.5)
    tab.press("Home", 36)
    wait_for(tab, "document.querySelector('.cursor').style.left === '0%'")
    text = tab.run("document.querySelector('.song input').getAttribute('aria-valuetext')")
    assert text == "0 min 0 s: rock 0.800, <b>jazz</b> 0.100, polka 0.001"
    tab.run("(() => { const audio = document.querySelector('audio'); audio.muted = true; return audio.play(); })()")
    wait_for(tab, "parseFloat(document.querySelector('.cursor').style.left) > 0.5")
    tab.run("document.querySelector('audio').pause()")
    assert tab.errors == []


def test_names_of_files_and_genres_are_text_only(browser: Chromium, song: Path, tmp_path: Path) -> None:
    tab = browser.open(written(tmp_path, timeline(song)))
    assert tab.run("document.querySelectorAll('img, .names b b, p i').length") == 0
    assert tab.run("document.querySelector('h1').textContent") == HOSTILE
    assert tab.run("document.querySelector('.names li:nth-child(2) span').textContent") == "<b>jazz</b>"
    wait_for(tab, "document.querySelector('audio').readyState >= 1")  # so its URL is right
    assert tab.errors == []


def test_map_shows_the_highest_rows_sorted_by_mean_and_gaps(browser: Chromium, song: Path, tmp_path: Path) -> None:
    tab = browser.open(written(tmp_path, timeline(song, gap=True)))
    names = tab.run("[...document.querySelectorAll('.names span')].map((name) => name.textContent)")
    assert (names[:3], len(names)) == (["rock", "<b>jazz</b>", "polka"], MAX_ROWS)
    rock = tab.run(
        "[...document.querySelectorAll('svg g:first-of-type rect')].map((cell) => ['x', 'width', 'fill-opacity']"
        ".map((name) => Number(cell.getAttribute(name))))"
    )
    assert rock == [[0, 10, 0.89], [20, 10, 0.78], [30, 10, 0.11], [40, 10, 0.11], [50, 10, 0.11]]  # of 0.9
    assert tab.run("document.querySelectorAll('rect.gap').length") == 1
    row = "[...document.querySelectorAll('tbody tr')[1].cells].map((cell) => cell.textContent).slice(0, 3)"
    assert tab.run(row) == ["0:10", "NONFINITE", "–"]


@pytest.mark.parametrize("dark", [False, True])
def test_page_fits_a_phone_and_is_complete_without_scripts(
    browser: Chromium, song: Path, tmp_path: Path, dark: bool
) -> None:
    tab = browser.open(written(tmp_path, timeline(song)), width=360, height=740, dark=dark)
    assert tab.run("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    tab = browser.open(written(tmp_path, timeline(song)), scripts=False)
    tab.send("Emulation.setScriptExecutionDisabled", value=False)
    assert tab.run("document.querySelectorAll('.song input, .song button').length") == 0
    assert tab.run("document.querySelectorAll('tbody tr').length") == 6
    assert tab.errors == []


def test_page_with_several_songs_lists_failed_ones_and_reports_unplayable_audio(
    browser: Chromium, song: Path, tmp_path: Path
) -> None:
    text = tmp_path / "songs" / "text.mp3"
    text.write_text("<html>404</html>")
    nothing = np.full((1, len(GENRES)), np.nan, np.float32)
    failed = Timeline(
        id="gone.mp3",
        file=tmp_path / "gone.mp3",
        starts_s=np.zeros(1),
        ends_s=np.zeros(1),
        scores=nothing,
        reasons=["SRC_MISSING"],
    )
    page = written(tmp_path, timeline(song), timeline(text), failed)
    tab = browser.open(page)
    assert tab.run("document.querySelectorAll('h2').length") == 3
    wait_for(tab, "document.querySelectorAll('.problem:not([hidden])').length === 1")
    assert re.search(r"gone\.mp3: no scores, SRC_MISSING", page.read_text())
