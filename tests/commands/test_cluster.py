"""`mgc cluster`: the job array that it writes and submits. benchmarks/cluster runs it on SLURM."""

from __future__ import annotations

import dataclasses
import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from benchmarks.worlds.small_store import tree
from mgc.cache.errors import ConfigError
from mgc.pipeline.extraction.forecast import Forecast
from mgc.pipeline.extraction.options import ExtractOptions
from mgc.pipeline.extraction.slurm import (
    TEMPLATE,
    ArraySize,
    ClusterOptions,
    array_size,
    extract_arguments,
    script,
)

FORECAST = Forecast(
    tracks=100_000,
    parts=782,
    part_rows=128,
    workers=2,
    seconds=50_000.0,
    low_s=45_000.0,
    high_s=55_000.0,
    n_bytes=10**9,
    track_s=1.0,
    start_s=10.0,
    sampled=64,
    failed=0,
    memory_bytes=800 * 2**20,
    measured_workers=2,
)
SIZE = ArraySize(tasks=3, expected_minutes=60.0, minutes=150, memory_mb=3072)
MEL = ("--features", "mel", "--clip-s", "1", "--part-rows", "2")


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """Seven tones in a folder with a space in its name."""
    folder = tmp_path / "my songs"
    folder.mkdir()
    for i in range(7):
        wave = 0.3 * np.sin(2 * np.pi * 110 * (i + 1) * np.arange(22_050) / 22_050)
        soundfile.write(folder / f"{i}.wav", wave.astype(np.float32), 22_050)
    return folder


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for sbatch: write its arguments to a file and print a job number; refuse a script named refused."""
    program, log = tmp_path / "bin" / "sbatch", tmp_path / "sbatch.log"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/bash\nif [[ "${@: -1}" == *refused* ]]; then echo "invalid partition" >&2; exit 1; fi\n'
        f'echo "$@" >> {shlex.quote(str(log))}\necho "$(wc -l < {shlex.quote(str(log))});cluster"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return log


def test_array_has_tasks_of_an_hour_and_a_limit_of_twice_their_time() -> None:
    size = array_size(FORECAST, ClusterOptions())
    assert size.tasks == 31  # 100 000 tracks of 1.1 s at the upper end of the interval
    assert 60 <= (size.expected_minutes or 0) <= 65
    assert 2 * (size.expected_minutes or 0) + 30 <= size.minutes <= 2 * (size.expected_minutes or 0) + 60
    assert size.memory_mb == 3 * 1024  # a quarter more than 800 MiB, and 2 GiB for a decoder
    assert array_size(FORECAST, ClusterOptions(), decodes=False).memory_mb == 1024
    assert array_size(FORECAST, ClusterOptions(tasks=1000)).tasks == FORECAST.parts


def test_time_limit_that_is_too_short_for_a_part_is_refused() -> None:
    with pytest.raises(ConfigError, match="a part of 128 tracks takes longer than 6 minutes"):
        array_size(dataclasses.replace(FORECAST, track_s=3.0), ClusterOptions(hours=0.1))


def test_only_options_that_define_features_become_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("encoder").mkdir()
    options = ExtractOptions(features=("mel", "lyrics"), clip_s=10.0, text_model="encoder", append=True)
    folder = str(tmp_path / "encoder")
    expected = ["--features", "mel,lyrics", "--clip-s", "10.0", "--text-model", folder, "--append"]
    assert extract_arguments(options) == expected
    assert extract_arguments(ExtractOptions(text_model="minilm")) == ["--text-model", "minilm"]
    added = extract_arguments(ExtractOptions(add="net", audio_model="hf:encoder", audio_layers="4,8"))
    assert sorted(added) == sorted(["--add", "net", "--audio-model", f"hf:{folder}", "--audio-layers", "4,8"])
    of_hub = extract_arguments(ExtractOptions(add="net", audio_model="hf:owner/net"))
    assert of_hub == ["--audio-model", "hf:owner/net", "--add", "net"]
    for unfit in ({"workers": 2}, {"shard": (1, 2)}, {"retry_failed": True}):
        with pytest.raises(ConfigError, match="not for job arrays"):
            extract_arguments(ExtractOptions(**unfit))


def test_script_is_valid_shell_and_quotes_its_command(tmp_path: Path) -> None:
    options = ClusterOptions(directives=("--partition=cpu",), setup=("module load ffmpeg",))
    text = script(["mgc", "extract", "$(touch pwned); 'x"], SIZE, options, name="a b", logs=tmp_path)
    file = tmp_path / "job.sh"
    file.write_text(text)
    subprocess.run(["bash", "-n", file], check=True)
    assert "#SBATCH --partition=cpu\n" in text
    assert "#SBATCH --job-name=a_b\n" in text
    assert shlex.join(["mgc", "extract", "$(touch pwned); 'x"]) in text
    assert text.index("#SBATCH --partition") < text.index("module load ffmpeg") < text.index("mgc extract")
    assert "{{" not in text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("#!/bin/bash\n{{comand}}\n", r"unknown placeholder \{\{comand\}\}"),
        ("#!/bin/bash\nmgc extract\n", r"no \{\{command\}\}"),
        (None, "cannot be read"),
    ],
)
def test_template_that_cannot_be_used_is_refused(tmp_path: Path, template: str | None, message: str) -> None:
    file = tmp_path / "site.sh"
    if template is not None:
        file.write_text(template)
    with pytest.raises(ConfigError, match=message):
        ClusterOptions(template=file)


def test_printed_template_gives_the_same_script_as_the_built_in_one(tmp_path: Path, call: Any) -> None:
    file = tmp_path / "site.sh"
    file.write_text(call("cluster", "--print-template").out)
    arguments: dict[str, Any] = {"name": "s", "logs": tmp_path}
    own = script(["mgc"], SIZE, ClusterOptions(template=file), **arguments)
    assert own == script(["mgc"], SIZE, ClusterOptions(), **arguments)
    assert file.read_text() == TEMPLATE


def test_line_break_in_an_option_is_refused() -> None:
    with pytest.raises(ConfigError, match="line break"):
        ClusterOptions(setup=("module load\nrm",))


def test_tasks_of_the_written_script_make_the_store_of_one_extraction(tmp_path: Path, songs: Path, call: Any) -> None:
    """The script runs under bash, as SLURM runs it: each task of the array, and task 0 for what is left."""
    call("extract", songs, "-o", tmp_path / "alone.zarr", *MEL, "--workers", 0)
    job = call("cluster", songs, "-o", tmp_path / "s.zarr", *MEL, "--sample", 4, "--json").json
    assert job["size"]["tasks"] == 1
    assert job["forecast"]["tracks"] == 7
    job = call("cluster", songs, "-o", tmp_path / "s.zarr", *MEL, "--tasks", 3, "--json").json
    assert job["size"]["tasks"] == 3
    text = Path(job["script"]).read_text()
    for task in (1, 3, 0):  # task 2 does not run
        done = subprocess.run(
            ["bash", "-c", text],
            env={"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_JOB_ID": "1", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert ("pending" in done.stdout) == (task != 0), done.stdout
    assert tree(tmp_path / "s.zarr") == tree(tmp_path / "alone.zarr")


def test_job_and_the_job_after_it_are_submitted(tmp_path: Path, songs: Path, call: Any, sbatch: Path) -> None:
    size = ("--tasks", 2, "--hours", 1, "--memory-gb", 1)
    job = call("cluster", songs, "-o", tmp_path / "s.zarr", *MEL, *size, "--submit", "--json").json
    assert job["jobs"] == ["1", "2"]
    assert job["forecast"] is None
    first, second = sbatch.read_text().splitlines()
    assert first == f"--parsable {job['script']}"
    assert second == f"--parsable --array=0 --dependency=afterany:1 {job['script']}"
    out = call("cluster", songs, "-o", tmp_path / "s.zarr", *MEL, *size, "--submit").out
    assert "submitted as job 3; after it, job 4 extracts what is left" in out


def test_refusal_of_sbatch_is_shown(tmp_path: Path, songs: Path, call: Any, sbatch: Path) -> None:
    size = ("--tasks", 2, "--hours", 1, "--memory-gb", 1, "--jobs", tmp_path / "refused")
    failed = call("cluster", songs, "-o", tmp_path / "s.zarr", *MEL, *size, "--submit")
    assert failed.code == 2
    assert "sbatch refused the job: invalid partition" in failed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "s.h5"), "needs a Zarr store"),
        (("-o", "s.zarr", "--add", "pooled_mel"), "Give --tasks, --hours and --memory-gb"),
        (("-o", "my store.zarr", "--tasks", "1", "--hours", "1", "--memory-gb", "1"), "SLURM cannot write logs there"),
        ((), "SOURCE and -o STORE are needed"),
    ],
)
def test_what_a_job_array_cannot_do_is_refused(
    tmp_path: Path, songs: Path, call: Any, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = call("cluster", songs, *arguments)
    assert refused.code == 2
    assert message in refused.err
    assert not list(tmp_path.glob("*.jobs"))


def test_manifest_is_read_as_the_source_was(tmp_path: Path, songs: Path, call: Any) -> None:
    """Filters, labels and the encoding of lyrics are applied once."""
    labels = tmp_path / "labels.csv"
    labels.write_text("path,genres\n" + "".join(f"{i}.wav,rock\n" for i in range(5)))
    size = ("--tasks", 2, "--hours", 1, "--memory-gb", 1)
    filters = ("--labels", labels, "--min-labels", 1, "--lyrics-encoding", "cp1251")
    job = call("cluster", songs, *filters, "-o", tmp_path / "s.zarr", *MEL, *size, "--json").json
    lines = [json.loads(line) for line in Path(job["manifest"]).read_text().splitlines()]
    assert len(lines) == 5
    assert job["command"][-2:] == ["--lyrics-encoding", "cp1251"]
    assert "--no-tags" in job["command"]
