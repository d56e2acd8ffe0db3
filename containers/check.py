"""Build the container images from a fresh wheel and run a small demo in each, without a network.

    python containers/check.py

Needs docker with a running daemon, or apptainer. What is missing is reported as "not checked". Exit status 1 if a check
fails.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEMO = ["demo", "--output", "demo", "--songs", "40", "--epochs", "1"]
TIMEOUT_S = 3600


def main() -> None:
    missing = {"docker": docker_problem(), "apptainer": program_problem("apptainer")}
    for program, problem in missing.items():
        if problem:
            print(f"not checked: {program} ({problem})")
    present = [program for program, problem in missing.items() if not problem]
    checks = {"docker": check_docker, "apptainer": check_apptainer}
    with tempfile.TemporaryDirectory(prefix="mgc-container-") as folder:
        context, data = Path(folder) / "context", Path(folder) / "data"
        if present:
            make_context(context)
        for program in present:
            (data / program).mkdir(parents=True)
            checks[program](context, data / program)
            print(f"ok  {program}")


def make_context(context: Path) -> None:
    """Put what an image is built from into a new folder: the wheel, the constraints and the definitions."""
    context.mkdir()
    run([sys.executable, "-m", "build", "--wheel", "--outdir", str(context / "dist"), str(ROOT)], ROOT)
    shutil.copyfile(ROOT / "constraints.txt", context / "constraints.txt")
    for name in ("Dockerfile", "mgc.def"):
        shutil.copyfile(ROOT / "containers" / name, context / name)


def program_problem(program: str) -> str | None:
    """Return why a program cannot be used, None if it can."""
    return None if shutil.which(program) else f"{program} is not installed"


def docker_problem() -> str | None:
    """Return why docker cannot be used, None if its daemon answers."""
    problem = program_problem("docker")
    if problem:
        return problem
    answer = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=60, check=False)
    return None if answer.returncode == 0 else "no docker daemon is running"


def check_docker(context: Path, data: Path) -> None:
    run(["docker", "build", "--tag", "mgc-music-check", "."], context)
    mounted = ["docker", "run", "--rm", "--network", "none", "--volume", f"{data}:/data", "mgc-music-check"]
    run([*mounted, "--version"], context)
    run([*mounted, *DEMO], context)


def check_apptainer(context: Path, data: Path) -> None:
    run(["apptainer", "build", "mgc.sif", "mgc.def"], context)
    isolated = [
        "apptainer",
        "run",
        "--net",
        "--network",
        "none",
        "--bind",
        f"{data}:/data",
        "--pwd",
        "/data",
        "mgc.sif",
    ]
    run([*isolated, "--version"], context)
    run([*isolated, *DEMO], context)


def run(command: list[str], folder: Path) -> None:
    """Run a command in a folder; print its output and exit if it fails."""
    done = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        print(done.stdout)
        sys.exit(f"FAILED  {' '.join(command)}: exit status {done.returncode}")


if __name__ == "__main__":
    main()
