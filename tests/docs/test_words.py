"""No page, help text, report template, message, docstring or comment has a word that the terms of this project replace.

The field says audio, lyrics, modality, confidence interval; the first forms of these texts had everyday words instead.
Code, file names, links and comments for maintainers are not read here.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from source_tree import ROOMS, source_files
from typer.main import get_command

from mgc import cli

ROOT = Path(__file__).parents[2]

BANNED = {
    # modalities
    r"sounds?": "audio",
    r"(?:words|one part|text) alone": "lyrics only",
    r"words and (?:audio|sound|labels)|(?:audio|sound) and words": "audio and lyrics",
    # feature sets and extractors
    r"features? (?:sets? )?that (?:join|joined|joins)|let [\w ]+ join|joins? (?:a|the) store": "add a feature set",
    r"joined with `?--add": "added feature set",
    r"(?:somebody|someone|other people|anybody)(?: else)?'s": "extractor plug-in; name the owner",
    r"read aloud": "genre name prompt",
    # placement
    r"homes?(?! (?:folder|directory))": "feature placement",
    # people and data
    r"(?:not|never|nobody has) heard": "unseen, held-out",
    r"nobody|somebody": "name the person or program",
    r"unheard": "unseen, held-out",
    r"always the usual": "always the most frequent genres",
    # statistics
    r"undecided|are decided|is decided whether": "not significant (95 % CI includes 0)",
    r"thresholds? a genre": "per-genre thresholds",
    # damage and repair
    r"mend(?:s|ed|ing)?": "repair, fix",
    r"hurt": "damaged",
    # programs report, print, list; they do not speak
    r"tells?|told": "report, print, list, show",
    r"says?|said|saying": "report, print, state",
    r"hears?|heard": "use, read",
    r"of kin": "related",
    r"what became of|what is said of": "outcome",
    # idioms
    r"beside": "next to, with",
    r"takes? out|taken out|taking out|takes? away": "remove, delete, hide",
    r"goes on|go on|went on|going on": "continue",
    r"tr(?:y|ies|ied) again": "retry",
    r"costs? (?:itself|themselves|its own)": "fails on its own",
    r"as if nothing had happened": "identical to an undisturbed run",
    r"where it comes from": "provenance",
    r"taken for which": "confusion (predicted instead of)",
    r"got most wrong": "worst predictions",
    r"find each other": "cross-modal retrieval",
    r"for good": "permanently",
    r"anew": "again",
    r"by the thousand": "a number",
    r"at hand": "available",
    r"built-in world|benchmark world|built-in collection": "generated demo collection, synthetic benchmark",
    r"honest(?:ly)?": "state the limitation",
    r"trainings": "training runs",
    # rates: "per", not "a"
    r"(?:rows?|columns?|lines?|chunks?|files?|records?|processes|threads?|seconds?|minutes?|hours?|bytes?|labels?|songs?|"
    r"tracks?|thresholds?|intervals?|seeds?|shards?|steps?|s|ms|kB|MB|GB|MiB|GiB) an? "
    r"(?:row|track|song|clip|genre|artist|epoch|step|core|batch|part|run|worker|second|minute|hour|stage|node|machine|"
    r"page|shard|fold|task|job|file|seed|configuration)": "per",
}
"""Pattern of whole words -> what to write. Case does not matter."""

ALLOWED: dict[str, dict[str, str]] = {
    "cache/format/schema.py": {"sound": "the description of an array, which stores contain"},
    "heads/evaluation/evaluate.py": {"sound": "keys of metrics.json"},
    "pipeline/synth/lyrics.py": dict.fromkeys(("home", "nobody", "tell", "told", "say"), "words of generated lyrics"),
    "reports/run.py": {"sound": "keys of metrics.json"},
}
"""Page -> phrase that it may have -> reason."""

PAGES = [
    *(
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "examples/README.md",
        "benchmarks/README.md",
        "tests/README.md",
    ),
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")),
    *(f"{room}/README.md" for room in ROOMS),
    *sorted(path.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).glob("*/README.md")),
]


def prose(text: str) -> str:
    """Return Markdown without code, comments, link targets and HTML tags; lines stay where they are."""
    code = (r"```.*?```", r"``[^`]+``", r"`[^`\n]*(?:\n[^`\n]+)?`")
    for pattern in (*code, r"<!--.*?-->", r"\]\([^)]*\)", r"<[^>]+>", r"https?://\S+"):
        text = re.sub(pattern, lambda found: "\n" * found[0].count("\n") or " ", text, flags=re.S)
    return text


def findings(text: str, allowed: frozenset[str] = frozenset()) -> list[str]:
    """List the banned words of a text with their lines and what to write instead."""
    found = []
    for pattern, instead in BANNED.items():
        words = pattern.replace(" ", r"\s+")
        for match in re.finditer(rf"(?<![\w-])(?:{words})(?![\w-])", text, re.I):
            phrase = " ".join(match[0].split())
            if phrase.lower() not in allowed:
                found.append(f"line {text.count(chr(10), 0, match.start()) + 1}: {phrase!r}; write: {instead}")
    return found


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_no_banned_word(page: str) -> None:
    assert findings(prose((ROOT / page).read_text(encoding="utf-8")), frozenset(ALLOWED.get(page, {}))) == []


@pytest.mark.parametrize("notebook", sorted(path.name for path in (ROOT / "examples").glob("*.ipynb")))
def test_a_notebook_has_no_banned_word(notebook: str) -> None:
    cells = json.loads((ROOT / "examples" / notebook).read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    assert texts
    assert findings(prose("\n".join(texts))) == []


def test_banned_words_are_found_and_code_is_not_read() -> None:
    text = "It tells the\nsound of one row a track.\n```sh\nhear\n```\n`said` [words](sound.md) libsndfile\n"
    assert [line.partition(";")[0] for line in findings(prose(text))] == [
        "line 2: 'sound'",
        "line 1: 'tells'",
        "line 2: 'row a track'",
    ]


def helps() -> Iterator[tuple[str, str]]:
    """Yield the name and the texts of every command: its help and that of its options and arguments."""

    def walk(name: str, command: click.Command) -> Iterator[tuple[str, str]]:
        options = [getattr(parameter, "help", None) or "" for parameter in command.params]
        panels = [getattr(parameter, "rich_help_panel", None) or "" for parameter in command.params]
        yield name, "\n".join([command.help or "", command.epilog or "", *options, *panels])
        for child_name, child in getattr(command, "commands", {}).items():
            yield from walk(f"{name} {child_name}", child)

    yield from walk("mgc", get_command(cli.app))


HELPS = dict(helps())


@pytest.mark.parametrize("command", HELPS)
def test_a_help_text_has_no_banned_word(command: str) -> None:
    assert HELPS[command].strip()
    assert findings(prose(HELPS[command]), frozenset(ALLOWED.get(command, {}))) == []


TEMPLATES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "reports" / "templates").iterdir())


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_report_template_has_no_banned_word(template: str) -> None:
    text = re.sub(r"\{[{%#].*?[}%#]\}", " ", (ROOT / template).read_text(encoding="utf-8"), flags=re.S)
    assert findings(prose(text), frozenset(ALLOWED.get(template, {}))) == []


MODULES = [path.relative_to(ROOT).as_posix() for path in source_files()]


@pytest.mark.parametrize("module", MODULES)
def test_messages_docstrings_and_comments_have_no_banned_word(module: str) -> None:
    """Messages, docstrings and comments; report templates take much of their text from modules, too."""
    text = (ROOT / module).read_text(encoding="utf-8")
    constants = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    sentences = [value for value in constants if isinstance(value, str) and " " in value.strip()]
    sentences += [token.string for token in tokens if token.type == tokenize.COMMENT]
    assert findings(prose("\n".join(sentences)), frozenset(ALLOWED.get(module, {}))) == []


def test_allowed_phrases_are_still_there() -> None:
    """An exception without its phrase is removed."""
    texts = {page: (ROOT / page).read_text(encoding="utf-8") for page in (*PAGES, *TEMPLATES, *MODULES)} | HELPS
    unused = [
        f"{where}: {phrase}"
        for where, phrases in ALLOWED.items()
        for phrase in phrases
        if phrase not in " ".join(texts[where].lower().split())
    ]
    assert unused == []
