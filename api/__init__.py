"""The commands as functions: the one module that imports both `pipeline` and `heads`."""

from __future__ import annotations

from ..cache.steps import Progress
from .cluster import ClusterJob, cluster
from .demo import DEMO_OPTIONS, DemoReport, demo
from .explanation import explain
from .extraction import extract, extractors, plan
from .prediction import Model, load_model, predict
from .predictions import MANY_SONGS, Prediction, Predictions
from .runs import LabelReport, compare, evaluate, report, store_labels
from .sources import ReadSource, WrittenManifest, known_datasets, read_source, write_manifest
from .stores import (
    store_compact,
    store_copy,
    store_drop,
    store_drop_feature,
    store_duplicates,
    store_export,
    store_merge,
    store_repair,
    store_select,
    store_verify,
)
from .tagging import TAGGER, tag
from .training import ablate, train, train_dry_run
from .vectors import Embedded, Neighbours, embed, similar
from .views import to_dask, to_torch, to_xarray

__all__ = [
    "DEMO_OPTIONS",
    "MANY_SONGS",
    "TAGGER",
    "ClusterJob",
    "DemoReport",
    "Embedded",
    "LabelReport",
    "Model",
    "Neighbours",
    "Prediction",
    "Predictions",
    "Progress",
    "ReadSource",
    "WrittenManifest",
    "ablate",
    "cluster",
    "compare",
    "demo",
    "embed",
    "evaluate",
    "explain",
    "extract",
    "extractors",
    "known_datasets",
    "load_model",
    "plan",
    "predict",
    "read_source",
    "report",
    "similar",
    "store_compact",
    "store_copy",
    "store_drop",
    "store_drop_feature",
    "store_duplicates",
    "store_export",
    "store_labels",
    "store_merge",
    "store_repair",
    "store_select",
    "store_verify",
    "tag",
    "to_dask",
    "to_torch",
    "to_xarray",
    "train",
    "train_dry_run",
    "write_manifest",
]
