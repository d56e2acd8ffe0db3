"""Export the tracks of a store for other tools."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..places import refuse_object_store
from ..reading.view import StoreView
from ..steps import Progress, silent
from .features import features_of
from .job import TRACK_COLUMNS, Export, Piece, write_export
from .lhotse_manifests import lhotse_pieces
from .npy import npy_pieces
from .parquet import parquet_pieces
from .tar_shards import shard_pieces

FORMATS: Mapping[str, Callable[[Export], Iterable[Piece]]] = {
    "npy": npy_pieces,
    "parquet": parquet_pieces,
    "lhotse": lhotse_pieces,
    "webdataset": shard_pieces,
}
"""Name of a format -> function that returns its files."""


@dataclass(frozen=True, kw_only=True)
class StoreExport:
    """Result of an export: number of `tracks` and `files`, their `bytes`, the files `written`
    by this call, and remarks."""

    store: str
    output: str
    format: str
    tracks: int
    features: list[str]
    files: int
    bytes: int
    written: int
    remarks: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def export_view(
    view: StoreView,
    target: Path,
    format_name: str,
    *,
    features: Sequence[str] | None = None,
    licence: str | None = None,
    on_progress: Progress = silent,
) -> StoreExport:
    """Export the tracks of a view to the folder `target`, or continue an interrupted export.

    Parameters
    ----------
    format_name : one of :data:`FORMATS`.
    features : names of arrays; None takes all.
    licence : licence of the features for a data set card, as an identifier such as ``cc-by-4.0``.

    Raises
    ------
    ConfigError
        If `target` holds other files, the view is empty, or a name is unknown.
    """
    store = view.store.path
    refuse_object_store(target, "Export to a local folder, then copy the folder.")
    if store.resolve() in (target.resolve(), *target.resolve().parents):
        raise ConfigError(f"{target}: inside the store. Use another folder.")
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target}: not a folder. Use another name.")
    if licence is not None and format_name != "parquet":
        raise ConfigError(f"--licence goes with --to parquet, not with {format_name}. Leave it out.")
    if not len(view):
        raise ConfigError(f"{store}: no track matches the selection. Nothing is written.")
    with ExitStack() as opened:
        export = Export(
            view=view,
            format=format_name,
            folder=target,
            tracks=view.tracks.select(TRACK_COLUMNS),
            features=features_of(view, features, opened),
            licence=licence,
        )
        written = write_export(export, list(FORMATS[format_name](export)), on_progress)
    return StoreExport(
        store=str(store),
        output=str(target),
        format=format_name,
        tracks=len(view),
        features=[feature.name for feature in export.features],
        files=len(written.files),
        bytes=sum(file["bytes"] for file in written.files),
        written=written.n_written,
    )
