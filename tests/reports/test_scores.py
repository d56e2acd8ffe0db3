"""Confusions, worst predictions and audio players of run reports."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import jaccard_score, log_loss

from mgc.heads.evaluation.scored_tracks import ScoredTracks
from mgc.heads.metrics.confusions import confusions
from mgc.reports.html import environment, render
from mgc.reports.run import best_epoch
from mgc.reports.run_sections import MAX_SHOWN, Player, confused_genres, worst_predictions

GENRES = ("jazz", "rock", "<pop>", "folk")
CUT = 0.4


@pytest.fixture(scope="module")
def scored() -> ScoredTracks:
    random = np.random.default_rng(5)
    labels = random.random((80, 4)) < 0.4
    labels[~labels.any(axis=1), 0] = True
    scores = (0.35 * labels + 0.65 * random.random((80, 4))).astype(np.float32)
    scores[3, 1] = 0.0  # a wrong label at score 0 would have infinite loss
    return ScoredTracks(
        run=Path("run"),
        ids=tuple(f"t{i}" for i in range(80)),
        groups=("a",) * 80,
        genres=GENRES,
        labels=labels,
        scores=scores,
        thresholds={"tuned": np.full(4, CUT)},
    )


def _section(scored: ScoredTracks) -> str:
    """Return confusions and worst predictions as HTML, with single spaces."""
    mistakes = worst_predictions(scored, _listing(), Player(page=Path()))
    return " ".join(render("mistakes.html", confused=confused_genres(scored), mistakes=mistakes, tuned="tuned").split())


def _plain(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).replace("&nbsp;", " ").split())


def test_confusions_equal_a_count_per_track(scored: ScoredTracks) -> None:
    counted: dict[tuple[int, int], int] = {}
    missed, alone = [0] * 4, [0] * 4
    for has, says in zip(scored.labels.tolist(), (scored.scores >= CUT).tolist(), strict=True):
        wrong = [g for g in range(4) if says[g] and not has[g]]
        for genre in (g for g in range(4) if has[g] and not says[g]):
            missed[genre] += 1
            alone[genre] += not wrong
            for other in wrong:
                counted[genre, other] = counted.get((genre, other), 0) + 1
    found = confusions(scored.labels, scored.scores >= CUT)
    assert found.missed.tolist() == missed
    assert found.without_wrong.tolist() == alone
    assert {pair: found.predicted_instead[pair] for pair in found.pairs()} == counted
    assert found.support.tolist() == scored.labels.sum(axis=0).tolist()
    order = [(-counted[pair], -counted[pair] / missed[pair[0]]) for pair in found.pairs()]
    assert order == sorted(order)
    (one, other), section = found.pairs()[0], _section(scored)
    share = f"{100 * counted[one, other] / missed[one]:.0f} %"
    row = f"{escape(GENRES[one])} {escape(GENRES[other])} {counted[one, other]} {share}"
    assert f"{row} {missed[one]} {found.support[one]}" in _plain(section)
    assert f"Missed: {sum(missed)} genre labels, of which {sum(alone)} on tracks without a wrong prediction" in section


def test_perfect_predictions_have_no_confusions_and_no_worst_tracks(scored: ScoredTracks) -> None:
    from dataclasses import replace

    right = replace(scored, scores=scored.labels.astype(np.float32))
    assert "No wrong genre was predicted instead" in _section(right)
    assert "None: at threshold 0.4 the predicted genres of every track equal its labels." in _section(right)
    silent = confusions(scored.labels, np.zeros_like(scored.labels))
    assert (silent.without_wrong == scored.labels.sum(axis=0)).all()
    assert np.isnan(confusions(scored.labels, scored.labels).shares).all()


def _listing() -> list[dict[str, object]]:
    return [
        {"id": f"t{i}", "artists": [f"Artist & {i}"], "song": f"Song {i}", "path": f"a/{i}.mp3", "offset_s": 0.0}
        for i in range(80)
    ]


def test_worst_predictions_are_sorted_by_jaccard_then_cross_entropy(scored: ScoredTracks) -> None:
    """By scikit-learn's Jaccard index and cross-entropy of each track."""
    says = scored.scores >= CUT
    sure = np.clip(scored.scores.astype(float), 1e-7, 1 - 1e-7)
    key = [
        (jaccard_score(has, said, zero_division=1.0), -log_loss(has, scores, labels=[False, True]), i)
        for i, (has, said, scores) in enumerate(zip(scored.labels, says, sure, strict=True))
    ]
    worst = [i for *_, i in sorted(key)[:MAX_SHOWN]]
    section = _section(scored)
    assert re.findall(r"<h3>Artist &amp; (\d+) – Song", section) == [str(i) for i in worst]
    overlap, loss, first = sorted(key)[0]
    assert f"t{first}: Jaccard {overlap:.3f}, cross-entropy {-loss:.3f} nats per genre" in section
    has = sorted((g for g in range(4) if scored.labels[first, g]), key=lambda g: -scored.scores[first, g])
    shown = ", ".join(f"{GENRES[g]} {scored.scores[first, g]:.2f}" for g in has)
    assert f"labelled {shown} predicted" in _plain(section).replace("&lt;pop&gt;", "<pop>")
    assert "<audio" not in section


@pytest.mark.parametrize(
    ("path", "offset_s", "want"),
    [
        ("a/b.mp3", 0.0, 'src="../songs/a/b.mp3"'),
        ("a/b.mp3", 12.5, 'src="../songs/a/b.mp3#t=12.5,42.5"'),
        ('a/"x" #1 100%?.mp3', None, 'src="../songs/a/%22x%22%20%231%20100%25%3F.mp3"'),
        ("a/日本.mp3", 0.0, 'src="../songs/a/%E6%97%A5%E6%9C%AC.mp3"'),
        ("a/gone<b>.mp3", 0.0, "No file a/gone&lt;b&gt;.mp3 in"),
        ("../runs/secret.mp3", 0.0, "../runs/secret.mp3 is outside"),
        ("/etc/passwd", 0.0, "/etc/passwd is outside"),
        (None, None, "Unknown audio file. Run mgc evaluate again"),
    ],
)
def test_players_link_existing_files_or_state_the_reason(
    tmp_path: Path, path: str | None, offset_s: float | None, want: str
) -> None:
    (tmp_path / "songs/a").mkdir(parents=True)
    for name in ("songs/a/b.mp3", 'songs/a/"x" #1 100%?.mp3', "songs/a/日本.mp3", "runs/secret.mp3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    song = Player(page=tmp_path / "runs", root=tmp_path / "songs", clip_s=30.0).song(path, offset_s)
    shown = environment().get_template("macros.html").module.player(song)
    assert want in shown
    assert ("<audio" in shown) == want.startswith("src=")


def test_best_epoch_breaks_ties_by_cross_entropy() -> None:
    epochs = [{"epoch": k, "val_map": m, "val_bce": b} for k, m, b in ((1, 1.0, 2.3), (2, 1.0, 0.4), (3, 0.9, 0.1))]
    assert best_epoch(epochs) == epochs[1]  # equal mAP: the lower cross-entropy
    assert best_epoch([{"epoch": 1, "val_map": None, "val_bce": None}]) is None
