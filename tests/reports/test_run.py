"""Run reports: self-contained pages with the numbers of the run, safe for any genre name."""

from __future__ import annotations

import html.parser
import json
import platform
import re
import shlex
import shutil
import sys
import wave
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import mgc
from benchmarks.chromium import Chromium
from mgc.cache.durable import seal, unseal
from mgc.cache.errors import RunError
from mgc.cache.reading.store import FeatureStore
from mgc.heads.config import TrainConfig
from mgc.heads.evaluation.evaluate import evaluate
from mgc.heads.training.train import train
from mgc.reports import run as report_of_run
from mgc.reports.comparison import write_comparison
from mgc.reports.run import write_report
from mgc.reports.run_sections import clustered_order

ODD_NAMES = (
    "<script>alert(1)</script>",
    "$\\frac{x$ $",
    "日本のロック",
    "\"quoted\" & 'more' &amp;",
    "r&b",
    "</svg></style><b>",
    "a name that goes on and on and on and on, and then goes on",
)
VOID = {"meta", "br", "hr", "img", "link", "input"}
LOADING = {"src", "href", "xlink:href", "action", "data", "poster", "srcset"}


@dataclass
class Page(html.parser.HTMLParser):
    """Balanced tags, texts and references of a page."""

    open_tags: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    attributes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self.references += [value or "" for name, value in attrs if name in LOADING]
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open_tags.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def _parse(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert page.open_tags == []
    return page


def _run(store: FeatureStore, run: Path, *, evaluated: bool = True, **options: Any) -> Path:
    train(store, run, TrainConfig(encoder="tiny", epochs=1, lr=1e-3, device="cpu", batch_size=32, **options))
    if evaluated:
        evaluate(run, store, n_replicates=50)
    return run


@pytest.fixture(scope="module")
def run(evaluated_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs, evaluated."""
    return shutil.copytree(evaluated_run, tmp_path_factory.mktemp("report") / "first")


@pytest.fixture(scope="module")
def songs(small_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of silence for each track of the store."""
    folder = tmp_path_factory.mktemp("songs")
    for path in small_store.tracks.column("path").to_pylist():
        with wave.open(str(folder / path), "wb") as file:
            file.setparams((1, 1, 8000, 0, "NONE", ""))
            file.writeframes(b"\x80" * 16_000)
    return folder


@pytest.fixture(scope="module")
def written(run: Path, songs: Path) -> Path:
    return write_report(run, audio_root=songs)


@pytest.fixture(scope="module")
def odd_run(make_world: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run with 87 genres, seven of them with names that contain markup or are long."""
    folder, names = tmp_path_factory.mktemp("odd"), [*ODD_NAMES, *(f"genre {i}" for i in range(80))]
    world = make_world(n_tracks=130)
    rng = np.random.default_rng(0)
    for i, track in enumerate(world.tracks):
        track["genres"] = sorted({names[i % 87], *(names[j] for j in rng.integers(0, 87, 2))})
    store = world.write(folder / "odd.zarr", part_rows=64)
    return _run(store, folder / "odd", genres=tuple(names), min_genre_count=0), names


def test_report_is_self_contained(run: Path, written: Path) -> None:
    assert written == run / "report.html"
    source, page = written.read_text(encoding="utf-8"), _parse(written)
    assert not {"link", "iframe", "img"} & set(page.tags)
    assert page.tags.count("script") == 1
    assert not [name for name in page.attributes if name.startswith("on")]
    elsewhere = [ref for ref in page.references if not ref.startswith(("#", "data:image/png;base64,"))]
    assert elsewhere
    assert all((written.parent / ref).is_file() for ref in elsewhere)  # audio files, relative to the page
    assert page.tags.count("audio") == len(elsewhere)
    assert not re.search(r"https?:", source)
    assert not re.search(r"url\((?!#)|@import|file:/", source)
    assert "prefers-color-scheme: dark" in source
    assert 'name="viewport"' in source
    assert page.tags.count("svg") == page.tags.count("figure") == page.tags.count("figcaption") == 7


def test_report_names_run_modalities_and_preset(run: Path, written: Path) -> None:
    text = _parse(written).text
    preset = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["preset"]
    assert text.startswith(f"Run {run.name}: genre classification from audio and lyrics")
    assert f"run {run.name} preset {preset or '–'} system" in text


def test_report_shows_a_run_of_an_earlier_version_with_current_option_names(run: Path, tmp_path: Path) -> None:
    old = shutil.copytree(run, tmp_path / "old")
    config = yaml.safe_load((old / "config.yaml").read_text(encoding="utf-8"))
    config |= {"model": "ours", "home": config.pop("placement")}
    (old / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    text = _parse(write_report(old)).text
    assert "system ru2023 audio input mel audio encoder" in text
    assert " home " not in text


def test_report_has_unique_ids_and_no_broken_internal_links(written: Path) -> None:
    source = written.read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]*)"', source)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', source)) <= set(ids)


def test_report_shows_the_metrics_of_the_evaluation(run: Path, written: Path) -> None:
    page = _parse(written).text
    test = json.loads((run / "metrics.json").read_text())["test"]
    fixed = test["metrics"]["columns"]["fixed"]
    majority = test["baselines"]["majority"]["columns"]["fixed"]["jaccard"]["value"]
    told = [test["metrics"]["mean_average_precision"]["value"], majority]
    told += [fixed[name][part] for name in ("jaccard", "micro_f1", "hamming_loss") for part in ("value", "low", "high")]
    told += [row["average_precision"] for row in test["metrics"]["genres"] if row["support"]]
    told += [
        recall[k][part]
        for recall in test["alignment"]["recall"].values()
        for k in ("1", "10")
        for part in ("value", "low", "high")
    ]
    known = [value for value in told if value is not None]
    assert len(known) > len(told) / 3  # the others are limits of intervals, of which few artists have none
    assert [value for value in known if f"{value:.3f}" not in page] == []
    assert f"Retrieval among {test['alignment']['n_tracks']} tracks with both modalities" in page
    assert f"F1 at {test['threshold']:.3g} per-genre threshold" in page
    for row, cut in zip(
        test["metrics"]["genres"], test["metrics"]["columns"]["tuned_per_genre"]["thresholds"], strict=True
    ):
        assert f"{row['f1']['tuned']:.3f} {cut:.3g} {row['f1']['tuned_per_genre']:.3f}" in page
    for row in test["metrics"]["genres"]:
        assert row["genre"] in page
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert f"from {losses[0]:.3f} to {losses[-1]:.3f}" in page
    assert f"{test['n_tracks']} test tracks" in page


def test_report_shows_calibration_modalities_and_nearest_genres(run: Path, written: Path) -> None:
    """Every seventh track has no lyrics."""
    page = _parse(written).text
    test = json.loads((run / "metrics.json").read_text())["test"]
    assert f"Expected calibration error {test['calibration']['expected_calibration_error']:.3f}" in page
    filled = [part for part in test["parts"].values() if part["n_tracks"]]
    assert ("Metrics by modality" in page) == (len(filled) > 1)
    graph = json.loads((run / "best/graph.json").read_text())
    weights = np.asarray(graph["adjacency"])
    first = int(np.argmax(graph["counts"]))
    nearest = int(np.argmax(np.where(np.arange(len(weights)) == first, -1, weights[first])))
    assert f"{graph['genres'][nearest]} {weights[first, nearest]:.3f}" in page
    about = json.loads((run / "run.json").read_text())
    assert about["graph"] == graph["summary"]


def test_genre_map_shows_the_weights_of_the_graph(run: Path, written: Path) -> None:
    """Opacity of the picture's cells is the square root of the off-diagonal weights, related genres together."""
    import base64
    import io

    from PIL import Image

    source = written.read_text(encoding="utf-8")
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(code))))
        for code in re.findall(r"data:image/png;base64,\s*([A-Za-z0-9+/=\s]+)", source)
    ]
    graph = json.loads((run / "best/graph.json").read_text())
    order = clustered_order(np.asarray(graph["adjacency"]))
    weights = np.asarray(graph["adjacency"])[np.ix_(order, order)]
    np.fill_diagonal(weights, 0.0)
    shown = next(picture for picture in pictures if picture.shape[:2] == weights.shape)[..., 3] / 255
    if not np.allclose(shown, np.sqrt(weights / weights.max()), atol=0.01):  # an SVG may hold its picture upside down
        shown = shown[::-1]
    np.testing.assert_allclose(shown, np.sqrt(weights / weights.max()), atol=0.01)


