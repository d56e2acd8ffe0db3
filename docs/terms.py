"""Link the first use of each glossary term on a page to its entry."""

from __future__ import annotations

import re
from pathlib import Path

GLOSSARY = Path(__file__).with_name("glossary.md")
OTHER_FORMS = {
    "Added feature set": r"added feature sets?",
    "Artist-disjoint split": r"artist-disjoint(?: splits?)?",
    "Confidence interval": r"confidence intervals?|95 % (?:CI|intervals?)",
    "Feature store": r"feature stores?",
    "Genre graph": r"genre graphs?|GCEM",
    "Jaccard index": r"Jaccard(?: index)?",
    "Mel spectrogram": r"(?:log-)?mel spectrograms?|log-mels?|mels",
    "Modality": r"modality|modalities",
    "Frame": r"audio frames?|frame(?= t\b| to\b)",
    "Manifest": r"manifests?(?! of)",
    "Part": r"parts?(?! of)",
    "Plan": r"plan\.json",
    "Run": r"run folders?",
    "Shard": r"(?<!tar )shards?",
    "Status": r"status(?= array| [012])",
    "Extractor plug-in": r"extractor plug-ins?|plug-ins?",
    "Takedown": r"takedowns?|taken down",
    "Window": r"windows of a song",
}
"""Patterns for terms whose plural is irregular, or that are also everyday words."""
SKIPPED = re.compile(
    r"^ *```.*?^ *```$|^ {4,}[^\n]*$|^#+ [^\n]*$|^:::[^\n]*$|<!--.*?-->|`[^`]*`"
    r"|!?\[[^]]*\](?:\([^)]*\)|\[[^]]*\])|<[^>\n]+>",
    re.MULTILINE | re.DOTALL,
)
"""Code, headings, comments, links and HTML: nothing is linked there."""


def glossary_terms() -> dict[str, str]:
    """Return term -> anchor, longest term first, so that "added feature set" precedes "feature set"."""
    terms = re.findall(r"^## (.+)$", GLOSSARY.read_text(encoding="utf-8"), re.MULTILINE)
    return {term: term.lower().replace(" ", "-") for term in sorted(terms, key=len, reverse=True)}


def link_terms(markdown: str, glossary: str) -> str:
    """Return `markdown` with a link from the first use of each term to its heading on the page `glossary`."""
    for term, anchor in glossary_terms().items():
        form = OTHER_FORMS.get(term, rf"{re.escape(term)}s?")
        pattern = re.compile(rf"(?<![\w/-])(?:{form})(?![\w/-])", re.IGNORECASE)
        start = 0
        for skipped in [*SKIPPED.finditer(markdown), None]:
            end = skipped.start() if skipped else len(markdown)
            if found := pattern.search(markdown, start, end):
                link = f'[{found[0]}]({glossary}#{anchor} "Glossary")'
                markdown = markdown[: found.start()] + link + markdown[found.end() :]
                break
            start = skipped.end() if skipped else end
    return markdown
