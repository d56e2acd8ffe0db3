"""The README is short, and its figures are those that the scripts of benchmarks/ printed last."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"(?<![\w.-])\d+(?:\.\d+)?(?![\w-]|\.\d)")
FIGURES = re.search(r"\| measurement \| result \| source \|\n\|[-|]+\n((?:\|.*\n)+)", README)
assert FIGURES
DEMO = re.search(r"^\| input \|.*\n\|[-|]+\n((?:\|.*\n)+)", README, re.M)


def numbers(text: str) -> list[str]:
    """Return the numbers of a text; 23 105 is one."""
    return NUMBER.findall(re.sub(r"(?<=\d)[ ,](?=\d{3}\b)", "", text))


def missing(text: str, page: Path) -> list[str]:
    """Return the numbers of a text that no number of a page equals after rounding to the same decimals."""
    printed = {float(number) for number in numbers(page.read_text(encoding="utf-8"))}

    def found(number: str) -> bool:
        decimals = len(number.partition(".")[2])
        return any(f"{value:.{decimals}f}" == number for value in printed)

    return [number for number in numbers(text) if not found(number)]


@pytest.mark.parametrize("row", FIGURES[1].splitlines(), ids=lambda row: row.split("|")[1].strip())
def test_figures_are_in_the_file_that_the_row_links(row: str) -> None:
    _, _, result, source, _ = row.split("|")
    (target,) = re.findall(r"\]\(([^)]+)\)", source)
    (date,) = re.findall(r"\d{4}-\d{2}-\d{2}", source)
    page = ROOT / target
    assert missing(result, page) == []
    assert date in page.read_text(encoding="utf-8")


def test_the_table_of_the_demo_has_the_figures_of_its_benchmark() -> None:
    assert DEMO
    page = ROOT / "benchmarks" / "tables" / "demo.md"
    assert len(numbers(DEMO[1])) == 10
    assert missing(DEMO[1], page) == []
    ((date, _),) = re.findall(r"demo\.md\), (\d{4}-\d{2}-\d{2})(\))", README)
    assert date in page.read_text(encoding="utf-8")


def test_figures_of_the_default_preset_were_printed() -> None:
    (sentence,) = re.findall(
        r"The default model has .*?\(\[tables\]\(benchmarks/tables/paper\.md\)\)\.", README, re.DOTALL
    )
    assert len(numbers(sentence)) == 4
    assert missing(sentence, ROOT / "benchmarks" / "tables" / "paper.md") == []


def test_the_disk_space_of_the_demo_was_printed() -> None:
    (linked,) = re.findall(r"\[([^]]+)\]\(benchmarks/speed/install\.md\)", README)
    assert numbers(linked)
    assert missing(linked, ROOT / "benchmarks" / "speed" / "install.md") == []


def test_a_figure_that_was_not_printed_is_found(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("0.173 s, 23105 clips/s")
    assert missing("0.17 s, 0.18 s, 23 105 clips/s, 150 times", tmp_path / "page.md") == ["0.18", "150"]


def test_the_readme_has_at_most_150_lines_and_five_figures() -> None:
    assert len(README.splitlines()) <= 150
    assert FIGURES
    assert len(FIGURES[1].splitlines()) == 5
