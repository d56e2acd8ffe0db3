"""How stores, data sets and models are shown in a shell and in a notebook."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import mgc


def cells(html: str) -> dict[str, str]:
    """Return the rows of a table; raises where the text is not well-formed."""
    return {str(row[0].text): str(row[1].text) for row in ElementTree.fromstring(html).iter("tr")}


def test_store_data_set_and_model_have_a_line_and_a_table(evaluated_run: Path, small_store) -> None:
    store = mgc.open(small_store.path)
    dataset, model = mgc.to_torch(store, "mel", genres=["rock", "jazz"]), mgc.load_model(evaluated_run)
    assert repr(store).startswith(f"<StoreView of {small_store.path}: 40 tracks; mel, ")
    assert repr(dataset) == f"<TrackDataset of {small_store.path}: 40 tracks, 2 genres; mel>"
    assert repr(model) == f"<Model {evaluated_run / 'best'}: ru2023, both; {len(model.genres)} genres>"
    assert cells(store._repr_html_())["mel"].startswith("40×128×")
    assert cells(store._repr_html_())["tracks"] == "40"
    assert cells(dataset._repr_html_()) == {"tracks": "40", "features": "mel", "genres": "2: rock, jazz"}
    assert cells(model._repr_html_())["genres"].startswith(f"{len(model.genres)}: {model.genres[0]}, ")


def test_names_are_escaped_in_html(make_world, tmp_path: Path) -> None:
    world = make_world()
    for track in world.tracks:
        track["genres"] = ["<script>alert(1)</script>"]
    store = mgc.open(world.write(tmp_path / "s<b>.zarr").path)
    for shown in (store, mgc.to_torch(store, "mel")):
        assert "<script>" not in shown._repr_html_()
        assert "s<b>" not in shown._repr_html_()
        assert "<script>alert(1)</script>" in cells(shown._repr_html_())["genres"]
