"""Mount one GlusterFS volume twice on this machine, as two nodes of a cluster do, without glusterd.

    python -m benchmarks.cluster.gluster COMMAND...

runs a command with the two folders as its last arguments. Two brick servers listen on loopback; each mount has caches
of its own, with GlusterFS's defaults. Needs root, FUSE, and the Debian packages glusterfs-server and glusterfs-client.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.cluster.slurm import free_ports

BRICKS, MOUNTS = 2, 2
_SERVER = """\
volume posix
  type storage/posix
  option directory {brick}
end-volume
volume locks
  type features/locks
  subvolumes posix
end-volume
volume brick
  type performance/io-threads
  subvolumes locks
end-volume
volume server
  type protocol/server
  option transport-type tcp
  option transport.socket.bind-address 127.0.0.1
  option transport.socket.listen-port {port}
  option auth.addr.brick.allow 127.0.0.1
  subvolumes brick
end-volume
"""
_CLIENT = """\
volume client{number}
  type protocol/client
  option transport-type tcp
  option remote-host 127.0.0.1
  option remote-port {port}
  option remote-subvolume brick
end-volume
"""
_STACK = ("cluster/distribute", "performance/write-behind", "performance/quick-read", "performance/md-cache")
"""What a client adds to the connections, with GlusterFS's defaults: placement on the bricks, and its caches."""


def missing() -> str:
    """Return why no volume can be mounted here, or an empty string."""
    if os.geteuid() != 0:
        return "only root can mount file systems"
    if not Path("/dev/fuse").exists():
        return "there is no /dev/fuse"
    absent = [program for program in ("glusterfsd", "glusterfs") if shutil.which(program) is None]
    return f"{', '.join(absent)} not found (apt-get install glusterfs-server glusterfs-client)" if absent else ""


@contextlib.contextmanager
def mounted_twice() -> Iterator[tuple[Path, Path]]:
    """Yield two mounts of one new volume; unmount them, stop the servers and delete the volume at the end.

    Raises
    ------
    TimeoutError
        If a mount is not ready; the error shows the end of its log.
    """
    folder = Path(tempfile.mkdtemp(prefix="mgc-gluster-"))
    ports = free_ports(BRICKS)
    processes: list[subprocess.Popen[bytes]] = []
    mounts = [folder / f"mount{number}" for number in range(MOUNTS)]
    try:
        for number, port in enumerate(ports):
            brick, file = folder / f"brick{number}", folder / f"server{number}.vol"
            brick.mkdir()
            file.write_text(_SERVER.format(brick=brick, port=port))
            processes.append(_start("glusterfsd", file, folder / f"server{number}.log"))
        client = folder / "client.vol"
        names = [f"client{number}" for number in range(BRICKS)]
        text = "".join(_CLIENT.format(number=number, port=port) for number, port in enumerate(ports))
        below = " ".join(names)
        for kind in _STACK:
            name = kind.replace("/", "-")
            text += f"volume {name}\n  type {kind}\n  subvolumes {below}\nend-volume\n"
            below = name
        client.write_text(text)
        for mount in mounts:
            mount.mkdir()
            processes.append(_start("glusterfs", client, mount.with_suffix(".log"), str(mount)))
        for mount in mounts:
            _wait(mount)
        yield mounts[0], mounts[1]
    finally:
        for mount in mounts:
            subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
        shutil.rmtree(folder, ignore_errors=True)


def _start(program: str, volume: Path, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [program, "--no-daemon", f"--volfile={volume}", f"--log-file={log}", *arguments]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)


def _wait(mount: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        if os.path.ismount(mount):
            with contextlib.suppress(OSError):
                (mount / ".probe").write_text("")
                (mount / ".probe").unlink()
                return
        if time.monotonic() > deadline:
            log = mount.with_suffix(".log")
            raise TimeoutError(f"{mount}: not mounted\n{log.read_text()[-2000:] if log.exists() else ''}")
        time.sleep(0.2)


def main() -> int:
    if reason := missing():
        print(f"no volume: {reason}", file=sys.stderr)
        return 2
    with mounted_twice() as mounts:
        return subprocess.run([*sys.argv[1:], *map(str, mounts)], check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
