"""Local workers start with any settings of the site; if none can start, one line has the cause and the remedy."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

STRANGE = """
distributed:
  comm: {timeouts: {connect: 1ms}, default-scheme: ucx, require-encryption: true}
  worker: {preload: [no_such_module], memory: {terminate: 0.0001}}
  nanny: {pre-spawn-environ: 3}
  scheduler: {work-stealing: maybe}
temporary-directory: /proc/none
"""

UNABLE = """
import os, sys
if "--multiprocessing-fork" in sys.orig_argv and "resource_tracker" not in str(sys.orig_argv):
    os.write(2, b"Traceback (most recent call last):\\nModuleNotFoundError: No module named 'absent'\\n")
    os._exit(7)
"""


def run(folder: Path, *, limits: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Extract one song with two workers."""
    (folder / "songs").mkdir()
    soundfile.write(folder / "songs" / "a.wav", np.zeros(22_050), 22_050)
    command = [sys.executable, "-m", "mgc", "extract", folder / "songs", "-o", folder / "s.zarr", "--workers", 2]
    script = limits + " exec " + shlex.join([*map(str, command), "--features", "mel"])
    variables = {**os.environ, **environment}
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=variables, timeout=300, check=False
    )


def test_dask_settings_of_a_site_do_not_reach_local_workers(tmp_path: Path) -> None:
    """Neither does a low soft limit of open files, which is raised, nor missing folders."""
    (tmp_path / "dask").mkdir()
    (tmp_path / "dask" / "site.yaml").write_text(STRANGE)
    settings = {"DASK_CONFIG": str(tmp_path / "dask"), "DASK_DISTRIBUTED__COMM__TLS__CIPHERS": "none such"}
    folders = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME"), "/nonexistent")
    done = run(tmp_path, limits="ulimit -S -n 24;", **settings, **folders)
    assert done.returncode == 0, done.stderr


def test_no_more_files_than_allowed_are_opened(tmp_path: Path) -> None:
    refused(run(tmp_path, limits="ulimit -n 24;"), r"24 open files are allowed \(ulimit -n\), but")


def test_malformed_dask_settings_are_reported(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("distributed: [1\n")
    refused(run(tmp_path, DASK_CONFIG=str(tmp_path / "broken.yaml")), "broken.yaml.* is malformed")


def test_error_reports_the_cause_of_the_failed_worker(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(UNABLE)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    refused(run(tmp_path, PYTHONPATH=path), r": ModuleNotFoundError: No module named 'absent'\.")


UNGUARDED = """
import sys
from pathlib import Path
from mgc import api
api.extract(api.read_source(Path(sys.argv[1])).source, Path(sys.argv[1], "s.zarr"), features=["mel"], workers=2)
"""


def test_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    """Its own workers import it, and would start workers in turn."""
    soundfile.write(tmp_path / "a.wav", np.zeros(22_050), 22_050)
    (tmp_path / "script.py").write_text(UNGUARDED)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stderr.splitlines()[-1].endswith("Put its calls below: if __name__ == '__main__':"), done.stderr


def refused(done: subprocess.CompletedProcess[str], cause: str) -> None:
    __tracebackhide__ = True
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert re.search(rf"worker processes cannot start.*{cause}.* Use --workers 0, or --shard I/N", line), line
