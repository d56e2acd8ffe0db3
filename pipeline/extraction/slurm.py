"""Write an extraction as a SLURM job array, sized by a forecast, and submit it.

Each task of the array extracts every n-th part. A task 0, which runs after the array, extracts what its tasks left.
"""

from __future__ import annotations

import dataclasses
import math
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ...cache.bounds import Between, check_options
from ...cache.distribution import __version__
from ...cache.durable import replace_file
from ...cache.errors import ConfigError
from ..audio.clip_reader import ClipLimits
from ..extractors.audio_models import PREFIX
from .forecast import Forecast
from .options import ExtractOptions

TASK_S = 3600.0
"""Forecast work of a task, in seconds."""
MOST_TASKS = 1000
"""SLURM refuses larger arrays unless a site raises its limit MaxArraySize."""
TEMPLATE = """\
#!/bin/bash
# {{about}}
#SBATCH --job-name={{name}}
#SBATCH --array=1-{{tasks}}
#SBATCH --cpus-per-task=1
#SBATCH --mem={{memory_mb}}M
#SBATCH --time={{minutes}}
#SBATCH --output={{logs}}/%A-%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@60
{{directives}}

{{setup}}
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

task=$SLURM_ARRAY_TASK_ID
shard=(--shard "$task/{{tasks}}")
if [ "$task" -eq 0 ]; then shard=(--workers 0); fi  # all that is left

# SLURM sends SIGUSR1 one minute before the time is over: mgc stops within seconds, and the task is queued again.
# It sends SIGTERM to a task that is cancelled.
requeue=0
trap 'requeue=1; kill -TERM "$mgc"' USR1
trap 'kill -TERM "$mgc"' TERM
{{command}} "${shard[@]}" --quiet &
mgc=$!
wait "$mgc"
code=$?
while kill -0 "$mgc" 2>/dev/null; do wait "$mgc"; code=$?; done
if [ "$requeue" -eq 1 ] && [ "$code" -eq 143 ]; then scontrol requeue "${SLURM_ARRAY_JOB_ID}_$task"; fi
exit "$code"
"""
"""Script of the job; a site may use one of its own with the same placeholders. ``{{command}}`` is required."""
_MAYBE_PATHS = ("text_model", "audio_model", "genre_names")
_PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}")


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Options of a job array.

    Attributes
    ----------
    tasks : number of tasks; None for about an hour of work each.
    hours : time limit of a task; None for twice its forecast duration and half an hour more.
    memory_gb : memory of a task; None for a quarter more than measured in the trial, and the limit of a decoder.
    directives : options of ``sbatch``, such as ``--partition=cpu``.
    setup : shell lines that run before mgc, such as ``module load ffmpeg``.
    container : image of Apptainer that has mgc; None for the Python environment of this process.
    template : file of a site's own script; None for :data:`TEMPLATE`.

    Raises
    ------
    ConfigError
        If a value is out of bounds, a line contains a line break, there is no such image, or the template cannot be
        read, has an unknown placeholder, or none for the command.
    """

    tasks: Annotated[int, Between(1, MOST_TASKS)] | None = None
    hours: Annotated[float, Between(0.05, 24 * 365)] | None = None
    memory_gb: Annotated[float, Between(0.1, 10**5)] | None = None
    directives: Sequence[str] = ()
    setup: Sequence[str] = ()
    container: Path | None = None
    template: Path | None = None

    def __post_init__(self) -> None:
        check_options(self)
        for line in (*self.directives, *self.setup):
            if "\n" in line or "\r" in line:
                raise ConfigError(f"{line!r}: has a line break. Give each line on its own.")
        if self.container is not None and not self.container.exists():
            raise ConfigError(f"no such image: {self.container}. Correct --container.")
        _template(self.template)


@dataclass(frozen=True, kw_only=True)
class ArraySize:
    """Size of a job array: number of tasks, and forecast minutes (None: unknown), time limit and memory of each."""

    tasks: int
    expected_minutes: float | None
    minutes: int
    memory_mb: int


def array_size(forecast: Forecast | None, options: ClusterOptions, *, decodes: bool = True) -> ArraySize:
    """Return the size of the job array for an extraction.

    Parameters
    ----------
    forecast : None if `options` give tasks, hours and memory.
    decodes : whether the extraction decodes audio, which a child process with a memory limit does.
    """
    minutes = None if options.hours is None else math.ceil(options.hours * 60)
    memory_mb = None if options.memory_gb is None else math.ceil(options.memory_gb * 1024)
    if forecast is None:
        assert options.tasks is not None
        assert minutes is not None
        assert memory_mb is not None
        return ArraySize(tasks=options.tasks, expected_minutes=None, minutes=minutes, memory_mb=memory_mb)
    slowest_s = forecast.track_s * max(1.0, forecast.high_s / max(forecast.seconds, 1e-9))
    work_s = forecast.tracks * slowest_s
    tasks = options.tasks or min(math.ceil(work_s / TASK_S), MOST_TASKS)
    tasks = max(1, min(tasks, forecast.parts))
    task_s = forecast.start_s + math.ceil(forecast.parts / tasks) * forecast.part_rows * slowest_s
    minutes = minutes or math.ceil(2 * task_s / 1800 + 1) * 30
    if minutes * 60 < forecast.start_s + forecast.part_rows * slowest_s:
        raise ConfigError(
            f"a part of {forecast.part_rows} tracks takes longer than {minutes} minutes. "
            "Use more --hours, or fewer --part-rows."
        )
    needed = 1.25 * forecast.memory_bytes + (ClipLimits().memory_bytes if decodes else 0)
    memory_mb = memory_mb or math.ceil(needed / 2**30) * 1024
    return ArraySize(tasks=tasks, expected_minutes=round(task_s / 60, 1), minutes=minutes, memory_mb=memory_mb)


def script(command: Sequence[str], size: ArraySize, options: ClusterOptions, *, name: str, logs: Path) -> str:
    """Return the script of the job.

    Parameters
    ----------
    command : program and arguments of the extraction, without ``--shard``.
    name : of the job.
    logs : folder of its output.
    """
    values: Mapping[str, object] = {
        "about": f"Written by `mgc cluster` (version {__version__}). Submit it by sbatch.",
        "name": re.sub(r"[^\w.-]", "_", name),
        "tasks": size.tasks,
        "memory_mb": size.memory_mb,
        "minutes": size.minutes,
        "logs": logs,
        "directives": "\n".join(f"#SBATCH {directive}" for directive in options.directives),
        "setup": "\n".join(options.setup),
        "command": shlex.join(command),
    }
    return _PLACEHOLDER.sub(lambda match: str(values[match[1].strip()]), _template(options.template))


def _template(file: Path | None) -> str:
    """Return the text of a site's template, or of the built-in one."""
    if file is None:
        return TEMPLATE
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--template {file}: cannot be read: {error}") from error
    found, known = ({match[1].strip() for match in _PLACEHOLDER.finditer(each)} for each in (text, TEMPLATE))
    if unknown := found - known:
        placeholders = ", ".join(sorted(known))
        raise ConfigError(
            f"--template {file}: unknown placeholder {{{{{min(unknown)}}}}}. Known placeholders: {placeholders}."
        )
    if "command" not in found:
        raise ConfigError(f"--template {file}: no {{{{command}}}}. See `mgc cluster --print-template`.")
    return text


