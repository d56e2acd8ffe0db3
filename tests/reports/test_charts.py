"""Charts of the pages: what they are made of must not hide their curves."""

from __future__ import annotations

from typing import Any

import pytest

from mgc.reports import ablation, charts

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
def test_a_legend_lies_outside_what_it_explains(draw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []

    def keep(figure: Any, title: str) -> str:
        figure.canvas.draw()
        for axes in figure.axes:
            if axes.get_legend() is not None:
                drawn.append((axes.get_legend().get_window_extent(), axes.get_window_extent()))
                written = [one for one in (axes.xaxis.label, *axes.texts) if one.get_text()]
                assert not any(drawn[-1][0].overlaps(one.get_window_extent()) for one in written), "over words"
        return ""

    monkeypatch.setattr(charts, "svg_text", keep)
    monkeypatch.setattr(ablation, "svg_text", keep)
    draw()
    assert drawn
    for legend, plot in drawn:
        assert not legend.overlaps(plot)
