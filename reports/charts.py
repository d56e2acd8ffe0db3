"""Charts as inline SVG, drawn by matplotlib and coloured by the style sheet of the page.

matplotlib draws with stand-in colours. CSS variables replace them, so the same chart is readable on light and dark
pages. Text remains text, and a chart has no external references.
"""

from __future__ import annotations

import contextlib
import html
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..cache.distribution import explain_missing_extra
from ..cache.errors import MissingExtraError
from ..cache.format.mel_scale import hz_to_mel
from ..cache.format.recipe import MelRecipe
from .store_survey import Histogram, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

STAND_INS = {
    "#010101": "var(--ink)",
    "#020202": "var(--faint)",
    "#030303": "var(--first)",
    "#040404": "var(--second)",
    "#050505": "var(--third)",
}
"""Colour in matplotlib -> CSS variable of the page."""
INK, FAINT, *LINES = STAND_INS

HEAT_RGB = (0.0, 0.45, 0.70)
"""Colour of heat maps; the weight is the opacity, so 0 has the colour of the page."""
COLOUR_MAP, N_COLOURS = "magma", 64
"""Colour map of mel spectrograms."""
RANGE_DB = 80.0
TICKS_HZ = (200, 500, 1000, 2000, 5000, 10_000, 20_000)
MAX_COLUMNS = 440
"""Maximum width of a spectrogram; more frames are averaged per column."""

_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}
MAX_NAME = 28
_STYLES = ("-", "--", ":")
MAX_LINES = len(LINES) * len(_STYLES)
"""Maximum number of lines in one chart, each with its own colour and style."""


class Chart(NamedTuple):
    """A chart: title and ``<svg>`` element, with colours and font from the page."""

    title: str
    svg: str


def line_chart(
    epochs: Sequence[float],
    lines: Mapping[str, Sequence[float | None]],
    *,
    title: str,
    y_label: str,
    mark: tuple[float, str] | None = None,
    unit_range: bool = False,
    logarithmic: bool = False,
) -> Chart:
    """Draw up to :data:`MAX_LINES` lines per epoch, with a legend below.

    None leaves a gap in a line; `mark` is the position and name of a vertical line.
    """
    with drawing(title, 4.4, 3.0) as (figure, axes):
        for i, (name, y) in enumerate(lines.items()):
            values = [np.nan if value is None else value for value in y]
            colour, style = LINES[i % len(LINES)], _STYLES[(i + i // len(LINES)) % len(_STYLES)]
            marker = "." if len(epochs) < 3 else ""
            axes.plot(epochs, values, color=colour, label=name, linestyle=style, marker=marker)
        if mark is not None:
            axes.axvline(mark[0], color=FAINT, linewidth=1)
            name_above(axes, *mark)
        axes.set(xlabel="epoch", ylabel=y_label)
        if logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")  # powers of ten would need math text
        else:
            axes.set_ylim(0, 1 if unit_range else None)
        axes.locator_params(axis="x", integer=True)
        axes.grid()
        ncols = 2 if max(map(len, lines), default=0) <= MAX_NAME else 1
        axes.legend(ncols=ncols, loc="upper left", bbox_to_anchor=(0, -0.22), borderaxespad=0)
        return Chart(title, svg_text(figure, title))


def reliability_chart(bins: Sequence[Mapping[str, float | None]], *, title: str) -> Chart:
    """Draw the observed share of positives against the mean score of each bin, and below the number of scores per bin.

    Each bin has ``low``, ``high``, ``n``, ``mean_score`` and ``observed``.
    """
    filled = [(part["mean_score"], part["observed"]) for part in bins if part["n"]]
    with drawing(title, 4.4, 3.9) as (figure, axes):
        axes.remove()
        top, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        top.plot([0, 1], [0, 1], color=FAINT, linewidth=1, label="perfect calibration")
        x, y = ([point[axis] for point in filled] for axis in (0, 1))
        top.plot(x, y, color=LINES[0], marker="o", markersize=4, label="this model")
        top.set(ylim=(-0.03, 1.03), ylabel="share of positives")
        top.grid()
        top.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1.01), borderaxespad=0)
        edges, heights = ([float(part[key] or 0) for part in bins] for key in ("low", "n"))
        width = 1 / max(1, len(bins))
        below.bar(edges, heights, width=width, align="edge", color=LINES[0], edgecolor=FAINT, linewidth=0.4)
        below.set(
            yscale="log", ylim=(0.8, None), ylabel="number of scores", xlim=(-0.01, 1.01), xlabel="score (0 to 1)"
        )
        below.yaxis.set_major_formatter(_thousands)  # names of powers would need math text
        figure.align_ylabels()
        return Chart(title, svg_text(figure, title))


