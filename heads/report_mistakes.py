"""Section of a run's report with the tracks that its model got most wrong, to be listened to where they are at hand."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from .metrics import BoolArray, FloatArray, decide, jaccard_per_track
from .page import text
from .predictions import ScoredTracks

MAX_SHOWN = 20
_SURE = 1e-7
"""A score of exactly 0 or 1 counts as this far from it; its logarithm would be infinite."""


@dataclass(frozen=True, kw_only=True)
class Player:
    """Where songs are, for a page in the folder `page`.

    Attributes
    ----------
    root : the folder that the tracks' paths start from; None where it is not known.
    clip_s : seconds that the model heard of each song.
    """

    page: Path
    root: Path | None = None
    clip_s: float | None = None

    def of(self, path: str | None, offset_s: float | None) -> str:
        """HTML that plays the clip, or says why it does not."""
        if self.root is None:
            return ""
        if path is None:
            return "<p>Its file is not known; run mgc evaluate again.</p>"
        parts = PurePosixPath(path)
        file = self.root / parts
        if parts.is_absolute() or ".." in parts.parts:
            return f"<p>{text(path)} is not below the audio root.</p>"
        if not file.is_file():
            return f"<p>No file {text(path)} below the audio root.</p>"
        start = "" if not offset_s else f"{offset_s:g}"
        heard = "" if self.clip_s is None or not start else f",{(offset_s or 0.0) + self.clip_s:g}"
        source = f"{self._url(file)}{f'#t={start}{heard}' if start else ''}"
        return f'<audio controls preload=none src="{text(source)}"></audio>'

    def _url(self, file: Path) -> str:
        """Relative, so that page and songs may move together and no folder of this machine is told."""
        try:
            return quote(os.fsencode(Path(os.path.relpath(file, self.page)).as_posix()))
        except ValueError:  # another drive
            return file.resolve().as_uri()


def mistakes_section(scored: ScoredTracks | None, listing: Sequence[Mapping[str, Any]], player: Player) -> str:
    """The worst tracks with what they are and what was said of them."""
    if scored is None:
        return ""
    cut = float(scored.thresholds["tuned"][0])
    predicted = decide(scored.scores, cut)
    overlap, loss = jaccard_per_track(scored.labels, predicted), cross_entropy(scored.labels, scored.scores)
    worst = worst_tracks(overlap, loss)[:MAX_SHOWN]
    worst = worst[overlap[worst] < 1]
    if not len(worst):
        return (
            f"<h2>Tracks it got most wrong</h2>\n<p>None: every track got just its genres at threshold {cut:.3g}.</p>"
        )
    said = (
        f"Those whose predicted genres (at threshold {cut:.3g}, tuned on validation tracks) overlap least with their "
        "own by the Jaccard index; among equals, those with the largest cross-entropy. Behind each genre stands its "
        "score; genres both had and predicted are underlined. A label may be wrong, not only a model."
    )
    if player.root is None:
        said += " To listen to them here: mgc report RUN --audio-root FOLDER, the folder that the store was made from."
    elif player.clip_s is not None:
        said += f" Players stand at the {player.clip_s:g} s that the model heard."
    cards = []
    for i in worst.tolist():
        figures = f"Jaccard {overlap[i]:.3f}, cross-entropy {loss[i]:.3f} nats a genre"
        cards.append(_card(listing[i], scored, i, predicted[i], figures, player))
    return f"<h2>Tracks it got most wrong</h2>\n<p>{text(said)}</p>\n<ol class=tracks>\n{''.join(cards)}</ol>"


def worst_tracks(overlap: FloatArray, loss: FloatArray) -> npt.NDArray[np.int64]:
    """(N,) tracks by least `overlap`, then largest `loss`, then order."""
    return np.lexsort((-loss, overlap))


def cross_entropy(labels: BoolArray, scores: npt.NDArray[np.float32]) -> FloatArray:
    """(N,) binary cross-entropy of each track, the mean over genres, in nats."""
    s = np.clip(scores.astype(np.float64), _SURE, 1 - _SURE)
    mean: FloatArray = -np.where(labels, np.log(s), np.log(1 - s)).mean(axis=1)
    return mean


def _card(
    track: Mapping[str, Any], scored: ScoredTracks, i: int, predicted: BoolArray, figures: str, player: Player
) -> str:
    labels = scored.labels[i]

    def genres(chosen: BoolArray) -> str:
        order = np.flatnonzero(chosen)[np.argsort(-scored.scores[i][chosen], kind="stable")].tolist()
        both = labels & predicted
        named = [(f"<u>{text(scored.genres[j])}</u>" if both[j] else text(scored.genres[j]), j) for j in order]
        return ", ".join(f"{name}&nbsp;{scored.scores[i, j]:.2f}" for name, j in named) or "nothing"

    artists = ", ".join(track["artists"] or ())
    title = " – ".join(part for part in (artists, track["song"] or "") if part) or track["id"]
    return (
        f"<li><h3>{text(title)}</h3><dl><dt>has</dt><dd>{genres(labels)}</dd><dt>predicted</dt><dd>{genres(predicted)}"
        f"</dd></dl>{player.of(track['path'], track['offset_s'])}"
        f"<p class=note>{text(track['id'])}: {figures}</p></li>\n"
    )