def write_script(path: Path, text: str) -> None:
    """Write an executable script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, text.encode())
    path.chmod(0o755)


def extract_arguments(options: ExtractOptions) -> list[str]:
    """Return the flags of ``mgc extract`` for options that are not the default; paths are absolute.

    Raises
    ------
    ConfigError
        If an option cannot be used in a job array.
    """
    for name in ("workers", "shard", "scheduler", "retry_failed"):
        if getattr(options, name) not in (None, False):
            raise ConfigError(f"--{name.replace('_', '-')} is not for job arrays. Remove it.")
    flags = []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value == field.default:
            continue
        flags.append(f"--{field.name.replace('_', '-')}")
        if isinstance(value, bool):
            continue
        text = value if isinstance(value, str) else ",".join(value) if isinstance(value, Sequence) else str(value)
        if field.name in _MAYBE_PATHS:
            prefix = PREFIX if text.startswith(PREFIX) else ""
            path = Path(text.removeprefix(prefix))
            text = f"{prefix}{path.absolute()}" if path.exists() else text
        flags.append(text)
    return flags


def submit(path: Path) -> tuple[str, str]:
    """Submit the script as an array, and its task 0 to run afterwards; return the numbers of both jobs.

    Raises
    ------
    ConfigError
        If there is no ``sbatch``, or it refuses the job; the message has its own.
    """
    array = _sbatch([str(path)])
    return array, _sbatch(["--array=0", f"--dependency=afterany:{array}", str(path)])


def _sbatch(arguments: list[str], run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run) -> str:
    try:
        done = run(["sbatch", "--parsable", *arguments], capture_output=True, text=True, check=False, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"sbatch cannot be run: {error}. Submit the script yourself.") from error
    if done.returncode:
        raise ConfigError(f"sbatch refused the job: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip().partition(";")[0]
