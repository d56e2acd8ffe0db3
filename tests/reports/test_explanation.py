"""The page of an explanation: heat maps, player, highlighted words, keyboard, names that contain markup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from benchmarks.chromium import Chromium
from mgc.heads.evaluation.explain import BANDS, MODALITIES, SECONDS, WORDS, Attention, Explanation, Regions
from mgc.reports.explanation import write_explanation

LYRICS = "la <b>sea</b>\nlighthouse & sea"
GENRES = ["rock", "<i>jazz</i>", "polka"]


def regions(places: list[dict[str, Any]], effects: list[float]) -> Regions:
    """The effects are those on rock; those on jazz are a tenth of their negatives."""
    reference = np.asarray([2.0, 0.5, -3.0], np.float32)
    logits = reference - np.outer(effects, [1.0, -0.1, 0.0]).astype(np.float32)
    return Regions(places=places, reference=reference, logits=logits)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    song = tmp_path / 'a"><img src=x onerror=alert(1)>.wav'
    soundfile.write(song, 0.1 * np.sin(np.arange(60 * 8_000) / 10), 8_000)
    words = [
        {"word": word, "start": LYRICS.index(word), "end": LYRICS.index(word) + len(word)}
        for word in ("la", "<b>sea</b>", "lighthouse")
    ]
    found = Explanation(
        model="runs/<u>first</u>",
        id=song.name,
        file=song,
        lyrics=LYRICS,
        start_s=20.0,
        end_s=30.0,
        genres=GENRES,
        thresholds=np.full(3, 0.5),
        explained=[0, 1],
        regions={
            MODALITIES: regions([{"modality": "audio"}, {"modality": "lyrics"}], [3.0, -1.0]),
            SECONDS: regions([{"start_s": 20.0 + 2 * i, "end_s": 22.0 + 2 * i} for i in range(5)], [0, 0, 0, 2, -1]),
            BANDS: regions([{"low_hz": 1000.0 * i, "high_hz": 1000.0 * (i + 1)} for i in range(4)], [0, 1, 0, 0]),
            WORDS: regions(words, [0.0, -0.5, 4.0]),
        },
        attention=Attention(
            starts_s=np.asarray([20.0, 25.0]), of_words=np.full((3, 2), 0.5, np.float32), of_frames=np.ones((2, 3))
        ),
        methods=dict.fromkeys((MODALITIES, SECONDS, BANDS, WORDS), "hidden"),
        remarks=["a remark"],
    )
    return write_explanation(tmp_path / "page.html", found)


def test_page_follows_the_player_and_shows_the_effect_of_words(browser: Chromium, page: Path) -> None:
    tab = browser.open(page)
    numbers = "[...document.querySelectorAll('.song .names b')].map((cell) => cell.textContent)"
    assert tab.run(numbers) == ["0.881", "0.622"]
    slider = "document.querySelector('.song input')"
    assert tab.run(f"[{slider}.min, {slider}.max, {slider}.value]") == ["20", "30", "20"]
    tab.run(
        "(() => { const plot = document.querySelector('.song .plot'), box = plot.getBoundingClientRect();"
        "plot.dispatchEvent(new MouseEvent('click', {clientX: box.left + 0.65 * box.width})); })()"
    )
    assert tab.run(numbers) == ["+2.00", "-0.20"]
    assert float(tab.run("document.querySelector('.cursor').style.left").rstrip("%")) == pytest.approx(65, abs=0.5)
    tab.run(f"{slider}.focus()")
    tab.press("End", 35)
    assert tab.run(numbers) == ["-1.00", "+0.10"]
    marks = tab.run(
        "[...document.querySelectorAll('.lyrics')].map((text) => [...text.querySelectorAll('mark')]"
        ".map((mark) => [mark.textContent, mark.dataset.effect, mark.tabIndex, mark.className]))"
    )
    assert marks[0] == [["la", "+0.00", -1, ""], ["<b>sea</b>", "-0.50", 0, "against"], ["lighthouse", "+4.00", 0, ""]]
    assert tab.run("document.querySelector('.lyrics').textContent") == LYRICS
    assert tab.run("document.querySelectorAll('.lyrics b, img, i:not(.cursor), u').length") == 0
    assert tab.run("document.querySelectorAll('svg .against').length") == 3
    assert tab.errors == []
