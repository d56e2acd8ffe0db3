"""Export as WebDataset shards: tar files with one sample per track, whose bytes depend on the tracks alone."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from ..durable import atomic_write
from .features import Rows, blocks
from .job import Export, Piece
from .npy import npy_bytes


def shard_pieces(export: Export) -> Iterator[Piece]:
    """Yield the files of the export: ``SPLIT-000000.tar`` and so on."""
    for key, positions in export.divided("{split}-{i:06d}.tar"):
        yield Piece(key=key, n=len(positions), write=partial(_write_shard, export, positions))


def _write_shard(export: Export, positions: Rows, path: Path, on_rows: Callable[[int], None]) -> None:
    done = 0
    with atomic_write(path) as draft, tarfile.open(draft, "w", format=tarfile.USTAR_FORMAT) as tar:
        for block in blocks(positions, export.row_bytes):
            features = [(feature.name, feature.tracks(block)) for feature in export.features]
            for position, row in zip(block.tolist(), export.rows(block), strict=True):
                _add(tar, f"{position:08d}.json", json.dumps(row, ensure_ascii=False).encode())
                for name, tracks in features:
                    if (values := next(tracks)) is not None:
                        _add(tar, f"{position:08d}.{name}.npy", npy_bytes(values))
            done += len(block)
            on_rows(done)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
