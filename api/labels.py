"""Labels from a table, in place of a store's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..cache.errors import ConfigError
from ..cache.messages import counted
from ..cache.reading.store import FeatureStore


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Genres by track id in place of the store's, None for the store's own; and what to know about them."""

    genres: Mapping[str, Sequence[str]] | None = None
    remarks: tuple[str, ...] = ()


def labels_for(path: Path | None, genre_delimiter: str | None, store: FeatureStore) -> Labels:
    """Labels from a table that lists at least one track of the store."""
    if path is None:
        return Labels()
    from ..pipeline.sources.label_tables import read_labels

    labels, ids = read_labels(path, genre_delimiter), set(store.tracks.column("id").to_pylist())
    here = ids & labels.keys()
    if not here:
        raise ConfigError(f"{path}: none of its {len(labels)} ids is a track of {store.path}; there {min(ids)!r}, here "
                          f"{min(labels)!r}")  # fmt: skip
    said = f"{path.name} labels {len(here)} of {counted(len(ids), 'track')}; the others count as unlabelled"
    beyond = (
        [f"{counted(len(labels) - len(here), 'row')} of {path.name} without a track here"]
        if len(labels) > len(here)
        else []
    )
    return Labels(genres=labels, remarks=(said, *beyond))