def test_genre_names_with_markup_are_escaped(odd_run: tuple[Path, list[str]]) -> None:
    path, names = odd_run
    out = write_report(path)
    page = _parse(out)
    assert page.tags.count("script") == 1
    assert page.tags.count("b") == 1 + 4  # contents and tiles
    cells = {" ".join(text.split()) for text in page.texts}
    assert [name for name in names if name not in cells] == []
    assert page.tags.count("text") > 2 * 87
    assert out.stat().st_size < 1_000_000


def test_report_fits_a_phone_and_plays_audio(written: Path, browser: Chromium) -> None:
    tab = browser.open(written, width=360, height=740)
    assert tab.run("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    played = tab.run("""new Promise((done) => {
        const song = document.querySelector("audio");
        song.onloadedmetadata = () => done(song.duration);
        song.onerror = () => done(song.error.message);
        song.preload = "auto";
        song.load();
    })""")
    assert played == pytest.approx(2.0, abs=0.1)
    assert tab.errors == []


def test_report_sorts_and_filters_87_genres(odd_run: tuple[Path, list[str]], browser: Chromium) -> None:
    page = write_report(odd_run[0])
    tab = browser.open(page, dark=True)
    wide = browser.open(page, width=360, height=740)
    assert wide.run("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    tab.run("window.genres = document.querySelector('[aria-label=genres] table')")
    tab.run("[...genres.tHead.querySelectorAll('button')].find((b) => b.textContent == 'genre').click()")
    names = tab.run("[...genres.tBodies[0].rows].map((row) => row.cells[0].textContent)")
    assert sorted(names) == sorted(odd_run[1])
    assert names.index("genre 2") < names.index("genre 10") < names.index("r&b")
    tab.run("document.querySelectorAll('.find input')[0].focus()")
    tab.type("<B>")
    shown = tab.run("[...genres.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[0].textContent)")
    assert shown == ["</svg></style><b>"]
    assert tab.errors == wide.errors == []


def test_report_is_deterministic(run: Path, tmp_path: Path) -> None:
    first, second = write_report(run, tmp_path / "deep/a.html"), write_report(run, tmp_path / "b.html")
    assert first.read_bytes() == second.read_bytes()


def test_report_states_missing_evaluation_graph_and_retrieval(small_store: FeatureStore, tmp_path: Path) -> None:
    path = _run(small_store, tmp_path / "young", evaluated=False, head="linear", contrastive=False)
    page = _parse(write_report(path)).text
    assert "not evaluated yet. Run mgc evaluate" in page
    (warning,) = json.loads((path / "run.json").read_text())["warnings"]
    assert warning in page, "warnings of training do not wait for an evaluation"
    assert "The head of this model is linear: it has no genre graph." in page
    evaluate(path, small_store, split="validation", n_replicates=0)
    page = _parse(write_report(path)).text
    assert "Metrics on the validation split" in page
    assert "need scores of the test tracks" in page
    assert "Not measured: the model has no audio-lyrics projections" in page


def test_report_states_why_there_is_no_genre_graph(run: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    why = {
        ("ru2023", "query"): "The head of this model is query: it has no genre graph.",
        ("ru2023", "linear"): "The head of this model is linear: it has no genre graph.",
        ("santana", "graph"): "The system santana has no genre graph.",
        ("ru2023", "graph"): "The run has not written its genre graph yet.",
    }
    for (model, head), sentence in why.items():
        young = tmp_path / f"{model}-{head}"
        young.mkdir()
        (young / "config.yaml").write_text(yaml.safe_dump(config | {"model": model, "head": head}))
        page = _parse(write_report(young)).text
        assert [text in page for text in why.values()] == [text == sentence for text in why.values()]


def test_captions_mention_intervals_only_if_the_page_has_some(run: Path, tmp_path: Path) -> None:
    """The runs have too few test artists; the others are the same with intervals in their ``metrics.json``."""
    narrow, wide, wider = (shutil.copytree(run, tmp_path / name) for name in ("narrow", "wide", "wider"))
    for path in (wide, wider):
        document = unseal(path / "metrics.json")
        _add_intervals(document)
        (path / "metrics.json").write_bytes(seal(document))
    promise = re.compile(
        r"CI\)? (?:below each value|is from)|CI, from [^.]* is below each value|CI: confidence interval"
    )
    for first, second, counts in ((run, narrow, (0, 0)), (wide, wider, (3, 1))):
        pages = write_report(first, tmp_path / "run.html"), write_comparison([first, second], tmp_path / "all.html")
        texts = [_parse(page).text for page in pages]
        assert tuple(len(promise.findall(text)) for text in texts) == counts  # summary, metrics, retrieval; metrics
        assert all(("No confidence intervals: too few artists" in text) == (counts == (0, 0)) for text in texts)


def _add_intervals(document: Any) -> None:
    for value in document.values() if isinstance(document, dict) else document:
        if isinstance(value, dict | list):
            _add_intervals(value)
    if isinstance(document, dict) and document.get("value") is not None and "low" in document:
        document |= {"low": document["value"] - 0.01, "high": document["value"] + 0.01}


@pytest.mark.parametrize(("reduction", "expected"), [("mean", 2.0), ("sum", 0.5)])
def test_classification_losses_of_training_and_validation_are_both_means_over_genres(
    monkeypatch: pytest.MonkeyPatch, reduction: str, expected: float
) -> None:
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(report_of_run, "line_chart", lambda x, curves, **options: drawn.update(curves))
    epochs = [{"epoch": 1, "loss": 3.0, "classification": 2.0, "val_bce": 0.4, "val_map": 0.5}]
    report_of_run._course(epochs, {"bce_reduction": reduction}, 4)
    assert drawn["training (cross-entropy)"] == [expected]
    assert drawn["validation (cross-entropy)"] == [0.4]


def test_report_ignores_a_truncated_line_of_the_history(run: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(run, cut)
    with (cut / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "lo')
    assert "for 2 epochs" in _parse(write_report(cut)).text


def test_report_refuses_folders_that_are_not_runs(tmp_path: Path, run: Path) -> None:
    with pytest.raises(RunError, match=r"config\.yaml is missing"):
        write_report(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    (broken / "metrics.json").write_text("{")
    with pytest.raises(RunError, match=r"metrics\.json: cannot be read"):
        write_report(broken)


def test_report_shows_provenance(run: Path, written: Path, tmp_path: Path) -> None:
    about, page = json.loads((run / "run.json").read_text()), _parse(written).text
    (session,) = about["sessions"]
    own = {"python": platform.python_version(), "mgc": mgc.__version__}
    assert session["versions"] == own | _versions("torch", "numpy")
    started = datetime.fromisoformat(session["started_utc"])
    assert timedelta(0) <= datetime.now(UTC) - started < timedelta(hours=1)
    assert session["started_utc"][:10] in page
    assert " ".join(shlex.join(sys.argv[1:]).split()) in page
    assert "torch" in about["store_versions"]
    assert about["fingerprints"]["mel"] in page
    assert "mel clip_s 1.0" in page
    assert f"lyrics weights_sha256 {'a' * 64}" in page


def _versions(*names: str) -> dict[str, str]:
    return {name: metadata.version(name) for name in names}


def test_provenance_lists_every_training_session(run: Path, small_store: FeatureStore, tmp_path: Path) -> None:
    resumed = shutil.copytree(run, tmp_path / "resumed")
    config = TrainConfig(encoder="tiny", epochs=3, lr=1e-3, device="cpu", batch_size=32)
    train(small_store, resumed, config, resume=True)
    sessions = json.loads((resumed / "run.json").read_text())["sessions"]
    assert [session["after_epoch"] for session in sessions] == [0, 2]
    assert sessions[0] == json.loads((run / "run.json").read_text())["sessions"][0]
