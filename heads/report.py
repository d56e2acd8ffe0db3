"""One self-contained HTML page about a training run: nothing is loaded from elsewhere.

The summary comes first; then the course of training, the metrics with their intervals and baselines, every genre, and
the genre graph. What a run does not have yet (an evaluation, a graph) is said, not left out silently.
"""

from __future__ import annotations

from pathlib import Path

from ..cache.durable import replace_file
from ..cache.errors import ConfigError
from .page import page
from .report_confusions import confusions_section
from .report_course import course_section
from .report_genres import genres_section
from .report_graph import graph_section
from .report_mistakes import Player, mistakes_section
from .report_provenance import provenance_section, settings_section
from .report_scores import alignment_section, calibration_section, parts_section
from .report_summary import metrics_section, summary_section
from .run_record import RunRecord, read_run


def write_report(run: Path, out: Path | None = None, *, audio_root: Path | None = None) -> Path:
    """Write a run's report.

    Parameters
    ----------
    run : run folder of ``mgc train``, evaluated or not.
    out : the page to write; default ``report.html`` in `run`.
    audio_root : the folder that the store's paths start from, so that tracks can be listened to.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    RunError
        `run` is no run folder, or one of its files cannot be read or does not belong to the others.
    ConfigError
        There is no folder `audio_root`.
    MissingExtraError
        matplotlib is not installed (extra ``report``).
    """
    if audio_root is not None and not audio_root.is_dir():
        raise ConfigError(f"{audio_root}: no such folder; give the one that the paths of the store's tracks start from")
    record = read_run(run)
    out = run / "report.html" if out is None else out
    clip_s = record.preprocessor.get("recipe", {}).get("mel", {}).get("clip_s")
    page = render_report(record, Player(page=out.parent, root=audio_root, clip_s=clip_s))
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, page.encode())
    return out


def render_report(record: RunRecord, player: Player) -> str:
    """The page of a run, whose tracks `player` plays."""
    sections = [
        summary_section(record),
        course_section(record.epochs, record.config),
        metrics_section(record.evaluation),
        parts_section(record.evaluation),
        calibration_section(record.evaluation),
        genres_section(record),
        _no_scores(record),
        confusions_section(record.scored),
        mistakes_section(record.scored, record.listing, player),
        alignment_section(record.evaluation),
        graph_section(record.graph),
        provenance_section(record),
        settings_section(record),
    ]
    return page(f"Run {record.run.resolve().name}", "\n".join(section for section in sections if section))


def _no_scores(record: RunRecord) -> str:
    if not record.evaluation or record.scored is not None:
        return ""
    return ("<h2>Mistakes</h2>\n<p>What it confuses and got most wrong is told of test tracks, and those have not been "
            "scored: run mgc evaluate RUN STORE.</p>")  # fmt: skip
