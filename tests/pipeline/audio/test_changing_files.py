"""Files that change while they are read: `source_sha256` is the hash of the decoded content."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from mgc.cache.errors import ClipError
from mgc.cache.format.recipe import MelRecipe
from mgc.pipeline.audio import clip_child
from mgc.pipeline.audio.clip_child import extract, extract_samples
from mgc.pipeline.audio.containers import Caps

RECIPE = MelRecipe(clip_s=2.0)


class Steps:
    """Calls `change` when the file is opened for the n-th time; every time for no number."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.opened = 0
        self.at: int | None = 0
        self.change: Callable[[], object] = lambda: None

    def __call__(self) -> None:
        self.opened += 1
        if self.at in (None, self.opened):
            path, self.path = self.path, None
            self.change()
            self.path = path


STEPS = Steps()


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if STEPS.path is not None and event == "open" and str(arguments[0]) == str(STEPS.path):
        STEPS()


sys.addaudithook(_hook)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Steps]:
    """Also at the open by libsndfile, and once the file is hashed."""
    real_open, real_hash = soundfile.SoundFile.__init__, clip_child.file_sha256

    def opened(self, file, *args, **kwargs):
        if STEPS.path is not None and isinstance(file, bytes):
            STEPS()
        real_open(self, file, *args, **kwargs)

    def hashed(path):
        digest = real_hash(path)
        if STEPS.path is not None:
            STEPS()
        return digest

    monkeypatch.setattr(soundfile.SoundFile, "__init__", opened)
    monkeypatch.setattr(clip_child, "file_sha256", hashed)
    STEPS.__init__()
    yield STEPS
    STEPS.path = None


def wav(path: Path, hz: float) -> None:
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * hz * np.arange(44_100) / 22_050), 22_050, format="WAV")


def concatenated(path: Path, hz: float) -> None:
    wav(path, hz)
    path.write_bytes(path.read_bytes() + path.read_bytes())


def matroska(path: Path, hz: float) -> None:
    samples = 0.5 * np.sin(2 * np.pi * hz * np.arange(44_100) / 22_050)
    with av.open(path, "w", format="matroska") as out:
        stream = out.add_stream("pcm_s16le", rate=22_050, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.int16(samples * 32767)[None], "s16", "mono")
        frame.sample_rate = 22_050
        out.mux([*stream.encode(frame), *stream.encode(None)])


def _overwrite(path: Path, other: Path) -> None:
    with path.open("r+b") as file:
        file.write(other.read_bytes())


def _overwrite_and_restore_time(path: Path, other: Path) -> None:
    before = path.stat()
    _overwrite(path, other)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _rename_over(path: Path, other: Path) -> None:
    copy = other.with_suffix(".copy")
    copy.write_bytes(other.read_bytes())
    copy.replace(path)


CHANGES = {
    "overwritten": _overwrite,
    "with its old time": _overwrite_and_restore_time,
    "replaced": _rename_over,
    "truncated": lambda path, other: os.truncate(path, path.stat().st_size // 3),
    "appended": lambda path, other: path.write_bytes(path.read_bytes() + other.read_bytes()),
    "removed": lambda path, other: path.unlink(),
}


def outcome(path: Path) -> dict[str, object] | str:
    try:
        clip = extract(path, RECIPE, Caps())
    except ClipError as error:
        return str(error)
    return vars(clip) | {"mel": clip.mel.tobytes()}


@pytest.mark.parametrize("write", [wav, concatenated, matroska])
@pytest.mark.parametrize(
    ("change", "is_fresh"),
    [(change, True) for change in CHANGES] + [(change, False) for change in CHANGES if change != "with its old time"],
)
def test_a_file_that_changes_at_any_step_is_read_again(
    tmp_path: Path,
    steps: Steps,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Path, float], None],
    change: str,
    is_fresh: bool,
) -> None:
    """The outcome is that of the final content of the file."""
    path, other = tmp_path / "a", tmp_path / "b"
    write(other, 660)
    monkeypatch.setattr(clip_child, "_COARSEST_CLOCK_NS", 2_500_000_000 if is_fresh else 0)

    def read(at: int | None) -> int:
        path.unlink(missing_ok=True)
        write(path, 440)
        if not is_fresh:
            os.utime(path, (1e9, 1e9))
        steps.path, steps.opened, steps.at = path, 0, at
        steps.change = lambda: CHANGES[change](path, other)
        got = outcome(path)
        n_steps, steps.path = steps.opened, None
        assert got == outcome(path)
        if isinstance(got, dict):
            assert got["source_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        return n_steps

    n_steps = read(0)
    assert n_steps >= 4
    for at in range(1, n_steps + 1):
        read(at)


@pytest.mark.parametrize("form", [extract, extract_samples])
def test_constantly_changing_file_fails_with_source_changed(
    tmp_path: Path, steps: Steps, form: Callable[..., object]
) -> None:
    path = tmp_path / "a"
    wav(path, 440)
    steps.at, steps.path = None, path
    steps.change = lambda: wav(path, 440 + 10 * steps.opened)
    with pytest.raises(ClipError) as error:
        form(path, RECIPE, Caps())
    assert error.value.reason == "SOURCE_CHANGED"


def test_unchanged_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    monkeypatch.setattr(clip_child, "file_sha256", lambda path: hashed.append(path) or "0")
    monkeypatch.setattr(clip_child, "_COARSEST_CLOCK_NS", 0)
    wav(tmp_path / "a", 440)
    for start_s in (0.0, 1.0):
        extract(tmp_path / "a", RECIPE, Caps(), start_s)
    assert len(hashed) == 1
