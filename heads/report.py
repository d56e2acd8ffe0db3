"""One self-contained HTML page about a training run: nothing is loaded from elsewhere.

The summary comes first; then the course of training, the metrics with their intervals and baselines, every genre, and
the genre graph. What a run does not have yet (an evaluation, a graph) is said, not left out silently.
"""

from __future__ import annotations

from pathlib import Path

from ..cache.durable import replace_file
from .page import count, page, table, text
from .report_course import course_section
from .report_genres import genres_section
from .report_graph import graph_section
from .report_scores import calibration_section, parts_section
from .report_summary import metrics_section, summary_section
from .run_record import RunRecord, read_run


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write a run's report.

    Parameters
    ----------
    run : run folder of ``mgc train``, evaluated or not.
    out : the page to write; default ``report.html`` in `run`.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    RunError
        `run` is no run folder, or one of its files cannot be read.
    MissingExtraError
        matplotlib is not installed (extra ``report``).
    """
    page = render_report(read_run(run))
    out = run / "report.html" if out is None else out
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, page.encode())
    return out


def render_report(record: RunRecord) -> str:
    """The page of a run."""
    sections = [
        summary_section(record),
        course_section(record.epochs, record.config),
        metrics_section(record.evaluation),
        parts_section(record.evaluation),
        calibration_section(record.evaluation),
        genres_section(record),
        graph_section(record.graph),
        _settings(record),
    ]
    return page(f"Run {record.run.resolve().name}", "\n".join(section for section in sections if section))


def _settings(record: RunRecord) -> str:
    told = {**record.config, **{k: record.about[k] for k in ("device", "precision", "n_parameters", "n_validation",
            "n_train_without_lyrics", "torch", "store") if k in record.about}}  # fmt: skip
    rows = [[text(name), text(value)] for name, value in told.items()]
    kept = "".join(
        f"<li>{text(k.get('filter'))}: {text(k.get('kept'))} of {text(k.get('of'))} {text(k.get('unit'))} kept</li>"
        for k in record.about.get("kept", [])
    )
    return (
        (f"<h2>What each filter kept</h2>\n<ul>{kept}</ul>\n" if kept else "")
        + f"<h2>Settings</h2>\n<details><summary>{count(len(told), 'setting')}</summary>"
        f"{table(['setting', 'value'], rows, about='settings', sortable=True, find='Find a setting')}</details>"
    )
