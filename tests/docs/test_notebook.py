"""The notebook of examples/: no outputs in the file, and its code runs from an empty folder.

The tests run the code cells without Jupyter. A stand-in for `IPython.display`, which Jupyter provides, records the
audio file that a cell plays.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples").glob("*.ipynb"))


def cells(notebook: Path, kind: str) -> list[dict[str, Any]]:
    document = json.loads(notebook.read_text(encoding="utf-8"))
    assert document["nbformat"] == 4
    return [cell for cell in document["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_has_no_outputs(notebook: Path) -> None:
    code = cells(notebook, "code")
    assert code
    assert [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"] is not None] == []
    assert [cell["id"] for cell in code if cell["metadata"]] == []


def test_first_look_runs_from_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (notebook,) = [path for path in NOTEBOOKS if path.name == "first-look.ipynb"]
    played: list[Path] = []
    stand_in = ModuleType("IPython.display")
    monkeypatch.setattr(stand_in, "Audio", lambda *, filename: played.append(Path(filename)), raising=False)
    monkeypatch.setitem(sys.modules, "IPython.display", stand_in)
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    from matplotlib import pyplot

    figures: list[Any] = []
    monkeypatch.setattr(pyplot, "show", lambda: figures.append(pyplot.gcf()))
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells(notebook, "code"):
        exec(compile("".join(cell["source"]), f"{notebook.name}:{cell['id']}", "exec"), names)
    printed = capsys.readouterr().out
    assert "60 tracks extracted, 0 failed" in printed
    found = {name: float(value) for name, value in re.findall(r"^(.+): mean average precision (.+)$", printed, re.M)}
    assert found.keys() == {"audio only", "lyrics only", "audio and lyrics"}
    assert found["audio and lyrics"] > names["chance"].mean() + 0.1
    assert [path.is_file() for path in played] == [True]
    assert (tmp_path / "first-look" / "songs.zarr.report.html").is_file()
    labels = [(axes.get_xlabel(), axes.get_ylabel()) for figure in figures for axes in figure.axes]
    assert ("time (s)", "mel band") in labels
    assert ("genre", "average precision (0 to 1)") in labels
    pyplot.close("all")
