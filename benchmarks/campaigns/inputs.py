"""Define trials with invalid input files: planted crashes, hangs and allocations, and mutated audio."""

from __future__ import annotations

import contextlib
import functools
import json
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

from benchmarks.campaigns.processes import output, run_first, start
from mgc.cache.errors import ClipError
from mgc.cache.format.recipe import MelRecipe
from mgc.pipeline.audio.clip_reader import ClipReader

OPTIONS = ("--features", "mel", "--clip-s", "1", "--workers", "2", "--max-failures", "100%", "--json")
FORMATS = ("mp3", "flac", "ogg", "wav", "m4a", "aiff")
FAULTY_DECODER = """
import os, sys
if os.environ.get("MGC_CAMPAIGN_PLANTED"):
    import mgc.pipeline.audio.clips as clips, mgc.pipeline.audio.clip_reader as clip_reader
    from pathlib import Path
    clip_reader.ClipLimits.__init__.__kwdefaults__.update(cpu_s=3.0, wall_s=60.0)
    real, fired = clips.decode_clip, Path(os.environ["MGC_CAMPAIGN_PLANTED"])
    def faulty(path, *arguments):
        kind = path.name.split("-")[0]
        if kind in ("crash", "hang", "bloat"):
            (fired / path.name).touch()
        if kind == "crash":
            import ctypes; ctypes.string_at(0)
        while kind == "hang":
            pass
        if kind == "bloat":
            import numpy; numpy.ones(2**30)
        return real(path, *arguments)
    clips.decode_clip = faulty
"""
"""Start-up code of workers: the decoder crashes, hangs or allocates 8 GiB on files with such names, which are valid."""

REASON = {"crash": "DECODER_CRASH", "hang": "DECODER_TIMEOUT", "bloat": "DECODER_MEMORY"}


def blame(number: int, folder: Path, n_clips: int = 512, n_planted: int = 20) -> dict[str, Any]:
    """Plant a crash, a hang or an allocation of 8 GiB in some of 512 clips, for two Dask workers.

    Exactly these files fail, each with its reason code.
    """
    rng = random.Random(number)
    names = [f"{kind}-{i}.flac" for kind in REASON for i in range(n_planted)]
    names += [f"good-{i}.flac" for i in range(n_clips - len(names))]
    rng.shuffle(names)
    (folder / "songs").mkdir()
    (folder / "fired").mkdir()
    t = np.arange(22_050) / 22_050
    lines = []
    for i, name in enumerate(names):
        soundfile.write(folder / "songs" / name, (0.2 * np.sin(2 * np.pi * (200 + i) * t)).astype(np.float32), 22_050)
        lines.append(json.dumps({"id": f"{i:03}-{name}", "path": name}))
    (folder / "songs" / "songs.jsonl").write_text("\n".join(lines) + "\n")
    store = folder / "s.zarr"
    env = run_first(folder / "site", FAULTY_DECODER) | {"MGC_CAMPAIGN_PLANTED": str(folder / "fired")}
    output(start("extract", folder / "songs" / "songs.jsonl", "-o", store, *OPTIONS, env=env), timeout_s=3000)
    failures = json.loads(output(start("store", "failures", store, "--json")))["failures"]
    expected = {name: REASON[name.split("-")[0]] for name in names if not name.startswith("good")}
    assert {file.name for file in (folder / "fired").iterdir()} == set(expected)
    assert {row["path"]: row["reason"] for row in failures} == expected
    return {"files blamed": len(failures), "neighbours unharmed": n_clips - len(failures)}


@functools.cache
def originals() -> dict[str, bytes]:
    """Return 2 s of a chord with noise in six formats."""
    rng = np.random.default_rng(0)
    t = np.arange(2 * 44_100) / 44_100
    chord = sum(np.sin(2 * np.pi * f * t) for f in (220, 277, 330)) / 6
    audio = np.stack([chord, chord[::-1]], axis=1) + rng.normal(0, 0.02, (len(t), 2))
    audio = audio.astype(np.float32)
    files = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in FORMATS:
            file = Path(scratch) / f"a.{name}"
            if name == "m4a":
                with av.open(str(file), "w") as container:
                    stream = container.add_stream("aac", rate=44_100, layout="stereo")
                    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio.T), format="fltp", layout="stereo")
                    frame.sample_rate = 44_100
                    container.mux([*stream.encode(frame), *stream.encode(None)])
            else:
                soundfile.write(file, audio, 44_100)
            files[name] = file.read_bytes()
    return files


def mutate(data: bytes, other: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Flip bits of a file, truncate it, or splice a piece of another file into it; return kind of change and bytes."""
    kind = rng.choice(("flip", "cut", "splice"))
    if kind == "cut":
        return kind, data[: rng.randrange(len(data))]
    if kind == "splice":
        at, length = rng.randrange(len(data)), rng.randrange(1, 4000)
        start = rng.randrange(len(other))
        return kind, data[:at] + other[start : start + length] + data[at + rng.randrange(0, 4000) :]
    damaged = bytearray(data)
    end = len(damaged) if rng.random() < 0.5 else min(len(damaged), 256)  # more often in headers
    for _ in range(rng.choice((1, 1, 4, 32))):
        damaged[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return kind, bytes(damaged)


def mutants(number: int, folder: Path, n_files: int = 1000) -> dict[str, Any]:
    """Decode files of six formats with flipped bits, truncated or spliced, in decoder processes.

    The run does not crash, and every file is ok or failed with a reason code.
    """
    rng = random.Random(number)
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    with ClipReader(MelRecipe(clip_s=1.0)) as reader:
        for _ in range(n_files):
            name = rng.choice(FORMATS)
            kind, data = mutate(originals()[name], originals()[rng.choice(FORMATS)], rng)
            assert data != originals()[name] or kind == "splice"
            (folder / f"x.{name}").write_bytes(data)
            counts["files"] += 1
            counts[kind] += 1
            try:
                clip = reader.read(folder / f"x.{name}")
            except ClipError as error:
                counts["failed"] += 1
                reasons[error.reason] += 1
            else:
                counts["ok"] += 1
                assert clip.mel.shape == (128, 44)
                assert np.isfinite(clip.mel).all()
            with contextlib.suppress(FileNotFoundError):
                (folder / f"x.{name}").unlink()
    assert counts["ok"] + counts["failed"] == counts["files"]
    return {**counts, **dict(reasons)}
