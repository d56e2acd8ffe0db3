"""Charts: legends next to the plot, tick labels as plain text, colours for all kinds of colour vision."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest

from mgc.reports import ablation, charts
from mgc.reports.html import static

LINE_NAMES = ("first", "second", "third")

X = [float(epoch) for epoch in range(1, 21)]


def falling(top: float) -> list[float | None]:
    return [top * (1 - x / 21) for x in X]


def line_chart(n_lines: int, *, long: bool) -> None:
    names = [f"runs/{'a-long-name-of-a-run-' * long}{i}" for i in range(n_lines)]
    lines = {name: falling(1.0 + i) for i, name in enumerate(names)}
    charts.line_chart(X, lines, title="loss", y_label="nats", mark=(9.0, "best"))


def reliability_chart() -> None:
    bins = [
        {"low": i / 10, "high": (i + 1) / 10, "n": 9, "mean_score": i / 10 + 0.05, "observed": 1.0} for i in range(10)
    ]
    charts.reliability_chart(bins, title="reliability")


def sweep() -> None:
    cell = {"value": 0.6, "low": 0.5, "high": 0.7}
    rows = [{"name": str(x / 10), "metrics": dict.fromkeys(ablation.CURVES, cell)} for x in range(1, 10)]
    ablation._sweep({"title": "sweep", "reference": 0.3, "x_label": "lambda"}, rows)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: line_chart(3, long=False),
        lambda: line_chart(charts.MAX_LINES, long=True),
        reliability_chart,
        sweep,
    ],
    ids=["few lines", "many lines", "reliability", "sweep"],
)
def test_legends_do_not_overlap_curves_or_labels(draw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []

    def keep(figure: Any, title: str) -> str:
        figure.canvas.draw()
        for axes in figure.axes:
            if axes.get_legend() is not None:
                drawn.append((axes.get_legend().get_window_extent(), axes.get_window_extent()))
                labels = [label for label in (axes.xaxis.label, *axes.texts) if label.get_text()]
                assert not any(drawn[-1][0].overlaps(label.get_window_extent()) for label in labels)
        return ""

    monkeypatch.setattr(charts, "svg_text", keep)
    monkeypatch.setattr(ablation, "svg_text", keep)
    draw()
    assert drawn
    for legend, plot in drawn:
        assert not legend.overlaps(plot)


def test_a_logarithmic_axis_has_plain_tick_labels() -> None:
    """matplotlib labels powers of ten with math text, which a page would show as source."""
    chart = charts.line_chart(X, {"norm": [10.0**-x for x in X]}, title="t", y_label="norm", logarithmic=True)
    labels = re.findall(r"<text[^>]*>([^<]*)</text>", chart.svg)
    assert "1e-05" in labels
    assert not [label for label in labels if "$" in label or "\\" in label]


DEFICIENCIES = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
"""Linear RGB -> linear RGB as seen; Machado, Oliveira and Fernandes (2009), severity 1.0."""


def lab(colour: str, seen_as: Any) -> Any:
    """Return CIELAB (D65) of ``#rrggbb`` after a 3 x 3 matrix in linear RGB."""
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = to_xyz @ np.clip(np.asarray(seen_as) @ linear, 0, 1) / np.array([0.95047, 1.0, 1.08883])
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("vision", DEFICIENCIES)
def test_line_colours_are_distinct_with_colour_vision_deficiencies(vision: str, scheme: int) -> None:
    """CIE76 distances of at least 20, about ten times the smallest visible one."""
    css = static("colours.css").split("@media")[scheme]
    colours = [lab(dict(re.findall(r"--(\w+): (#\w+);", css))[name], DEFICIENCIES[vision]) for name in LINE_NAMES]
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(colours, 2)]
    assert min(distances) >= 20
