"""What a data set is here: how it is told from others, what must lie on disk, under which terms, and how it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .manifest import Source
from .options import SourceOptions


@dataclass(frozen=True, kw_only=True)
class KnownDataset:
    """A data set that is read as it is handed out.

    Attributes
    ----------
    name : what ``--dataset`` calls it.
    needs : what must lie on disk, and where.
    terms : under which terms its makers hand it out. Facts for the reader, no advice.
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