def heat_map(names: Sequence[str], weights: FloatArray, *, title: str, x_label: str, y_label: str, unit: str) -> Chart:
    """Draw a (C, C) matrix with labelled rows and columns, without its diagonal."""
    n = len(names)
    off_diagonal = np.where(np.eye(n, dtype=bool), np.nan, np.asarray(weights, dtype=np.float64))
    top = float(np.nanmax(off_diagonal, initial=0.0)) or 1.0
    short = [_shortened(name) for name in names]
    cell_in = 0.3 if n <= 25 else 0.13
    side_in = n * cell_in + 2.2
    with drawing(title, side_in, side_in) as (figure, axes):
        axes.imshow(_opacities(off_diagonal / top), interpolation="none")
        axes.plot([-0.5, n - 0.5], [-0.5, n - 0.5], color=FAINT, linewidth=0.6)
        axes.set_xticks(range(n), short, rotation=90)
        axes.set_yticks(range(n), short)
        axes.tick_params(labelsize=9 if n <= 25 else 7, length=2)
        axes.set(xlabel=x_label, ylabel=y_label)
        box = axes.get_position()
        key = figure.add_axes((box.x0, box.y1 + 0.3 / side_in, 1.6 / side_in, 0.1 / side_in))
        scale = _opacities(np.linspace(0, 1, 64)[None, :])
        key.imshow(scale, interpolation="none", aspect="auto", extent=(0.0, top, 0.0, 1.0))
        key.set_yticks([])
        key.set_xticks([0, top], ["0", f"{top:.2g}"])
        key.set_title(unit, fontsize=8)
        return Chart(title, svg_text(figure, title))


def histogram_chart(histogram: Histogram, *, title: str, x_label: str, mark: tuple[float, str] | None = None) -> Chart:
    """Draw the number of tracks per bin; `mark` is the position and name of a vertical line."""
    end = histogram.edges[-1] * 1.05
    with drawing(title, 4.4, 2.8) as (figure, axes):
        axes.bar(histogram.edges[:-1], histogram.counts, width=np.diff(histogram.edges), align="edge", color=LINES[0])
        if mark is not None and mark[0] <= end:
            axes.axvline(mark[0], color=LINES[1], linewidth=1.2, linestyle="--")
            name_above(axes, *mark)
        axes.set(xlim=(0, end), xlabel=x_label, ylabel="number of tracks")
        axes.locator_params(axis="y", integer=True)
        axes.yaxis.set_major_formatter(_thousands)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        return Chart(title, svg_text(figure, title))


def bar_chart(
    rows: Mapping[str, Sequence[int]], parts: Sequence[str], *, title: str, x_label: str, y_label: str
) -> Chart:
    """Draw one horizontal bar per name, stacked from up to four `parts` and annotated with its length."""
    lengths = np.asarray(list(rows.values()), dtype=np.float64).reshape(len(rows), len(parts))
    ends = lengths.cumsum(axis=1)
    with drawing(title, 3.6, 0.19 * len(rows) + 0.9) as (figure, axes):
        for part, colour, length, end in zip(parts, (*LINES, FAINT), lengths.T, ends.T, strict=False):
            axes.barh(range(len(rows)), length, left=end - length, height=0.75, color=colour, label=part)
        for y, end in enumerate(ends[:, -1]):
            axes.annotate(f"{end:,.0f}", (end, y), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_yticks(range(len(rows)), map(_shortened, rows))
        longest = ends[:, -1].max() or 1
        axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(0, longest * 1.12), xlabel=x_label, ylabel=y_label)
        axes.locator_params(axis="x", integer=True, nbins=5)
        axes.xaxis.set_major_formatter(_thousands)
        axes.tick_params(axis="y", length=0)
        if len(parts) > 1:
            spacing = {"handlelength": 1, "columnspacing": 1}
            axes.legend(ncols=len(parts), loc="lower center", bbox_to_anchor=(0.5, 1), **spacing)
        return Chart(title, svg_text(figure, title))


