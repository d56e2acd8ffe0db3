"""Pages of the site that are written elsewhere, links between them, and links to the glossary."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from command_pages import command_pages
from terms import link_terms

from mgc.cache.format.meanings import FLAG_MEANINGS, REASON_MEANINGS

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "examples": "examples.md",
    "benchmarks": "figures.md",
}
"""Files and folders next to docs/ -> the page that holds their text."""
WITHOUT_TERMS = {"glossary.md", "changes.md", "figures.md", "examples.md", "contributing.md", "security.md"}
"""Pages without links to the glossary."""


def figures() -> str:
    """Join the last results that the scripts of benchmarks/ printed; links between them become plain text."""
    parts = ["# Figures\n\nThe output of the scripts in `benchmarks/`, each with machine and date.\n"]
    for page in sorted((ROOT / "benchmarks").glob("*/*.md")):
        text = re.sub(r"^#", "##", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
        parts.append(re.sub(r"\[([^]]*)\]\([\w./-]+\.md\)", r"\1", text))
    return "\n".join(parts)


def examples() -> str:
    """Join the table of examples/ and the source of its scripts."""
    folder = ROOT / "examples"
    parts = [re.sub(r"\[(`[^`]*`)\]\([^)]*\)", r"\1", (folder / "README.md").read_text(encoding="utf-8"))]
    for script in sorted(folder.glob("**/*.py")):
        name, code = script.relative_to(folder).as_posix(), script.read_text(encoding="utf-8")
        parts.append(f"\n## `{name}`\n\n```python\n{code}```\n")
    return "".join(parts)


def from_root(name: str) -> str:
    """Return a page of the root folder with its links as the site has them."""
    text = (ROOT / name).read_text(encoding="utf-8")

    def link(found: re.Match[str]) -> str:
        target = found[1].removeprefix("docs/")
        page = ELSEWHERE.get(target.split("/")[0], target)
        return f"]({page}{found[2] or ''})" if page == target else f"]({page})"

    return re.sub(r"\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)", link, text)


def codes(kind: str) -> str:
    """Return a section for each reason code (cause and remedy) or flag (meaning)."""
    if kind == "reasons":
        entries = {code.value: f"{cause}\n\n**What to do:** {fix}" for code, (cause, fix) in REASON_MEANINGS.items()}
    else:
        entries = {flag.name or "": meaning for flag, meaning in FLAG_MEANINGS.items()}
    sections = "\n\n".join(f"### {code}\n\n{text}" for code, text in entries.items())
    return re.sub(r"--[a-z-]+|\b[a-z]+_[a-z_]+\b|mgc store drop", r"`\g<0>`", sections)


def fill(markdown: str) -> str:
    """Replace the comment ``<!-- generated: KIND -->`` by the codes of this kind."""
    return re.sub(r"<!-- generated: (\w+)[^>]*-->", lambda found: codes(found[1]), markdown)


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    pages = command_pages() | {"figures.md": figures(), "examples.md": examples()}
    pages |= {ELSEWHERE[name]: from_root(name) for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Generate the codes, lead links out of docs/ to the page that holds the text of their target, and link terms."""
    depth = page.file.src_uri.count("/")

    def link(found: re.Match[str]) -> str:
        target = ELSEWHERE.get(found[1])
        return f"]({'../' * depth}{target})" if target else found[0]

    if page.file.src_uri != "index.md":  # mkdocs writes training.md to training/index.html, and leaves HTML as it is
        markdown = re.sub(r'((?:src|srcset)=")images/', r"\g<1>../images/", markdown)
    markdown = fill(re.sub(rf"\]\({re.escape('../' * (depth + 1))}([\w.]+)[^)]*\)", link, markdown))
    if page.file.src_uri in WITHOUT_TERMS or page.file.src_uri.startswith("design/"):
        return markdown
    return link_terms(markdown, f"{'../' * depth}glossary.md")
