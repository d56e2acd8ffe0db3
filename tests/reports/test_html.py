"""Pages in a browser: tables that sort and filter, contents, print, light and dark schemes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import mgc.reports.html
from benchmarks.chromium import Chromium
from mgc.cache.errors import MissingExtraError
from mgc.reports.charts import Chart, bar_chart
from mgc.reports.html import environment, render, static

GENRES = (("rock", 120, 0.71), ("1,000 drums", 7, None), ("80s", 1_500, 0.25), ("<i>Ödland</i>", 33, 0.9))
UNQUOTED = re.compile(r"=[^\"'\s<>{}]+(?:\{%[^%]*%\})?/>")
KEYS = {"Tab": (9, ""), "Enter": (13, "\r")}


LONG_TABLE = """
{% set heads = ["a name"] + ["column"] * 20 %}
{{ table(heads, [["x" * 60] + ["0.123"] * 20] * 60, about="l", tall=true) }}
"""
BODY = (
    """
{{ section("Genres") }}
{% set heads = ["genre", "tracks", "average precision"] %}
{% call(row) table(heads, genres, about="genres", sortable=true, find="Find a genre") %}
{% set name, n, precision = row %}
<th scope=row>{{ name }}</th><td>{{ n | thousands }}</td>
<td data-sort="{{ "–" if precision is none else precision }}">{{ bar(precision) }}</td>
{% endcall %}
{{ section("Long") }}
"""
    + LONG_TABLE
    + "{% call details('More') %}"
    + LONG_TABLE
    + "{% endcall %}{% call figure(chart) %}{{ 's' * 200 }}{% endcall %}"
)
SVG = '<svg width="900" height="40"><rect width="900" height="40"/></svg>'


def page(title: str, body: str, **context: object) -> str:
    """Render a page with a body given as template source."""
    macros = '{% from "macros.html" import bar, details, figure, section, table with context %}'
    source = f'{{% extends "page.html" %}}{macros}{{% block body %}}{body}{{% endblock %}}'
    return environment().from_string(source).render(context, title=title, headings=[])


def colours() -> dict[str, tuple[str, str]]:
    """Return name -> colour in the light and in the dark scheme."""
    light, dark = (dict(re.findall(r"--(\w+): (#\w+);", part)) for part in static("colours.css").split("@media"))
    return {name: (light[name], dark[name]) for name in light}


COLOURS, STYLE = colours(), static("report.css")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    out = tmp_path / "page.html"
    out.write_text(page("w" * 300, BODY, genres=GENRES, chart=Chart("A figure", SVG)), encoding="utf-8")
    return out


FIRST_COLUMN = "[...document.querySelectorAll('.sortable tbody tr:not([hidden]) th')].map((th) => th.textContent)"
SORTED = "[...document.querySelectorAll('.sortable thead th')].map((th) => th.getAttribute('aria-sort'))"


def test_tables_sort_by_number_and_name_with_missing_values_last(browser: Chromium, written: Path) -> None:
    tab = browser.open(written)

    def click(column: int) -> list[str]:
        tab.run(f"document.querySelectorAll('.sortable thead th button')[{column}].click()")
        return list(tab.run(FIRST_COLUMN))

    assert tab.run(SORTED) == [None, None, None]
    assert click(1) == ["80s", "rock", "<i>Ödland</i>", "1,000 drums"]
    assert click(1) == ["1,000 drums", "<i>Ödland</i>", "rock", "80s"]
    assert tab.run(SORTED) == [None, "ascending", None]
    assert click(2) == ["<i>Ödland</i>", "rock", "80s", "1,000 drums"]
    assert click(2) == ["80s", "rock", "<i>Ödland</i>", "1,000 drums"]
    assert click(0) == ["<i>Ödland</i>", "1,000 drums", "80s", "rock"]
    assert tab.run(SORTED) == ["ascending", None, None]
    assert tab.errors == []


def test_tables_sort_and_filter_with_the_keyboard_only(browser: Chromium, written: Path) -> None:
    tab = browser.open(written)
    reached = []
    for _ in range(12):
        tab.press("Tab", *KEYS["Tab"])
        reached.append(tab.run("document.activeElement.tagName + ' ' + document.activeElement.textContent.trim()"))
        if reached[-1] == "BUTTON tracks":
            tab.press("Enter", *KEYS["Enter"])
        if reached[-1].startswith("INPUT"):
            tab.type("D")
    assert tab.run(FIRST_COLUMN) == ["<i>Ödland</i>", "1,000 drums"]
    assert tab.run("document.querySelector('.find output').value") == "2 of 4 rows"
    assert tab.run(SORTED) == [None, "descending", None]
    assert {"A Genres", "BUTTON genre", "SUMMARY More"} <= set(reached)
    assert tab.run("document.querySelector('.tall').tabIndex") == 0  # a box that scrolls is focusable
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert tab.run(outline) == "solid"
    tab.run("document.querySelector('.find input').focus()")
    tab.press("Backspace", 8)
    assert len(tab.run(FIRST_COLUMN)) == 4
    assert tab.errors == []


@pytest.mark.parametrize("dark", [False, True])
def test_pages_fit_a_phone_and_follow_the_colour_scheme(browser: Chromium, written: Path, dark: bool) -> None:
    tab = browser.open(written, width=360, height=740, dark=dark)
    assert tab.run("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    ground = tab.run("getComputedStyle(document.body).backgroundColor")
    assert "#{:02x}{:02x}{:02x}".format(*map(int, re.findall(r"\d+", ground))) == COLOURS["page"][dark]
    assert tab.errors == []


def test_contents_stay_visible_on_wide_screens_and_are_hidden_in_print(browser: Chromium, written: Path) -> None:
    tab = browser.open(written, width=1280, height=700)
    place = "(({top, left, right}) => [top, left, right])(document.querySelector('nav').getBoundingClientRect())"
    assert tab.run("document.querySelector('nav b').textContent") == "Contents"
    before = tab.run(place)
    assert before[2] <= tab.run("document.querySelector('main').getBoundingClientRect().left")
    tab.run("window.scrollTo(0, 600)")
    top, left, right = tab.run(place)
    assert (left, right) == tuple(before[1:])
    assert 0 <= top <= 100
    tab.send("Emulation.setEmulatedMedia", media="print")
    assert tab.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert tab.run("getComputedStyle(document.querySelector('.tall')).maxHeight") == "none"
    tab.close()


def test_pages_are_complete_without_scripts_and_have_no_dead_controls(browser: Chromium, written: Path) -> None:
    tab = browser.open(written, scripts=False)
    tab.send("Emulation.setScriptExecutionDisabled", value=False)
    assert tab.run(FIRST_COLUMN) == [name for name, *_ in GENRES]
    assert tab.run("document.querySelectorAll('button, input').length") == 0


def test_content_security_policy_blocks_scripts_of_others(browser: Chromium, tmp_path: Path) -> None:
    out = tmp_path / "bad.html"
    out.write_text(page("bad", "<script>document.title = 'owned'</script><p onclick=x()>y</p>"), encoding="utf-8")
    tab = browser.open(out)
    assert tab.run("document.title") == "bad (mgc)"
    assert any("Content Security Policy" in error for error in tab.errors)


@pytest.mark.parametrize("module", ["jinja2", "matplotlib"])
def test_missing_library_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    environment.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        MissingExtraError,
        match=rf"'report' is not installed \(no module '{module}'\)\. Run: pip install 'mgc-music\[report\]'",
    ):
        render("page.html", title="", chart=bar_chart({"rock": [1]}, ["tracks"], title="", x_label="", y_label=""))


def _luminance(colour: str) -> float:
    """Relative luminance of WCAG 2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_and_lines_have_enough_contrast(scheme: int) -> None:
    """At least 4.5 to 1 for text, 3 to 1 for lines and bars (WCAG 2, level AA)."""
    assert _contrast("#ffffff", "#000000") == pytest.approx(21)
    texts = set(re.findall(r"[^-]color: var\(--(\w+)\)", STYLE))
    assert texts == {"ink", "muted", "first"}
    for ground in ("page", "soft"):
        for name in texts:
            assert _contrast(COLOURS[name][scheme], COLOURS[ground][scheme]) >= 4.5
        for name in ("first", "second", "third"):
            assert _contrast(COLOURS[name][scheme], COLOURS[ground][scheme]) >= 3


def test_self_closed_elements_have_no_unquoted_last_attribute() -> None:
    """HTML takes the slash of ``class=name/>`` for a part of the value, and so leaves the element open."""
    folder = Path(mgc.reports.html.__file__).parent / "templates"
    found = [f"{path.name}: {match[0]}" for path in folder.glob("*") for match in UNQUOTED.finditer(path.read_text())]
    assert found == []
    assert UNQUOTED.search("<rect class=against/>")
    assert UNQUOTED.search("<rect{% if x %} class=against{% endif %}/>")
