"""Export as lhotse manifests: recordings, supervisions, features and cuts, over ``.npy`` files.

Paths in the manifests start from the folder of the export.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..durable import atomic_write, fsync_tree, rename_durable
from ..errors import ConfigError
from .features import Feature, Rows, blocks
from .job import Export, Piece
from .npy import npy_bytes

_STORAGE = "numpy_files"
_Part = Callable[[dict[str, Any]], dict[str, Any] | None]
"""From a cut to the document of a manifest; None where the manifest has none."""


def lhotse_pieces(export: Export) -> Iterator[Piece]:
    """Yield the folders of arrays, then the manifests.

    Raises
    ------
    ConfigError
        If the store has no mel spectrograms: lhotse needs the length of each recording.
    """
    if export.view.store.recipe.mel is None:
        raise ConfigError(f"{export.view.store.path}: --to lhotse needs a store with mel spectrograms. Use --to npy.")
    folders = list(export.divided("features/{split}-{i:05d}-of-{n:05d}"))
    for key, positions in folders:
        yield Piece(key=key, n=len(positions), write=partial(_write_arrays, export, positions))
    parts: dict[str, _Part] = {
        "recordings": lambda cut: cut["recording"],
        "supervisions": lambda cut: cut["supervisions"][0],
        "features": lambda cut: cut.get("features"),
    }
    for name, part in parts.items():
        yield Piece(key=f"{name}.jsonl.gz", n=0, write=partial(_write_manifest, export, folders, part, []))
    scalars = [feature for feature in export.features if not feature.spec.tail]
    for split in export.by_split():
        own = [(key, positions) for key, positions in folders if key.startswith(f"features/{split}-")]
        write = partial(_write_manifest, export, own, lambda cut: cut, scalars)
        yield Piece(key=f"cuts_{split}.jsonl.gz", n=0, write=write)


def _arrays(export: Export) -> list[Feature]:
    return [feature for feature in export.features if feature.spec.tail]


def _file(position: int, feature: Feature) -> str:
    return f"{position:08d}.{feature.name}.npy"


def _write_arrays(export: Export, positions: Rows, path: Path, on_rows: Callable[[int], None]) -> None:
    """Write one file per array and track; mel spectrograms as (frame, mel_band), without the frames of padding."""
    draft = path.with_name(f".{path.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    frames, done = _frames(export), 0
    for block in blocks(positions, export.row_bytes):
        for feature in _arrays(export):
            for position, values in zip(block.tolist(), feature.tracks(block), strict=True):
                if values is not None:
                    values = values[:, : frames[position]].T if feature.name == "mel" else values
                    (draft / _file(position, feature)).write_bytes(npy_bytes(values))
        done += len(block)
        on_rows(done)
    fsync_tree(draft)
    rename_durable(draft, path)


def _frames(export: Export) -> list[int]:
    frames: list[int] = export.view["mel_frames"][:].tolist()
    return frames


def _write_manifest(
    export: Export,
    folders: Iterable[tuple[str, Rows]],
    part: _Part,
    scalars: Sequence[Feature],
    path: Path,
    _: Callable[[int], None],
) -> None:
    with atomic_write(path) as draft, draft.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        for cut in _cuts(export, folders, scalars):
            if (document := part(cut)) is not None:
                file.write(json.dumps(document, ensure_ascii=False).encode() + b"\n")


def _cuts(export: Export, folders: Iterable[tuple[str, Rows]], scalars: Sequence[Feature]) -> Iterator[dict[str, Any]]:
    """Yield the cut of each track, with its recording, its supervision, its arrays, and the numbers `scalars`."""
    frames = _frames(export)
    for folder, positions in folders:
        for block in blocks(positions, sum(feature.row_bytes for feature in scalars)):
            values = [list(feature.tracks(block)) for feature in scalars]
            for i, (position, row) in enumerate(zip(block.tolist(), export.rows(block), strict=True)):
                numbers = {f.name: v[i] for f, v in zip(scalars, values, strict=True) if v[i] is not None}
                yield _cut(export, folder, position, frames[position], row, numbers)


def _cut(
    export: Export, folder: str, position: int, n_frames: int, row: dict[str, Any], numbers: dict[str, Any]
) -> dict[str, Any]:
    mel = export.view.store.recipe.mel
    assert mel is not None
    rate_hz, shift_s = row["sample_rate_hz"], mel.hop_length / mel.sample_rate_hz
    n_samples = round(row["seconds"] * rate_hz)
    span = {"start": row["offset_s"], "duration": n_frames * shift_s}
    recording = {
        "id": row["id"],
        "sources": [{"type": "file", "channels": list(range(row["channels"])), "source": row["path"]}],
        "sampling_rate": rate_hz,
        "num_samples": n_samples,
        "duration": n_samples / rate_hz,
        "channel_ids": list(range(row["channels"])),
    }
    described = ("artists", "song", "genres", "split")
    supervision = {
        "id": row["id"],
        "recording_id": row["id"],
        **span,
        "channel": 0,
        **({"language": row["language"]} if "language" in row else {}),
        **({"speaker": row["artists"][0]} if row["artists"] else {}),
        "custom": {name: row[name] for name in described if name in row},
    }
    cut = {"id": row["id"], **span, "channel": 0, "supervisions": [supervision], "recording": recording}
    storage = {"storage_type": _STORAGE, "storage_path": folder}
    custom: dict[str, Any] = {name: value.item() for name, value in numbers.items()}
    for feature in _arrays(export):
        if not feature.has[position]:
            continue
        file = {**storage, "storage_key": _file(position, feature)}
        if feature.name == "mel":
            cut["features"] = {
                "type": "log-mel",
                "num_frames": n_frames,
                "num_features": mel.n_mels,
                "frame_shift": shift_s,
                "sampling_rate": mel.sample_rate_hz,
                **span,
                **file,
                "recording_id": row["id"],
                "channels": 0,
            }
        else:
            lengths = () if feature.lengths is None else (int(feature.lengths[position]),)
            custom[feature.name] = {**file, "shape": [*lengths, *feature.shape]}
    return {**cut, "custom": custom, "type": "MonoCut"}
