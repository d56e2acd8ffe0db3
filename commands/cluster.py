"""The command `mgc cluster`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..cache.errors import ConfigError
from ..cache.messages import counted, duration
from ..pipeline.extraction.options import ExtractOptions
from ..pipeline.sources.options import SourceOptions
from . import api
from .console import Terminal, to_stdout
from .options import SOURCE, Config, content_flags, source_flags, verbose_flags

if TYPE_CHECKING:
    from ..api.cluster import ClusterJob


def cluster(
    *,
    source: Annotated[Path | None, SOURCE] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Feature store to create or continue.", show_default=False)
    ] = None,
    submit: Annotated[bool, typer.Option("--submit", help="Submit the job with sbatch.")] = False,
    tasks: Annotated[
        int | None, typer.Option(min=1, help="Tasks of the array.", show_default="about one hour of work each")
    ] = None,
    hours: Annotated[
        float | None,
        typer.Option(min=0.05, help="Time limit of a task.", show_default="twice the forecast, and half an hour"),
    ] = None,
    memory_gb: Annotated[
        float | None, typer.Option(min=0.1, help="Memory of a task.", show_default="from the trial")
    ] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(metavar="OPTION", help="Option for sbatch, such as --partition=cpu; repeatable."),
    ] = None,
    setup: Annotated[
        list[str] | None,
        typer.Option(metavar="LINE", help="Shell line before mgc, such as 'module load ffmpeg'; repeatable."),
    ] = None,
    container: Annotated[Path | None, typer.Option(help="Apptainer image with mgc.")] = None,
    jobs: Annotated[
        Path | None, typer.Option(help="Folder of script, manifest and logs.", show_default="STORE.jobs")
    ] = None,
    template: Annotated[Path | None, typer.Option(help="Script of your site, with the same placeholders.")] = None,
    print_template: Annotated[bool, typer.Option("--print-template", help="Print the built-in script.")] = False,
    sample: Annotated[
        int | None,
        typer.Option(min=1, help="Tracks in the trial.", show_default="a saved forecast, or as for mgc plan"),
    ] = None,
    tracks: Annotated[SourceOptions, source_flags],
    options: Annotated[ExtractOptions, content_flags],
    config: Config = None,
    terminal: Annotated[Terminal, verbose_flags],
) -> None:
    """Write an extraction as a SLURM job array, sized by a forecast, and submit it.

    Tasks that are killed or run out of time continue. A last job extracts what they left.

    Examples:
      mgc cluster music4all/ -o m4a.zarr
      mgc cluster music4all/ -o m4a.zarr --sbatch=--partition=cpu --submit
      mgc cluster songs.csv -o songs.zarr --hours 4 --setup 'module load ffmpeg'
      mgc cluster --print-template
    """
    from ..pipeline.extraction.slurm import TEMPLATE, ClusterOptions

    if print_template:
        to_stdout(TEMPLATE.rstrip("\n"))
        return
    if source is None or output is None:
        raise ConfigError("SOURCE and -o STORE are needed, as for `mgc extract`.")
    cluster_options = ClusterOptions(
        tasks=tasks,
        hours=hours,
        memory_gb=memory_gb,
        directives=tuple(sbatch or ()),
        setup=tuple(setup or ()),
        container=container,
        template=template,
    )
    with terminal.progress() as steps:
        read = api.read_source(source, tracks, on_progress=steps)
    terminal.remark(read.remarks)
    with terminal.progress() as steps:
        job = api.cluster(
            read, output, options, cluster_options, folder=jobs, sample=sample, submit=submit, on_progress=steps
        )
    terminal.emit(job.to_dict(), lambda: _print(job, output))


def _print(job: ClusterJob, store: Path) -> None:
    size = job.size
    expected = "" if size.expected_minutes is None else f" of about {duration(60 * size.expected_minutes)}"
    limits = f"time limit {duration(60 * size.minutes)}, {size.memory_mb / 1024:g} GiB of memory"
    to_stdout(f"{job.script}: {counted(size.tasks, 'task')}{expected}; {limits} each")
    if job.jobs:
        to_stdout(f"submitted as job {job.jobs[0]}; after it, job {job.jobs[1]} extracts what is left")
    else:
        to_stdout(f"submit:      sbatch {job.script}")
        to_stdout(f"then:        sbatch --array=0 --dependency=afterany:JOB {job.script}")
    to_stdout(f"progress:    mgc store info {store} --watch")
    to_stdout(f"output:      {job.logs}")
