"""One page per command, from its help: usage, examples, arguments, options and exit codes."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from textwrap import dedent

OVERVIEW = "commands/index.md"
ALWAYS = {
    "0": "Success.",
    "1": "Internal error of mgc. Report it with the traceback.",
    "2": "Refused: invalid options or input, a missing extra, or a machine limit. The message has the remedy.",
    "130, 143, 141": "Stopped by Ctrl-C (130) or SIGTERM (143), or the reader of the output closed it (141).",
}
"""Exit codes that every command has."""
EXIT_CODES = {
    "mgc ablate": {"3": "Some runs could not be trained. The others are in the tables."},
    "mgc extract": {"3": "More tracks failed than `--max-failures` allows. The store is complete and usable."},
    "mgc extractors": {"2": "An installed extractor plug-in could not be loaded. The list shows its error."},
    "mgc predict": {
        "2": "Refused, or none of the inputs could be read.",
        "3": "Some of several inputs could not be read. The others have predictions.",
    },
    "mgc embed": {"3": "Some of several songs could not be read. The others have vectors."},
    "mgc tag": {
        "2": "Refused, or none of the songs could be read.",
        "3": "Some of several songs could not be read. The others have tags.",
    },
    "mgc store repair": {"4": "Damage remains. The output lists it."},
    "mgc store verify": {"4": "Damage found. The output lists it."},
}
"""Further exit codes, or another meaning of 2."""
GUIDES = {
    "mgc demo": "[Tutorial](../tutorial.md)",
    "mgc manifest": "[Extract your own songs](../your-own-songs.md)",
    "mgc plan": "[Run on a cluster](../cluster.md)",
    "mgc extract": "[Extract your own songs](../your-own-songs.md), [Run on a cluster](../cluster.md)",
    "mgc cluster": "[Run on a cluster](../cluster.md)",
    "mgc tag": "[Tag songs without training](../tagging.md)",
    "mgc extractors": "[Write an extractor plug-in](../extractors.md)",
    "mgc train": "[Train and evaluate](../training.md), [Model options](../model.md)",
    "mgc evaluate": "[Train and evaluate](../training.md), [Scores and metrics](../scores.md)",
    "mgc compare": "[Train and evaluate](../training.md), [Scores and metrics](../scores.md)",
    "mgc ablate": "[Reproduce the paper's tables](../ablation.md)",
    "mgc predict": "[Predict genres](../predicting.md)",
    "mgc embed": "[Search for similar tracks](../similar.md)",
    "mgc similar": "[Search for similar tracks](../similar.md)",
    "mgc explain": "[Explain a prediction](../explaining.md)",
    "mgc report": "[Train and evaluate](../training.md)",
    "mgc store labels": "[Check the labels](../labels.md)",
    "mgc store export": "[Export features to other tools](../exporting.md)",
    "mgc store": "[Check, repair and delete](../maintaining-a-store.md), [Read the features](../reading.md)",
}
"""Where a command is used in a task."""


def command_pages() -> dict[str, str]:
    """Return path -> Markdown: an overview, and a page for each command and subcommand."""
    done = subprocess.run(
        [sys.executable, "-m", "typer", "mgc.cli", "utils", "docs", "--name", "mgc"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"TERM": "dumb"},
    )
    sections = re.split(r"^#+ `(mgc[^`]*)`$", html.unescape(done.stdout), flags=re.MULTILINE)[1:]
    helps = dict(zip(sections[::2], sections[1::2], strict=True))
    groups = {name for name, text in helps.items() if "**Commands**:" in text}
    pages = {page_of(name): _page(name, text) for name, text in helps.items() if name not in groups}
    return {OVERVIEW: _overview(helps.pop("mgc"), {name: helps[name] for name in helps if name not in groups})} | pages


def page_of(command: str) -> str:
    """``mgc store info`` -> ``commands/store-info.md``."""
    return f"commands/{'-'.join(command.split()[1:])}.md"


def _overview(root: str, helps: dict[str, str]) -> str:
    rows = [f"| [`{name}`]({page_of(name)[9:]}) | {_cell(_split(text)[0][0])} |" for name, text in helps.items()]
    codes = {code: meaning for extra in EXIT_CODES.values() for code, meaning in extra.items() if code not in ALWAYS}
    codes |= {"3": "Finished, but some tracks, inputs or runs failed.", "4": "Damage found in a store."}
    return "\n".join(
        [
            "# Commands\n",
            "Each page is generated from `mgc COMMAND --help`.\n",
            "| command | purpose |\n|---|---|",
            *rows,
            "",
            _list(root, "Options"),
            "## Exit codes\n",
            _codes(ALWAYS | codes),
        ]
    )


def _page(name: str, text: str) -> str:
    """Build the page of a command from what typer prints of it."""
    paragraphs, examples = _split(text)
    usage = re.search(r"^\$ (.+)$", text, re.MULTILINE)
    synopsis = re.sub(r"[{}]", "", usage[1]).strip() if usage else name
    parts = [
        f"# {name}\n",
        f"{paragraphs[0]}\n",
        f"```text\n{synopsis}\n```\n",
        *(f"{more}\n" for more in paragraphs[1:]),
    ]
    if examples:
        parts.append("## Examples\n\n```sh\n" + "\n".join(examples) + "\n```\n")
    parts += [table for title in ("Arguments", "Options") if (table := _list(text, title))]
    parts.append(f"## Exit codes\n\n{_codes(ALWAYS | EXIT_CODES.get(name, {}))}\n")
    guides = GUIDES.get(name) or GUIDES.get(" ".join(name.split()[:2]))
    if guides:
        parts.append(f"Guides: {guides}. All commands: [overview](index.md).\n")
    return "\n".join(parts)


def _codes(codes: dict[str, str]) -> str:
    return "| code | meaning |\n|---|---|\n" + "\n".join(
        f"| {code} | {codes[code]} |" for code in sorted(codes, key=_by)
    )


def _by(code: str) -> int:
    return int(code.split(",")[0])


_SPAN = re.compile(r"<span[^>]*>(.*?)</span>", re.DOTALL)


def _split(text: str) -> tuple[list[str], list[str]]:
    """Divide a help text into its paragraphs, as Markdown, and its example commands."""
    head = text.split("**Usage**:")[0].strip()
    paragraphs, examples = [], []
    for paragraph in re.split(r"\n\s*\n", head):
        if re.match(r"(<span[^>]*>)?Examples?:", paragraph):
            found = [" ".join(command.split()) for command in _SPAN.findall(paragraph)]
            lines = [line.strip() for line in _SPAN.sub("", paragraph).splitlines()]
            examples += [command for command in found if "mgc " in command]
            examples += [line for line in lines if line.startswith(("mgc ", "find "))]
        elif paragraph.strip():
            text = _SPAN.sub(_marked, paragraph)
            text = re.sub(
                r"\n((?: {2}.*(?:\n|$))+)", lambda found: f"\n\n```text\n{dedent(found[1]).strip()}\n```\n", text
            )
            paragraphs.append(re.sub(r"\bdocs/([\w-]+\.md)", r"[\1](../\1)", text))
    return paragraphs, examples


def _marked(found: re.Match[str]) -> str:
    text = found[1]
    return f"`{text}`" if re.match(r"mgc\b|-", text) else f"**{text}**"


def _list(text: str, title: str) -> str:
    """Turn typer's list of arguments or options into a table."""
    listed = re.search(rf"\*\*{title}\*\*:\n\n((?:\* .*\n(?:(?!\*|\n).*\n)*)+)", text)
    rows = []
    for item in re.split(r"^\* ", listed[1], flags=re.MULTILINE)[1:] if listed else []:
        names, _, about = item.strip().partition("`: ")
        about = " ".join(_SPAN.sub(_marked, about).split())
        note = re.search(r"\s*\[((?:default|required|x|\d)[^]]*(?:\([^)]*\))?[^]]*)\]$", about)
        about, given = (about[: note.start()], note[1]) if note else (about, "")
        spelling, value = _spelling(names.strip("`"))
        rows.append(f"| {spelling}{value and '<br>'}{value} | {_cell(about)} | {_cell(_default(given))} |")
    header = f"## {title}\n\n| name | description | default, range |\n|---|---|---|\n"
    return header + "\n".join(rows) + "\n" if rows else ""


def _spelling(names: str) -> tuple[str, str]:
    """``-o, --output <path>`` -> its spellings and its value, as code."""
    found = re.fullmatch(r"(.*?) ([<[].*|(?:hf:)?[A-Z]\S*)", names)
    spelling, value = found.groups() if found else (names, "")
    return " ".join(f"`{name}`" for name in spelling.split(", ")), f"`{value}`" if value else ""


def _default(given: str) -> str:
    return re.sub(r"^default: \((.*?)\)", r"\1", given).removeprefix("default: ")


def _cell(text: str) -> str:
    """Escape what would end a cell, outside code."""
    pieces = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(piece if piece.startswith("`") else piece.replace("|", "\\|") for piece in pieces)
