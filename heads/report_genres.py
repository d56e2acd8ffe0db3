"""Section of a run's report with a row a genre: support, thresholds, and how well it is found."""

from __future__ import annotations

from .page import Cell, bar, number, table, text
from .run_record import RunRecord


def genres_section(record: RunRecord) -> str:
    """The table of genres, the most frequent first; it sorts and filters."""
    if not record.evaluation:
        return ""
    metrics = record.evaluation["metrics"]
    trained = dict(zip(record.labels.get("genres", []), record.labels.get("train_counts", []), strict=False))
    columns, overall = metrics["columns"], record.evaluation["threshold"]
    own = columns["tuned_per_genre"]["thresholds"]
    rows: list[list[Cell]] = []
    for row, cut in sorted(
        zip(metrics["genres"], own, strict=True), key=lambda pair: (-pair[0]["support"], pair[0]["genre"])
    ):
        share = row["support"] / metrics["n_tracks"] if metrics["n_tracks"] else 0.0
        rows.append([
            text(row["genre"]), str(row["support"]), text(trained.get(row["genre"], "–")),
            bar(row["average_precision"], tick=share), bar(row["f1"]["fixed"]), number(row["precision"]["fixed"]),
            number(row["recall"]["fixed"]), number(row["f1"]["tuned"]), f"{cut:.3g}",
            number(row["f1"]["tuned_per_genre"]),
        ])  # fmt: skip
    heads = ("genre", "tracks", "training tracks", "average precision (0 to 1)", "F1 at 0.5 (0 to 1)",
             "precision at 0.5", "recall at 0.5", f"F1 at {overall:.3g}", "own threshold", "F1 at its own")  # fmt: skip
    return (
        "<h2>Genres</h2>\n<p>A bar that ends at its tick ranks tracks no better than chance: the tick is the genre's "
        f"share of the tracks. {overall:.3g} is the threshold tuned for all genres on validation tracks, its own the "
        "one tuned for the genre. Genres with few tracks have wide, unstated intervals.</p>\n"
        + table(heads, rows, about="genres", sortable=True, find="Find a genre", tall=True)
    )
