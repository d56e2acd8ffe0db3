"""A data set that is read by name: how it is recognised, which files it needs, its terms, and its reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .manifest import Source
from .options import SourceOptions


@dataclass(frozen=True, kw_only=True)
class KnownDataset:
    """A data set that is read as its makers distribute it.

    Attributes
    ----------
    name : as for ``--dataset``.
    needs : files that must be on disk, and where.
    terms : of its makers. Facts for the reader, no advice.
    recognises : whether a source looks like it; may look into folders, never into audio.
    load : tracks of a source; raises ManifestError naming a file that is missing or wrong, and what was expected.
    options : those of :data:`mgc.pipeline.sources.options.READER_OPTIONS` that it takes. Delimiters also go with a
        table of labels.
    """

    name: str
    title: str
    needs: str
    terms: str
    recognises: Callable[[Path], bool]
    load: Callable[[Path, SourceOptions], Source]
    options: frozenset[str] = frozenset()
