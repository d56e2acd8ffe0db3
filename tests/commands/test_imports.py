"""Wrong paths and options are refused before anything heavy is imported, and a command imports only what it needs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mgc.cache.reading.store import FeatureStore

FROZEN = json.loads(Path(__file__).with_name("options.json").read_text())

REFUSED: tuple[tuple[str, str], ...] = (
    ("manifest {no}", "no/such"),
    ("manifest {audio} --root {no}", "no/such"),
    ("manifest {audio} --labels {no}", "no/such"),
    ("manifest {audio} -o {tmp}/tracks.csv", "not a .jsonl file"),
    ("manifest {audio} --merge-genres {no}", "no/such"),
    ("manifest {audio} --dataset nonsense", "nonsense"),
    ("plan {no}", "no/such"),
    ("plan {audio} --root {no}", "no/such"),
    ("plan {audio} --labels {no}", "no/such"),
    ("plan {audio} -o {no}/s.zarr --text-model {no}", "no/such"),
    ("plan {audio} --features chroma", "chroma"),
    ("extract {no} -o {tmp}/s.zarr", "no/such"),
    ("extract {audio} -o {audio}", "feature store"),
    ("extract {audio} -o {audio}/a.wav --features mel", "has the name of the store"),
    ("extract {audio} -o {tmp}/s.zarr --root {no}", "no/such"),
    ("extract {audio} -o {tmp}/s.zarr --labels {no}", "no/such"),
    ("extract {audio} -o {tmp}/s.zarr --scheduler-file {no}", "no/such"),
    (
        "extract {audio} -o {tmp}/s.h5 --scheduler tls://a --tls-ca {no} --tls-cert {song} --tls-key {song}",
        "no/such",
    ),
    ("extract {audio} -o {tmp}/s.h5 --scheduler tls://a --tls-ca {song} --tls-cert {no} --tls-key {song}", "no/such"),
    ("extract {audio} -o {tmp}/s.h5 --scheduler tls://a --tls-ca {song} --tls-cert {song} --tls-key {no}", "no/such"),
    ("extract {audio} -o {tmp}/s.zarr --scheduler tcp://a:1", "plain TCP"),
    ("extract {audio} -o {tmp}/s.zarr --text-model {no}", "no/such"),
    ("extract {audio} -o {tmp}/s.zarr --text-model minilm --genre-names {no}", "no/such"),
    ("extract {audio} -o {store} --add nonsense", "nonsense"),
    ("extract {audio} -o {store} --add pooled_mel", "only in the store"),
    ("extract {audio} -o {store} --features mel", "in the store, absent in this command"),
    ("extract {audio} -o {tmp}/s.zarr --shard 4/3", "4/3"),
    ("extract {audio} -o {tmp}/s.zarr --max-failures some", "some"),
    ("train {no} -o {tmp}/r", "no/such"),
    ("train {store} -o {tmp}/r --labels {no}", "no/such"),
    ("train {store} -o {tmp}/r --merge-genres {no}", "no/such"),
    ("train {store} -o {tmp}/r --genres-file {no}", "no/such"),
    ("train {store} -o {tmp}/r --text other", "other"),
    ("train {store} -o {tmp}/r --set nonsense=1", "nonsense"),
    ("train {store} -o {tmp}/r --set width=wide", "width"),
    ("train {store} -o {tmp}/r --dry-run --set width=wide", "width"),
    ("train {no} -o {tmp}/r --dry-run", "no/such"),
    ("cluster {no} -o {tmp}/s.zarr", "no/such"),
    ("cluster {audio} -o {tmp}/s.h5", "needs a Zarr store"),
    ("cluster {audio} -o {tmp}/s.zarr --labels {no}", "no/such"),
    ("cluster {audio} -o {tmp}/s.zarr --root {no}", "no/such"),
    ("cluster {audio} -o {tmp}/s.zarr --template {no}", "no/such"),
    ("cluster {audio} -o {tmp}/s.zarr --container {no}", "no/such"),
    ("cluster {audio} -o {tmp}/s.zarr --jobs {song}", "song|a.wav"),
    ("train {store} -o {tmp}/r --lambda 2", "lambda"),
    ("evaluate {no} {store}", "no/such"),
    ("evaluate {run} {no}", "no/such"),
    ("evaluate {run} {store} --labels {no}", "no/such"),
    ("evaluate {run} {store} --split nonsense", "nonsense"),
    ("compare {no} {run}", "no/such"),
    ("compare {run} {no}", "no/such"),
    ("ablate {no} -o {tmp}/a", "no/such"),
    ("ablate {store} -o {tmp}/a --genre-names-store {no}", "no/such"),
    ("ablate {store} -o {tmp}/a --labels {no}", "no/such"),
    ("ablate {store} -o {tmp}/a --genres-file {no}", "no/such"),
    ("ablate {store} -o {tmp}/a --tables nonsense", "nonsense"),
    ("ablate {store} -o {tmp}/a --set width=wide", "width"),
    ("embed {no} {store} -o {tmp}/v.parquet", "no/such"),
    ("embed {run} {no} -o {tmp}/v.parquet", "no/such"),
    ("embed {run} {store} -o {tmp}/v.csv", ".parquet"),
    ("similar {no} a", "no/such"),
    ("similar {no}.parquet --text a --run {no}", "no/such"),
    ("similar {store} {song} --feature nonsense", "nonsense"),
    ("predict {no} {song}", "no/such"),
    ("predict {run} {no}", "no/such"),
    ("predict {run} {song} --lyrics {no}", "no/such"),
    ("predict {run} {song} -o {tmp}/scores.txt", "scores.txt"),
    ("predict {run} {song} --threshold 2", "threshold '2'"),
    ("predict {run} {store} --windows all", "--windows all"),
    ("predict {run} {audio} --timeline {tmp}/t.txt", "unknown format of a timeline"),
    ("explain {no} {song}", "no/such"),
    ("explain {run} {no}", "no/such"),
    ("explain {run} {song} --lyrics {no}", "no/such"),
    ("explain {run} {song} --threshold 2", "threshold '2'"),
    ("explain {run} {song} -o {tmp}/page.txt", "Use the suffix .html"),
    ("explain {run} {store}", "--track"),
    ("tag {audio} --timeline {tmp}/t.txt", "unknown format of a timeline"),
    ("tag {no}", "no/such"),
    ("tag {song} -o {tmp}/tags.txt", "tags.txt"),
    ("report {no}", "no/such"),
    ("report {run} --audio-root {no}", "no/such"),
    ("report {store} --audio-root {audio}", "audio-root"),
    ("store info {no}", "no/such"),
    ("store duplicates {no}", "no/such"),
    ("store failures {no}", "no/such"),
    ("store labels {no}", "no/such"),
    ("store labels {store} --run {no}", "no/such"),
    ("store verify {no}", "no/such"),
    ("store repair {no}", "no/such"),
    ("store repair {store} --source {no}", "no/such"),
    ("store repair {store} --source {audio} --root {no}", "no/such"),
    ("store repair {store} --source {audio} --labels {no}", "no/such"),
    ("store copy {no} {tmp}/s.zarr", "no/such"),
    ("store copy {store} {store}", "the same place"),
    ("store convert {no} {tmp}/s.h5", "no/such"),
    ("store convert {store} {store}", "ends in .h5"),
    ("store select {no} -o {tmp}/t.zarr", "no/such"),
    ("store select {store} -o {store}", "already exists"),
    ("store select {store} -o {tmp}/t.zarr --genre-names {no}", "no/such"),
    ("store merge {no} {store} -o {tmp}/t.zarr", "no/such"),
    ("store merge {store} {store} -o {tmp}/t.zarr", "two or more different stores"),
    ("store export {no} --to npy -o {tmp}/npy", "no/such"),
    ("store export {store} --to npy -o {audio}", "holds other files"),
    ("store export {store} --to npy -o {tmp}/npy --feature chroma", "chroma"),
    ("store drop {no} t0000", "no/such"),
    ("store drop {store} nobody", "nobody"),
    ("store compact {no}", "no/such"),
    ("demo -o {song}", "song|a.wav"),
)
"""Command lines, and what their error names."""

WRITTEN = {
    ("mgc report", "output"),
    ("mgc store labels", "output"),
    ("mgc store select", "output"),
    ("mgc store merge", "output"),
}
"""Paths of files that a command writes, which cannot be wrong before it has the content."""

RUNNER = """
import contextlib, io, json, sys

