"""From a collection to a job array of SLURM: manifest, forecast, script, submission."""

from __future__ import annotations

import dataclasses
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache.errors import ConfigError
from ..cache.format.plan import SEALED_SUFFIXES, is_store
from ..cache.format.records import committed
from ..cache.places import refuse_object_store
from ..cache.steps import Progress, silent
from ..pipeline.extraction.options import ExtractOptions
from .extraction import plan
from .shared import extra
from .sources import ReadSource, manifest_root, write_manifest

if TYPE_CHECKING:
    from ..pipeline.extraction.forecast import Forecast
    from ..pipeline.extraction.slurm import ArraySize, ClusterOptions


@dataclass(frozen=True, kw_only=True)
class ClusterJob:
    """A job array that was written, and perhaps submitted.

    Attributes
    ----------
    script, manifest, logs : paths.
    size : of the array.
    command : program and arguments of each task, without ``--shard``.
    forecast : that the size comes from; None if all of the size was given.
    jobs : numbers of the array and of the job after it; empty if they were not submitted.
    """

    script: Path
    manifest: Path
    logs: Path
    size: ArraySize
    command: tuple[str, ...]
    forecast: Forecast | None
    jobs: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        return values | {name: str(values[name]) for name in ("script", "manifest", "logs")}


def cluster(
    read: ReadSource,
    store: Path,
    options: ExtractOptions | None = None,
    cluster_options: ClusterOptions | None = None,
    *,
    folder: Path | None = None,
    sample: int | None = None,
    submit: bool = False,
    on_progress: Progress = silent,
) -> ClusterJob:
    """Write an extraction as a job array of SLURM, and submit it if `submit`.

    Parameters
    ----------
    read : tracks, from :func:`read_source`. Their manifest is written once, so that the tasks need not read the source.
    store : a Zarr store, on a file system that all nodes see at the same path, like the audio files.
    options : of the extraction.
    cluster_options : size, time limit and memory of the array, and lines of the script.
    folder : of script, manifest and logs; None for ``STORE.jobs``.
    sample : tracks of the trial, unless a forecast is next to the store, or the whole size is given.

    Raises
    ------
    ConfigError
        If an option cannot be used in a job array, SLURM cannot write to `folder`, or ``sbatch`` refuses the job.
    """
    with extra("extract"):
        from ..pipeline.extraction import slurm

    options, cluster_options = options or ExtractOptions(), cluster_options or slurm.ClusterOptions()
    flags = slurm.extract_arguments(options)
    refuse_object_store(store)
    if store.suffix in SEALED_SUFFIXES:
        raise ConfigError(f"{store}: a job array needs a Zarr store. Seal it afterwards with `mgc store convert`.")
    if not read.source.tracks:
        raise ConfigError("no tracks to extract: the source is empty, or the filters removed all tracks")
    if submit and shutil.which("sbatch") is None:
        raise ConfigError("--submit: there is no sbatch here. Submit on a node of the cluster, without --submit.")
    folder = (folder or store.with_name(f"{store.name}.jobs")).absolute()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: a file. Give a folder as --jobs.")
    script, manifest, logs = folder / "extract.sh", folder / "tracks.jsonl", folder / "logs"
    if re.search(r"[\s%\\]", str(logs)):
        raise ConfigError(f"{logs}: SLURM cannot write logs there, because of a space, % or \\. Use --jobs.")
    forecast = _forecast(read, store, options, cluster_options, sample, on_progress)
    decodes = "mel" in options.features or options.add is not None
    size = slurm.array_size(forecast, cluster_options, decodes=decodes)
    command = [sys.executable, "-m", "mgc"]
    if cluster_options.container is not None:
        command = ["apptainer", "exec", str(cluster_options.container.absolute()), "mgc"]
    source = read.source
    root = manifest_root(source, folder)
    command += ["extract", str(manifest), "--root", str(root), "--no-tags", "-o", str(store.absolute()), *flags]
    if source.lyrics_encoding is not None:
        command += ["--lyrics-encoding", source.lyrics_encoding]
    text = slurm.script(command, size, cluster_options, name=f"mgc-{store.stem}", logs=logs)
    logs.mkdir(parents=True, exist_ok=True)
    write_manifest(read, manifest)
    slurm.write_script(script, text)
    return ClusterJob(
        script=script,
        manifest=manifest,
        logs=logs,
        size=size,
        command=tuple(command),
        forecast=forecast,
        jobs=slurm.submit(script) if submit else (),
    )


def _forecast(
    read: ReadSource,
    store: Path,
    options: ExtractOptions,
    cluster_options: ClusterOptions,
    sample: int | None,
    on_progress: Progress,
) -> Forecast | None:
    """Return the forecast next to the store, or of a new trial; None if nothing depends on it."""
    from ..pipeline.extraction.forecast import load_forecast

    if None not in (cluster_options.tasks, cluster_options.hours, cluster_options.memory_gb):
        return None
    if options.add is not None:
        raise ConfigError("--add: no trial can forecast an added feature set. Give --tasks, --hours and --memory-gb.")
    forecast = load_forecast(store)
    if forecast is None or forecast.tracks != len(read.source.tracks) or sample is not None:
        forecast = plan(read.source, store, options, sample=sample, on_progress=on_progress)
    left = forecast.parts - len(committed(store)) if is_store(store) else forecast.parts
    return forecast.of_parts(left) if 0 < left < forecast.parts else forecast
