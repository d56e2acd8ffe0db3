"""Serve a disk image that logs every write and every flush, to reconstruct its content at any time.

    python -m benchmarks.campaigns.disk IMAGE LOG FILE        (serves FILE; needs root and /dev/fuse)

FUSE serves IMAGE as FILE; a single file needs nine requests of the protocol. A loop device on FILE carries the file
system. It sends writes of the file system as WRITE, and flushes and FUA as FSYNC. Data that is only in the page cache
of the file system is not sent. The log holds the requests in the order of their answers.

A power cut after the first n requests keeps everything up to the last flush, and any subset of the later writes, since
disks reorder and lose the content of their cache. A copy of the image (by reflink or snapshot) does not show such loss,
and some kernels lack the targets of device-mapper (log-writes, flakey).
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.campaigns import processes
from benchmarks.machine import ROOT

SIZE = 320 << 20
"""Size of an image in bytes; mkfs.xfs needs at least 300 MiB. Unwritten blocks take no space."""
BLOCK = 4096
"""Number of bytes that a disk writes atomically."""
MAKE = {"ext4": ("mkfs.ext4", "-q", "-F"), "xfs": ("mkfs.xfs", "-q", "-f"), "btrfs": ("mkfs.btrfs", "-q", "-f")}
OPTIONS = {"ext4": ("defaults", "data=writeback,noauto_da_alloc"), "xfs": ("defaults",), "btrfs": ("defaults",)}
"""Mount options; the second ones of ext4 allow a rename to reach the disk before the data of the file."""

_IN, _OUT, _ENTRY = struct.Struct("<IIQQIIIHH"), struct.Struct("<IiQ"), struct.Struct("<QI")
_FLUSH = 2**64 - 1
_MAX_WRITE = 1 << 20
_INIT, _GETATTR, _SETATTR, _OPEN, _READ, _WRITE, _FSYNC = 26, 3, 4, 14, 15, 16, 20
_RELEASE, _CLOSE, _DESTROY = 18, 25, 38
_UNANSWERED = (2, 36, 42)
"""FORGET, INTERRUPT, BATCH_FORGET."""


def missing() -> str:
    """Return the requirement that this machine lacks to serve and mount a disk, or an empty string."""
    programs = ("mount", "umount", "losetup", "cp", *(make for make, *_ in MAKE.values()))
    if lacking := processes.missing():
        return lacking
    if absent := [program for program in programs if shutil.which(program) is None]:
        return f"{', '.join(absent)} not found; install e2fsprogs, xfsprogs and btrfs-progs"
    if absent := [device for device in ("/dev/fuse", "/dev/loop-control") if not Path(device).exists()]:
        return f"this machine has no {' and no '.join(absent)}"
    supported = {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()}
    if absent := sorted(MAKE.keys() - supported):
        return f"this kernel does not support {', '.join(absent)} (modprobe may load it)"
    return ""


@dataclass(frozen=True)
class Write:
    """One request: `data` written at a byte offset, or a flush if `data` is None."""

    offset: int
    data: bytes | None


@dataclass(frozen=True)
class Disk:
    """A mounted file system and the log of its disk."""

    folder: Path
    log: Path

    def position(self) -> int:
        """Return the size of the log, which covers everything that is durable so far."""
        return self.log.stat().st_size


@contextlib.contextmanager
def logged(image: Path, folder: Path, options: str) -> Iterator[Disk]:
    """Mount an image at a new folder on a loop device whose requests are logged; `image` changes."""
    log, file = image.with_suffix(".log"), image.with_suffix(".disk")
    file.touch()
    folder.mkdir()
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.campaigns.disk", image, log, file], cwd=ROOT, stdout=subprocess.PIPE
    )
    with contextlib.ExitStack() as stack:
        stack.callback(folder.rmdir)
        stack.callback(_stop, server, file)
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n", "the disk could not be served"
        device = _run("losetup", "-f", "--show", file).strip()
        stack.callback(_run, "losetup", "-d", device)
        _run("mount", "-o", options, device, folder)
        stack.callback(_unmount, folder)
        yield Disk(folder, log)


def _stop(server: subprocess.Popen[bytes], file: Path) -> None:
    subprocess.run(["umount", "-l", file], check=False)
    try:
        server.wait(timeout=10)
    except subprocess.TimeoutExpired:
        server.kill()
    server.communicate()


@contextlib.contextmanager
def mounted(image: Path, folder: Path, options: str) -> Iterator[Path]:
    """Mount an image at a new folder, which replays its journal."""
    folder.mkdir()
    try:
        _run("mount", "-o", f"loop,{options}", image, folder)
        try:
            yield folder
        finally:
            _unmount(folder)
    finally:
        folder.rmdir()


def _unmount(folder: Path) -> None:
    """Unmount, after all children of an exited process have exited."""
    deadline = time.monotonic() + 10
    while (done := subprocess.run(["umount", folder], check=False, capture_output=True)).returncode != 0:
        if time.monotonic() > deadline:
            subprocess.run(["umount", "-l", folder], check=True)
            raise AssertionError(f"{folder} is still in use: {done.stderr.decode()}")
        time.sleep(0.05)
    # btrfs identifies devices by the id of the file system, which all cuts of one image share.
    subprocess.run(["btrfs", "device", "scan", "--forget"], check=False, capture_output=True)


def make_image(image: Path, kind: str, content: Path) -> None:
    """Write an image with a file system that contains a copy of the folder `content`."""
    with image.open("wb") as file:
        file.truncate(SIZE)
    _run(*MAKE[kind], image)
    with mounted(image, image.with_suffix(".mount"), "defaults") as folder:
        shutil.copytree(content, folder, dirs_exist_ok=True)


def copy_image(image: Path, copy: Path) -> None:
    """Copy an image without its zero blocks."""
    _run("cp", "--sparse=always", image, copy)


def read_log(log: Path) -> tuple[list[Write], list[int]]:
    """Return all requests of a log, and the position of the log after each."""
    data, writes, ends, at = log.read_bytes(), [], [], 0
    while at < len(data):
        offset, size = _ENTRY.unpack_from(data, at)
        at += _ENTRY.size + size
        writes.append(Write(offset, None if offset == _FLUSH else data[at - size : at]))
        ends.append(at)
    return writes, ends


def cut(image: Path, writes: Sequence[Write], p_lost: float, rng: random.Random) -> int:
    """Apply requests to an image as a power cut after them would leave it; return the number of lost blocks.

    Parameters
    ----------
    p_lost : probability that a block written after the last flush is lost.
    """
    last = max((i for i, write in enumerate(writes) if write.data is None), default=-1)
    n_lost = 0
    with image.open("r+b") as file:
        for i, write in enumerate(writes):
            for start in range(0, len(write.data or b""), BLOCK):
                assert write.data is not None
                if i > last and rng.random() < p_lost:
                    n_lost += 1
                else:
                    file.seek(write.offset + start)
                    file.write(write.data[start : start + BLOCK])
    return n_lost


def _run(*command: object) -> str:
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr}"
    return done.stdout


def serve(image: Path, log: Path, file: Path) -> None:
    """Serve `image` as `file` until `file` is unmounted, one request at a time; log writes and flushes."""
    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse},rootmode=100600,user_id=0,group_id=0"
    subprocess.run(["mount", "-i", "-t", "fuse", "-o", options, "mgc-disk", file], pass_fds=[fuse], check=True)
    print("ready", flush=True)
    with image.open("r+b", buffering=0) as disk, log.open("wb", buffering=0) as entries:
        while True:
            try:
                request = memoryview(os.read(fuse, _MAX_WRITE + 2 * BLOCK))
            except OSError as error:
                if error.errno == errno.ENODEV:  # unmounted
                    return
                raise
            _, kind, unique, *_ = _IN.unpack_from(request)
            if kind not in _UNANSWERED:
                answer = _answer(kind, request[_IN.size :], disk.fileno(), entries.fileno())
                failed = 0 if answer is not None else -errno.ENOSYS
                os.write(fuse, _OUT.pack(_OUT.size + len(answer or b""), failed, unique) + (answer or b""))


def _answer(kind: int, body: memoryview, disk: int, log: int) -> bytes | None:
    """Perform a request and return the answer (linux/fuse.h), None for an unknown request."""
    if kind == _INIT:  # version 7.31; asynchronous reads, large writes, max_pages
        flags = 1 | 1 << 5 | 1 << 22
        return struct.pack(
            "<IIIIHHIIHHII24x", 7, 31, _MAX_WRITE, flags, 64, 48, _MAX_WRITE, 1, _MAX_WRITE // BLOCK, 0, 0, 0
        )
    if kind in (_GETATTR, _SETATTR):
        size = os.fstat(disk).st_size
        return struct.pack(
            "<QII6Q10I", 3600, 0, 0, 1, size, size // 512, 0, 0, 0, 0, 0, 0, 0o100600, 1, 0, 0, 0, BLOCK, 0
        )
    if kind == _OPEN:
        return struct.pack("<QII", 0, 1, 0)  # FOPEN_DIRECT_IO: no page cache of its own
    if kind in (_READ, _WRITE):
        _, offset, size = struct.unpack_from("<QQI", body)
        if kind == _READ:
            return os.pread(disk, size, offset)
        data = bytes(body[40 : 40 + size])
        os.write(log, _ENTRY.pack(offset, size) + data)
        os.pwrite(disk, data, offset)
        return struct.pack("<II", size, 0)
    if kind == _FSYNC:
        os.write(log, _ENTRY.pack(_FLUSH, 0))
    return b"" if kind in (_FSYNC, _RELEASE, _CLOSE, _DESTROY) else None


if __name__ == "__main__":
    serve(*map(Path, sys.argv[1:]))
