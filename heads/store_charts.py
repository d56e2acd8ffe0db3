"""Charts of a store's report: histograms, bars a name, and mel spectrograms as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ..cache.format.recipe import MelRecipe
from .charts import FAINT, INK, LINES, MAX_NAME, drawing, svg_text
from .store_survey import Histogram, Picture

Float32 = npt.NDArray[np.float32]

TICKS_HZ = (200, 500, 1000, 2000, 5000, 10_000, 20_000)
MAX_COLUMNS = 440
"""Of a picture; more frames are averaged, several a column."""
RANGE_DB = 80.0
COLOUR_MAP, N_COLOURS = "magma", 64


def histogram_chart(shown: Histogram, *, title: str, x_label: str, mark: tuple[float, str] | None = None) -> str:
    """Bars of how many tracks lie where; ``mark`` is a vertical line and its name, where it is in the picture."""
    with drawing(title, 4.4, 2.8) as (figure, axes):
        axes.bar(shown.edges[:-1], shown.counts, width=np.diff(shown.edges), align="edge", color=LINES[0])
        if mark is not None and mark[0] <= shown.edges[-1] * 1.05:
            axes.axvline(mark[0], color=LINES[1], linewidth=1.2, linestyle="--")
            axes.annotate(mark[1], (mark[0], 1), xycoords=("data", "axes fraction"), xytext=(0, 2), ha="center",
                          textcoords="offset points", fontsize=8)  # fmt: skip
        axes.set_xlim(0, shown.edges[-1] * 1.05)
        axes.set_xlabel(x_label)
        axes.set_ylabel("tracks")
        axes.locator_params(axis="y", integer=True)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.grid(color=FAINT, linewidth=0.4, axis="y")
        axes.set_axisbelow(True)
        return svg_text(figure, title)


def bar_chart(
    rows: Mapping[str, Sequence[int]], parts: Sequence[str], *, title: str, x_label: str, y_label: str
) -> str:
    """A horizontal bar a name, made of `parts` (up to four) one after the other; its length stands at its end."""
    names = [name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…" for name in rows]
    lengths = np.asarray(list(rows.values()), dtype=np.float64).reshape(len(names), len(parts))
    ends = lengths.cumsum(axis=1)
    with drawing(title, 3.6, 0.19 * len(names) + 0.9) as (figure, axes):
        for i, (part, colour) in enumerate(zip(parts, (*LINES, FAINT), strict=False)):
            axes.barh(range(len(names)), lengths[:, i], left=ends[:, i] - lengths[:, i], height=0.75, color=colour,
                      label=part)  # fmt: skip
        for y, end in enumerate(ends[:, -1]):
            axes.annotate(f"{end:,.0f}", (end, y), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, (ends[:, -1].max() or 1) * 1.12)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.locator_params(axis="x", integer=True, nbins=5)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.tick_params(axis="y", length=0)
        if len(parts) > 1:
            axes.legend(frameon=False, fontsize=8, ncols=len(parts), loc="lower center", bbox_to_anchor=(0.5, 1),
                        handlelength=1, columnspacing=1)  # fmt: skip
        return svg_text(figure, title)


def mel_chart(picture: Picture, recipe: MelRecipe, top_db: float, *, title: str) -> str:
    """A mel spectrogram over seconds and Hz; colours go from `top_db` down to 80 dB below it, named beside."""
    mel, n_frames = columns_averaged(picture.mel), picture.mel.shape[1]
    seconds = n_frames * recipe.hop_length / recipe.sample_rate_hz
    with drawing(title, 4.4, 2.6) as (figure, axes):
        axes.imshow(_colours(mel, top_db), origin="lower", aspect="auto", interpolation="none",
                    extent=(0, seconds, -0.5, recipe.n_mels - 0.5))  # fmt: skip
        inside = [hz for hz in TICKS_HZ if recipe.fmin_hz <= hz <= recipe.fmax_hz]
        axes.set_yticks([band_of(hz, recipe) for hz in inside], [f"{hz:,}" for hz in inside])
        axes.set_ylim(-0.5, recipe.n_mels - 0.5)
        axes.set_xlabel("time in the clip (s)")
        axes.set_ylabel(f"frequency (Hz; {recipe.n_mels} mel bands)")
        key = axes.inset_axes((1.03, 0, 0.03, 1))
        scale = np.linspace(top_db - RANGE_DB, top_db, N_COLOURS, dtype=np.float32)[:, None]
        key.imshow(_colours(scale, top_db), origin="lower", aspect="auto", interpolation="none",
                   extent=(0, 1, top_db - RANGE_DB, top_db))  # fmt: skip
        key.set_xticks([])
        key.yaxis.tick_right()
        key.yaxis.set_label_position("right")
        key.yaxis.set_major_formatter(lambda value, _: f"{value:.0f}".replace("-", "−"))
        key.set_ylabel("level (dB re 1.0)", color=INK)
        return svg_text(figure, title)


def columns_averaged(mel: Float32) -> Float32:
    """(n_mels, n_frames) -> at most `MAX_COLUMNS` columns, each the mean of as many frames in dB."""
    n_frames = mel.shape[1]
    step = -(-n_frames // MAX_COLUMNS)
    starts = np.arange(0, n_frames, step)
    sums, sizes = np.add.reduceat(mel, starts, axis=1), np.diff(np.append(starts, n_frames))
    return (sums / sizes).astype(np.float32)


def _colours(mel_db: Float32, top_db: float) -> npt.NDArray[np.uint8]:
    """dB -> RGBA."""
    from matplotlib import colormaps

    share = np.clip((mel_db - (top_db - RANGE_DB)) / RANGE_DB, 0, 1)
    rgba: npt.NDArray[np.uint8] = colormaps[COLOUR_MAP].resampled(N_COLOURS)(share, bytes=True)
    return rgba


def band_of(hz: float, recipe: MelRecipe) -> float:
    """Where among a recipe's mel bands a frequency lies; at a whole number it is the centre of that band.

    Notes
    -----
    Slaney's mel scale, as in librosa: linear up to 1 kHz (3 mel a 200 Hz), logarithmic above (27 mel a factor 6.4).
    Centres are spaced evenly between the edges of the range, which are the feet of the first and the last band.
    """
    low, here, high = (_mel(each) for each in (recipe.fmin_hz, hz, recipe.fmax_hz))
    return (here - low) / (high - low) * (recipe.n_mels + 1) - 1


def _mel(hz: float) -> float:
    return 3 * hz / 200 if hz < 1000 else 15 + 27 * float(np.log(hz / 1000) / np.log(6.4))
