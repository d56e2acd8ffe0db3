"""Pages of the site that are written elsewhere: the commands from their help, figures, examples and changes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "CHANGELOG.md": "changes.md",
    "README.md": "index.md",
    "examples": "examples.md",
    "benchmarks": "figures.md",
}
"""Files and folders beside docs/ -> the page that stands for them."""


def commands() -> str:
    """`mgc --help` of every command, by typer's own generator."""
    done = subprocess.run(
        [sys.executable, "-m", "typer", "mgc.cli", "utils", "docs", "--name", "mgc", "--title", "Commands"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"TERM": "dumb"},
    )
    return re.sub(r"</?span[^>]*>", "`", done.stdout)


def figures() -> str:
    """Join the last results that the scripts of benchmarks/ printed; links between them become plain text."""
    parts = ["# Figures\n\nEach result names the script in `benchmarks/` that printed it, the machine and the date.\n"]
    for page in sorted((ROOT / "benchmarks").glob("*/*.md")):
        text = re.sub(r"^#", "##", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
        parts.append(re.sub(r"\[([^]]*)\]\([\w./-]+\.md\)", r"\1", text))
    return "\n".join(parts)


def examples() -> str:
    """The table of examples/ and its scripts, whole."""
    folder = ROOT / "examples"
    parts = [re.sub(r"\[(`[^`]*`)\]\([^)]*\)", r"\1", (folder / "README.md").read_text(encoding="utf-8"))]
    for script in sorted(folder.glob("**/*.py")):
        name, code = script.relative_to(folder).as_posix(), script.read_text(encoding="utf-8")
        parts.append(f"\n## `{name}`\n\n```python\n{code}```\n")
    return "".join(parts)


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    changes = re.sub(r"\]\((?:docs/([\w./-]+)|(examples)/)\)", lambda found: f"]({found[1] or 'examples.md'})", changes)
    pages = {"commands.md": commands(), "figures.md": figures(), "examples.md": examples(), "changes.md": changes}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Links of a page in docs/ that lead out of it: to the page of the site that stands for their target."""
    depth = page.file.src_uri.count("/")

    def link(found: re.Match[str]) -> str:
        target = ELSEWHERE.get(found[1])
        return f"]({'../' * depth}{target})" if target else found[0]

    return re.sub(rf"\]\({re.escape('../' * (depth + 1))}([\w.]+)[^)]*\)", link, markdown)