HEAVY = {"torch", "transformers", "librosa", "sklearn", "scipy", "matplotlib", "dask", "distributed"}

class Imported(BaseException):
    pass

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise Imported(name)

sys.meta_path.insert(0, Refuse())
from mgc import cli

results = []
for arguments in json.load(sys.stdin):
    sys.argv, output = ["mgc", *arguments], io.StringIO()
    with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
        try:
            cli.main()
        except SystemExit as end:
            results.append([end.code, output.getvalue()])
        except Imported as name:
            results.append([f"imports {name}", output.getvalue()])
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, small_store: FeatureStore, evaluated_run: Path) -> dict[str, Path]:
    tmp = tmp_path_factory.mktemp("places")
    (tmp / "audio").mkdir()
    seconds = np.arange(22_050 * 2) / 22_050
    soundfile.write(tmp / "audio" / "a.wav", (0.3 * np.sin(2 * np.pi * 220 * seconds)).astype(np.float32), 22_050)
    return {
        "tmp": tmp,
        "no": tmp / "no" / "such",
        "audio": tmp / "audio",
        "song": tmp / "audio" / "a.wav",
        "store": small_store.path,
        "run": evaluated_run,
    }


def test_wrong_paths_and_options_are_refused_before_heavy_imports(places: dict[str, Path]) -> None:
    commands = [[word.format_map(places) for word in line.split()] for line, _ in REFUSED]
    done = subprocess.run(
        [sys.executable, "-c", RUNNER], input=json.dumps(commands), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    wrong = [
        f"mgc {line}: {code}, {text[-300:]}"
        for (line, error), (code, text) in zip(REFUSED, results, strict=True)
        if code != 2 or "Traceback" in text or not re.search(error, " ".join(text.split()))
    ]
    assert wrong == [], "\n".join(wrong)


def test_a_case_covers_every_path_that_a_command_takes() -> None:
    lines = [line.split() for line, _ in REFUSED]
    for command, parameters in FROZEN.items():
        words = command.split()[1:]
        own = [line[len(words) :] for line in lines if line[: len(words)] == words]
        for name, about in parameters.items():
            if "pathlib.Path" not in about["kind"] or name == "config" or (command, name) in WRITTEN:
                continue
            assert any(set(about["spellings"]) & set(line) for line in own) or (
                not about["spellings"][0].startswith("-") and any(line[:1] == ["{no}"] for line in own)
            ), f"mgc {command}: no case has a wrong {name}"


def test_predict_of_one_song_imports_only_what_it_computes_with(places: dict[str, Path]) -> None:
    """The model needs torch and the clip needs scipy's FFT; metrics, compilers, clusters and plots are not needed."""
    script = "import sys; from mgc import cli\ntry: cli.main()\nfinally: print(*sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", script, "predict", str(places["run"]), str(places["song"])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "rock" in done.stdout
    modules = set(done.stderr.split())
    assert "torch" in modules
    not_needed = {"sklearn", "scipy.stats", "torch._dynamo", "transformers", "librosa", "distributed", "matplotlib"}
    assert modules & not_needed == set()
