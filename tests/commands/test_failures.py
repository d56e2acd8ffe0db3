"""What the machine refuses ends a command with one line: the cause, and how to go on."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from mgc.api.shared import extra
from mgc.cache.errors import MissingExtraError, StoreError
from mgc.cache.reading.store import FeatureStore
from mgc.commands.failures import explain


def raised(action) -> BaseException:
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    "action",
    [
        lambda: bytearray(1 << 60),
        lambda: np.empty(1 << 50),
        lambda: torch.empty(1 << 50),
        lambda: pa.allocate_buffer(1 << 60),
        lambda: (_ for _ in ()).throw(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))),
        lambda: (_ for _ in ()).throw(ImportError("libtorch_cpu.so: failed to map segment from shared object")),
    ],
    ids=["python", "numpy", "torch", "arrow", "system", "loader"],
)
def test_out_of_memory_is_explained_in_one_line(action) -> None:
    line = explain(raised(action))
    assert line is not None
    assert line.startswith("out of memory")
    assert "Then repeat the command" in line


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EFBIG, "", "a.bin"), ["a.bin: File too large", "ulimit -f"]),
        (OSError(errno.EMFILE, ""), ["Too many open files", "ulimit -n", "--workers 0"]),
        (OSError(errno.EAGAIN, ""), ["--workers 0"]),
        (RuntimeError("can't start new thread"), ["ulimit -u", "--workers 0"]),
        (RuntimeError("Can't write data (file write failed: errno = 27, error message = '...')"), ["File too large"]),
        (StoreError("s.zarr: broken"), ["s.zarr: broken"]),
    ],
)
def test_system_limits_are_explained_in_one_line(error: Exception, words: list[str]) -> None:
    line = explain(error)
    assert line is not None
    assert "\n" not in line
    assert all(word in line for word in words), line


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_read_only_folder_is_reported_and_not_the_temporary_file(tmp_path: Path, number: int) -> None:
    temporary, existing = tmp_path / ".tracks.jsonl.partial", tmp_path / "tracks.jsonl"
    existing.touch()
    for error in (
        OSError(number, os.strerror(number), str(temporary)),
        OSError(number, os.strerror(number), os.fsencode(temporary)),
        RuntimeError(f"Unable to create file (name = '{temporary}', errno = {number}, error message = '...')"),
    ):
        line = explain(error)
        assert line is not None
        assert line.startswith(f"{tmp_path}: the folder cannot be written to ({os.strerror(number)}). ")
        assert ".partial" not in line
    assert str(explain(OSError(number, "", str(existing)))).startswith(f"{existing}: ")


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("shapes differ"), OSError("no number")])
def test_bug_of_mgc_is_not_explained(error: Exception) -> None:
    assert explain(error) is None


def test_library_without_memory_is_not_reported_as_a_missing_extra() -> None:
    with pytest.raises(ImportError) as caught, extra("train"):
        raise ImportError("libtorch_cpu.so: failed to map segment from shared object")
    assert not isinstance(caught.value, MissingExtraError)


@pytest.mark.parametrize(
    "arguments",
    [
        ["store", "convert", "{store}", "{out}.h5"],
        ["train", "{store}", "-o", "{out}", "--encoder", "tiny", "--epochs", "1"],
        ["report", "{store}", "-o", "{out}.html"],
    ],
    ids=lambda arguments: arguments[0] + arguments[1][:7],
)
def test_file_size_limit_ends_a_command_with_one_line(
    small_store: FeatureStore, tmp_path: Path, arguments: list[str]
) -> None:
    """With nothing half-written under the name of the output."""
    words = [word.format(store=small_store.path, out=tmp_path / "out") for word in arguments]
    script = 'ulimit -f 4; exec "$0" -m mgc "$@"'
    done = subprocess.run(
        ["bash", "-c", script, sys.executable, *words], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr.splitlines()[-1]
    assert not [path for path in tmp_path.iterdir() if path.is_file()]
