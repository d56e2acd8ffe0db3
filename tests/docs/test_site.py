"""The site: pages of commands, codes and messages agree with the code, and terms are linked to the glossary."""

from __future__ import annotations

import ast
import importlib
import inspect
import posixpath
import re
import shlex
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from mgc import cli
from mgc.cache.format.schema import Flag, Reason

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
ROOMS = ("api", "cache", "commands", "heads", "launcher", "pipeline", "reports")


@pytest.fixture(scope="module")
def site() -> Any:
    """The hooks of mkdocs, imported as mkdocs does."""
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module("site_pages")
    finally:
        sys.path.remove(str(DOCS))


@pytest.fixture(scope="module")
def command_pages(site: Any) -> dict[str, str]:
    pages: dict[str, str] = site.command_pages()
    return pages


def leaves(command: Any = None, name: str = "mgc") -> dict[str, Any]:
    """Full name -> command, without groups."""
    command = command or get_command(cli.app)
    children = getattr(command, "commands", None)
    if not children:
        return {name: command}
    return {full: leaf for child, sub in children.items() for full, leaf in leaves(sub, f"{name} {child}").items()}


def test_each_command_has_a_page_with_its_options_and_examples(command_pages: dict[str, str]) -> None:
    assert len(command_pages) == len(leaves()) + 1
    for name, command in leaves().items():
        page = command_pages[f"commands/{'-'.join(name.split()[1:])}.md"]
        assert page.startswith(f"# {name}\n")
        visible = [param for param in command.params if not param.hidden]
        options = {option for param in visible if param.param_type_name == "option" for option in param.opts}
        rows = re.findall(r"^\| (`-.*?`)(?:<br>.*?)? \|", page, re.MULTILINE)
        assert set(re.findall(r"`([^`]+)`", " ".join(rows))) == options | {"--help"}, name
        assert page.count("| `--help`") == 1
        (examples,) = re.findall(r"## Examples\n\n```sh\n(.*?)\n```", page, re.DOTALL)
        for line in examples.splitlines():
            words = shlex.split(line)
            start = words.index("mgc")
            assert " ".join(words[start : start + len(name.split())]) == name, line
            given = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert given <= options, line


def test_exit_codes_of_a_page_are_those_that_its_command_exits_with(command_pages: dict[str, str], site: Any) -> None:
    for name, command in leaves().items():
        page = command_pages[f"commands/{'-'.join(name.split()[1:])}.md"]
        function = inspect.unwrap(command.callback)
        source = inspect.getsource(function)
        for helper in re.findall(r"^    (_\w+)\(", source, re.MULTILINE):  # such as _finish, of predict and tag
            source += inspect.getsource(function.__globals__[helper])
        raised = set(re.findall(r"typer\.Exit\((\d)\)", source))
        assert set(sys.modules[site.command_pages.__module__].EXIT_CODES.get(name, {})) == raised, name
        assert raised | {"0", "1", "2"} == set(re.findall(r"^\| (\d) \|", page, re.MULTILINE)), name


def test_troubleshooting_has_every_reason_and_flag(site: Any) -> None:
    text = site.fill((DOCS / "troubleshooting.md").read_text(encoding="utf-8"))
    titles = re.findall(r"^### ([A-Z_]+)$", text, re.MULTILINE)
    assert titles == [*(reason.value for reason in Reason), *(flag.name for flag in site.FLAG_MEANINGS)]
    assert {flag.name for flag in Flag} <= set(titles)


@cache
def texts_of_the_code() -> list[str]:
    """Every string of the package, with ... for what an f-string inserts."""
    texts = []
    for path in [ROOT / "cli.py", *(path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")))]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values]
                texts.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


MESSAGES = re.findall(r"^#### `(.+)`$", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("message", MESSAGES)
def test_an_error_message_of_the_page_exists_in_the_code(message: str) -> None:
    assert any(message in text for text in texts_of_the_code())


def test_there_are_error_messages_on_the_page() -> None:
    assert len(MESSAGES) >= 20


def test_every_page_is_in_one_of_four_sections(command_pages: dict[str, str]) -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    (home, *sections) = settings["nav"]
    assert home == {"Home": "index.md"}
    assert [next(iter(section)) for section in sections] == ["Tutorial", "How-to guides", "Reference", "Explanation"]
    listed = re.findall(r"[\w/-]+\.md", str(sections))
    assert len(listed) == len(set(listed))
    written = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - {"index.md"}
    assert written | set(command_pages) <= set(listed)


def test_terms_of_the_glossary_are_in_order_and_each_is_on_a_page(site: Any) -> None:
    titles = re.findall(r"^## (.+)$", (DOCS / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert titles == sorted(titles, key=str.lower)
    pages = "\n".join(site.link_terms((DOCS / name).read_text(encoding="utf-8"), "glossary.md") for name in PAGES)
    linked = set(re.findall(r'\(glossary\.md#([\w-]+) "Glossary"\)', pages))
    rare = {"Commit record", "Generation", "Plan", "Status", "Run", "Sealed store"}  # some stand in code or links only
    assert {title.lower().replace(" ", "-") for title in titles if title not in rare} - linked == set()


def test_the_first_use_of_a_term_is_linked_outside_code_headings_and_links(site: Any) -> None:
    text = (
        "# Tracks\n\n`track` <!-- track --> [a track](x.md)\n\n```sh\ntrack\n```\n\nA track, two tracks, feature sets."
    )
    assert site.link_terms(text, "../glossary.md") == text.replace(
        "A track,", 'A [track](../glossary.md#track "Glossary"),'
    ).replace("feature sets", '[feature sets](../glossary.md#feature-set "Glossary")')


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{name}" for name in PAGES)])
def test_sizes_have_decimal_units(page: str) -> None:
    """1 MB is 10^6 bytes and 1 GB 10^9, on pages as in what commands print."""
    assert re.findall(r"\b\d*[KMGT]iB\b", (ROOT / page).read_text(encoding="utf-8")) == []


def test_links_of_generated_pages_lead_to_pages(site: Any, command_pages: dict[str, str]) -> None:
    roots = {name: site.from_root(name) for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")}
    pages = {**command_pages, **{site.ELSEWHERE[name]: text for name, text in roots.items()}}
    known = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} | {*pages, *site.ELSEWHERE.values()}
    for page, text in pages.items():
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
            assert path in known, f"{page}: {target}"


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{name}" for name in PAGES)])
def test_commands_and_python_stand_in_blocks_that_the_tests_run(page: str) -> None:
    """The tests run fenced blocks that begin at the margin, and no indented lines."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert re.findall(r"^(?: {4}|\t)\$? ?(?:mgc|python|pip) .*$|^ +```(?:sh|bash|python)$", text, re.MULTILINE) == []