def mel_chart(picture: Picture, recipe: MelRecipe, top_db: float) -> Chart:
    """Draw a mel spectrogram over seconds and Hz, with colours from `top_db` to 80 dB below."""
    title = picture.id if picture.genre is None else f"{picture.genre}: {picture.id}"
    mel, n_frames = columns_averaged(picture.mel), picture.mel.shape[1]
    seconds = n_frames * recipe.hop_length / recipe.sample_rate_hz
    with drawing(title, 4.4, 2.6) as (figure, axes):
        _show(axes, _colours(mel, top_db), (0, seconds, -0.5, recipe.n_mels - 0.5))
        inside = [hz for hz in TICKS_HZ if recipe.fmin_hz <= hz <= recipe.fmax_hz]
        axes.set_yticks([band_of(hz, recipe) for hz in inside], [f"{hz:,}" for hz in inside])
        frequency = f"frequency (Hz), {recipe.n_mels} mel bands"
        axes.set(ylim=(-0.5, recipe.n_mels - 0.5), xlabel="time (s)", ylabel=frequency)
        key = axes.inset_axes((1.03, 0, 0.03, 1))
        scale = np.linspace(top_db - RANGE_DB, top_db, N_COLOURS, dtype=np.float32)[:, None]
        _show(key, _colours(scale, top_db), (0, 1, top_db - RANGE_DB, top_db))
        key.set_xticks([])
        key.yaxis.tick_right()
        key.yaxis.set_label_position("right")
        key.yaxis.set_major_formatter(lambda value, _: f"{value:.0f}".replace("-", "−"))
        key.set_ylabel("level (dB re 1.0)", color=INK)
        return Chart(title, svg_text(figure, title))


@contextlib.contextmanager
def drawing(title: str, width_in: float, height_in: float) -> Iterator[tuple[Figure, Axes]]:
    """Open a figure and its axes in the style of all charts, for :func:`svg_text`.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed (extra ``report``).
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(explain_missing_extra("report", "matplotlib")) from error
    style: Any = {**_STYLE, "svg.hashsalt": title}  # matplotlib's own type of it differs between versions
    # Genre names can be in any script. The browser draws the text, so fonts missing in matplotlib do not matter.
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width_in, height_in))
        yield figure, figure.add_subplot()


def svg_text(figure: Figure, title: str) -> str:
    """Return the figure as an ``<svg>`` element with colours and font from the page."""
    out = io.StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(xmlns(:xlink)?|version)="[^"]*"', "", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"font-family: [^;\"]*; ?", "", svg)
    for stand_in, variable in STAND_INS.items():
        svg = svg.replace(stand_in, variable)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)


def columns_averaged(mel: Float32) -> Float32:
    """Average (n_mels, n_frames) in dB to at most `MAX_COLUMNS` columns."""
    n_frames = mel.shape[1]
    step = -(-n_frames // MAX_COLUMNS)
    starts = np.arange(0, n_frames, step)
    sums, sizes = np.add.reduceat(mel, starts, axis=1), np.diff(np.append(starts, n_frames))
    return (sums / sizes).astype(np.float32)


def band_of(hz: float, recipe: MelRecipe) -> float:
    """Return the fractional mel band index of a frequency; whole numbers are band centres.

    Notes
    -----
    Centres are evenly spaced in mel. The ends of the range are the outer edges of the first and last band.
    """
    low, mel, high = (hz_to_mel(value) for value in (recipe.fmin_hz, hz, recipe.fmax_hz))
    return (mel - low) / (high - low) * (recipe.n_mels + 1) - 1


def name_above(axes: Axes, x: float, name: str) -> None:
    """Write a name above the plot at `x`."""
    place: Any = {"xycoords": ("data", "axes fraction"), "xytext": (0, 2), "textcoords": "offset points"}
    axes.annotate(name, (x, 1), ha="center", fontsize=8, **place)


def _shortened(name: str) -> str:
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…"


def _thousands(value: float, _: object) -> str:
    return f"{value:,.0f}"


def _show(axes: Axes, picture: npt.NDArray[np.uint8], extent: tuple[float, float, float, float]) -> None:
    axes.imshow(picture, origin="lower", aspect="auto", interpolation="none", extent=extent)


def _opacities(shares: FloatArray) -> FloatArray:
    """Map (...,) in [0, 1] or NaN to (..., 4) RGBA; the square root makes small weights visible."""
    rgba = np.empty((*shares.shape, 4))
    rgba[..., :3] = HEAT_RGB
    rgba[..., 3] = np.sqrt(np.clip(np.nan_to_num(shares), 0, 1))
    return rgba


def _colours(mel_db: Float32, top_db: float) -> npt.NDArray[np.uint8]:
    """Map dB to RGBA."""
    from matplotlib import colormaps

    share = np.clip((mel_db - (top_db - RANGE_DB)) / RANGE_DB, 0, 1)
    rgba: npt.NDArray[np.uint8] = colormaps[COLOUR_MAP].resampled(N_COLOURS)(share, bytes=True)
    return rgba
