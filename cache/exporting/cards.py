"""Data set card for the Hugging Face Hub, and Croissant metadata."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import yaml

from ..messages import counted
from .job import Export

TITLE = "music-features"
DESCRIPTION = "Audio and text features of music, with genres, exported from an mgc feature store."
CROISSANT = "http://mlcommons.org/croissant/1.0"
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "recordSet": "cr:recordSet",
    "field": "cr:field",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "repeated": "cr:repeated",
    "source": "cr:source",
    "fileSet": "cr:fileSet",
    "includes": "cr:includes",
    "extract": "cr:extract",
    "column": "cr:column",
}


def dataset_card(export: Export) -> str:
    """Return ``README.md``: the files of each split in YAML, features and recipe."""
    splits = {split: counted(len(rows), "track") for split, rows in export.by_split().items()}
    header = {
        "license": export.licence or "unknown",
        "pretty_name": TITLE,
        "tags": ["audio", "music", "features"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits],
            }
        ],
    }
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {TITLE}",
        "",
        f"{DESCRIPTION} Each row is one track.",
        "",
        "## Splits",
        "",
        *(f"- {split}: {text}" for split, text in splits.items()),
        "",
        "## Features",
        "",
        "| column | shape | dtype | unit | content |",
        "|---|---|---|---|---|",
    ]
    for name, about in export.document["features"].items():
        shape = " x ".join("n" if length is None else str(length) for length in about["shape"]) or "one value"
        lines.append(f"| `{name}` | {shape} | {about['dtype']} | {about['unit']} | {about['description']} |")
    sections = ("recipe", "added", "fingerprints", "library_versions")
    provenance = {name: export.document[name] for name in sections if export.document[name]}
    text = json.dumps(provenance, indent=1, ensure_ascii=False)
    lines += ["", "n: the length differs between tracks.", "", "## Recipe", "", "```json", text, "```", ""]
    return "\n".join(lines)


def croissant(export: Export, schema: pa.Schema) -> str:
    """Return ``croissant.json``: one set of files and one record set per split, with all columns."""
    splits = list(export.by_split())
    document = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CROISSANT,
        "name": TITLE,
        "description": f"{DESCRIPTION} {counted(len(export.view), 'track')}.",
        "license": export.licence or "unknown",
        "distribution": [
            {
                "@type": "cr:FileSet",
                "@id": f"files-{split}",
                "name": f"files-{split}",
                "encodingFormat": "application/x-parquet",
                "includes": f"data/{split}-*.parquet",
            }
            for split in splits
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": split,
                "name": split,
                "field": [_field(field, split) for field in schema],
            }
            for split in splits
        ],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _field(field: pa.Field, split: str) -> dict[str, Any]:
    described = {
        "@type": "cr:Field",
        "@id": f"{split}/{field.name}",
        "name": field.name,
        "dataType": _data_type(field.type),
        "source": {"fileSet": {"@id": f"files-{split}"}, "extract": {"column": field.name}},
    }
    if pa.types.is_list(field.type) or pa.types.is_fixed_size_list(field.type):
        described["repeated"] = True
    text = (field.metadata or {}).get(b"description")
    return described if text is None else {**described, "description": text.decode()}


def _data_type(kind: pa.DataType) -> str:
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    if pa.types.is_string(kind):
        return "sc:Text"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Integer"
