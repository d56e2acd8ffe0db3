"""Test that docs/bad-input.md has a row for each reason code and flag, with tests that exist and check it."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from mgc.cache.format.schema import Flag, Reason

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "bad-input.md").read_text(encoding="utf-8")
TABLE = re.compile(r"^\| input \| outcome \| tests \|\n\|[-|]+\n((?:\|.*\n)+)", re.M)
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split(" | "))
    for body in TABLE.findall(PAGE)
    for line in body.splitlines()
]
CODES = {*(flag.name for flag in Flag), *(reason.value for reason in Reason)}


def codes(outcome: str) -> set[str]:
    return set(re.findall(r"`([A-Z]+(?:_[A-Z]+)*)`", outcome))


@cache
def functions_of(file: str) -> dict[str, str]:
    """Return the source of each test function of a file, including its decorators."""
    source = (ROOT / file).read_text(encoding="utf-8")
    lines = source.splitlines()
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    first = {node.name: min([node.lineno, *(each.lineno for each in node.decorator_list)]) for node in functions}
    return {node.name: "\n".join(lines[first[node.name] - 1 : node.end_lineno]) for node in functions}


def test_rows_cover_exactly_the_reason_codes_and_flags() -> None:
    assert set().union(*(codes(outcome) for _, outcome, _ in ROWS)) == CODES
    assert PAGE.count("\n| ") - len(TABLE.findall(PAGE)) == len(ROWS)


@pytest.mark.parametrize(("outcome", "tests"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_tests_of_a_row_exist_and_mention_its_codes(outcome: str, tests: str) -> None:
    listed = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", tests)
    assert listed
    assert len(listed) == tests.count("`") / 2
    bodies = [functions_of(file).get(name) or pytest.fail(f"{file} has no test {name}") for file, name in listed]
    unmentioned = {code for code in codes(outcome) if not any(re.search(rf"\b{code}\b", body) for body in bodies)}
    assert unmentioned == set()
