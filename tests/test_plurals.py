"""Counts agree with their nouns: texts print "1 step" and not "1 steps"."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from mgc.cache.messages import counted

ROOT = Path(__file__).parents[1]
SOURCES = ("cli.py", "api", "cache", "commands", "heads", "pipeline", "reports")

NOUNS = "artists epochs failures files folds genres jobs parts runs seeds songs steps tracks windows workers"

SEVERAL = {
    "commands/stores.py {now.tracks_per_s} tracks": "a rate per second",
    "commands/ablation.py {result['jobs']} jobs": "printed for more than one job",
    "heads/config.py {self.epochs} epochs": "an upper limit of more than one",
    "heads/data/artist_groups.py {len(keys)} tracks": "of several groups",
    "heads/data/artist_groups.py {size} tracks": "a group is large from two tracks on",
    "heads/data/labels.py {limit} training tracks": "a limit above 1",
    "heads/data/folds.py {n_folds} folds": "there are at least three",
    "heads/evaluation/evaluate.py {MIN_TRACKS} tracks": "a constant above 1",
    "heads/evaluation/evaluate.py {split} tracks": "the name of a split, and no count",
    "heads/runs/model_card.py {config.bce_reduction} over genres": "a value of the configuration",
    "heads/runs/published_model.py {config.n_genres} genres": "declared by a damaged file",
    "pipeline/extraction/local_cluster.py {hard} open files": "a limit of the system",
    "pipeline/synth/world.py {n_songs} songs": "there are at least 40",
    "reports/ablation.py {units} and seeds": "no count",
    "reports/ablation.py {about['n_test']} test tracks": "of several folds",
}
"""File and text whose count cannot be 1, or is no count -> why."""


def bare_counts(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each f-string in which a value stands before a plural, not made by ``counted``.

    A whole, as in "3 of 20 tracks", is left out: it is rarely 1, and stays plural in common use.
    """
    plural = re.compile(rf" (?:[a-z]+ )?(?:{'|'.join(NOUNS.split())})\b")
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.JoinedStr):
            continue
        for before, value, text in zip([None, *node.values], node.values, node.values[1:], strict=False):
            if not (isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant)):
                continue
            if isinstance(before, ast.Constant) and str(before.value).endswith(" of "):
                continue
            is_counted = isinstance(value.value, ast.Call) and ast.unparse(value.value.func) in ("counted", "size")
            if not is_counted and (match := plural.match(str(text.value))):
                yield node.lineno, f"{{{ast.unparse(value.value)}}}{match[0]}"


def test_counts_before_plurals_are_made_by_one_function() -> None:
    found = {}
    for name in SOURCES:
        for path in [ROOT / name] if name.endswith(".py") else sorted((ROOT / name).rglob("*.py")):
            place = path.relative_to(ROOT).as_posix()
            found |= {f"{place} {text}": line for line, text in bare_counts(path.read_text(encoding="utf-8"))}
    assert {text: line for text, line in found.items() if text not in SEVERAL} == {}
    assert SEVERAL.keys() <= found.keys(), "no longer in the code"


def test_a_bare_count_is_found_and_a_counted_one_is_not() -> None:
    found = [text for _, text in bare_counts('f"{n} steps per epoch, {n} training tracks"')]
    assert found == ["{n} steps", "{n} training tracks"]
    assert list(bare_counts("""f"{counted(n, 'step')} of {total}, {n} of the tracks\"""")) == []


def test_one_is_singular() -> None:
    assert [counted(n, "step") for n in (0, 1, 2)] == ["0 steps", "1 step", "2 steps"]
    assert [counted(n, "track has", "tracks have") for n in (1, 2)] == ["1 track has", "2 tracks have"]
    assert counted(12_000, "track", separator=",") == "12,000 tracks"
