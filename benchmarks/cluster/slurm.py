"""Run a SLURM cluster of two nodes on one machine: munged, slurmctld and two slurmds, in a temporary folder.

    python -m benchmarks.cluster.slurm COMMAND...

runs a command that sees the cluster, such as ``bash``, and stops the cluster. Needs the Debian packages slurmctld,
slurmd, slurm-client and munge, no root and no service of the system. All ports are on loopback.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol", "squeue", "sinfo")
PACKAGES = "slurmctld slurmd slurm-client munge"
NODES = ("n1", "n2")
NODE_CPUS, NODE_MB = 2, 8000
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
_REQUEUE_S = 20.0
"""Seconds until a job that is queued again may start; two minutes by default, so that its processes have ended."""
_ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL"}


def missing() -> str:
    """Return why no cluster can be started here, or an empty string."""
    absent = [program for program in PROGRAMS if shutil.which(program, path=_PATH) is None]
    return f"{', '.join(absent)} not found (apt-get install {PACKAGES})" if absent else ""


@dataclass(frozen=True)
class Job:
    """State of a job or of one task of an array, as ``squeue`` and ``scontrol`` show it."""

    id: str
    state: str
    exit_code: str
    restarts: int

    @property
    def ended(self) -> bool:
        return self.state in _ENDED


class Cluster:
    """A running cluster.

    Attributes
    ----------
    folder : of configuration, logs, state and spool.
    env : environment in which the client programs find the cluster.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "PATH": _PATH, "SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start munge, the controller and all nodes; return when the nodes are idle."""
        munge = self.folder / "munge"
        munge.mkdir(mode=0o755)
        key = munge / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        for name in ("state", "spool", "log"):
            (self.folder / name).mkdir()
        (self.folder / "slurm.conf").write_text(_configuration(self.folder))
        files = [f"--{name}-file={munge / name}" for name in ("key", "pid", "log", "seed")]
        self._run("munged", "--foreground", "--force", f"--socket={munge / 'socket'}", *files)
        _wait(lambda: (munge / "socket").exists(), 20, "munged")
        self._run("slurmctld", "-D", "-c")
        for node in NODES:
            self.start_node(node)
        _wait(lambda: self.node_states() == dict.fromkeys(NODES, "idle"), 60, "the nodes")

    def stop(self) -> None:
        """Stop all daemons and their jobs by pid, nodes first."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self.call("scancel", "--user", pwd.getpwuid(os.geteuid()).pw_name)
            _wait(lambda: not self.call("squeue", "--noheader").strip(), 20, "the jobs to end", must=False)
        for name in reversed(list(self._daemons)):
            self._end(name, signal.SIGTERM)

    def start_node(self, node: str) -> None:
        """Start the slurmd of a node."""
        self._run("slurmd", "-D", "-N", node, name=node)

    def kill_node(self, node: str) -> None:
        """End the slurmd of a node by SIGKILL; its jobs continue to run, as on a node that lost its network."""
        self._end(node, signal.SIGKILL)

    def set_down(self, node: str) -> None:
        """Declare a node broken, which ends its jobs."""
        self.call("scontrol", "update", f"nodename={node}", "state=down", "reason=scenario")

    def resume(self, node: str) -> None:
        """Let a node take jobs again, and wait until it is idle."""
        with contextlib.suppress(subprocess.CalledProcessError):  # it may have come back on its own
            self.call("scontrol", "update", f"nodename={node}", "state=resume")
        _wait(lambda: self.node_states()[node] == "idle", 120, node)

    def call(self, program: str, *arguments: object) -> str:
        """Run a client program and return its output.

        Raises
        ------
        CalledProcessError
            If it fails; the error shows its standard error.
        """
        command = [program, *map(str, arguments)]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        return done.stdout

    def node_states(self) -> dict[str, str]:
        """Return name -> state such as ``idle``, ``mix``, ``alloc``, ``down``."""
        lines = self.call("sinfo", "--noheader", "--Node", "--format=%N %t").split()
        return dict(zip(lines[::2], lines[1::2], strict=True))

    def jobs(self, job: str) -> list[Job]:
        """Return a job, or the tasks of an array, also for some minutes after their end."""
        lines = self.call("scontrol", "--oneliner", "show", "job", job).splitlines()
        found = []
        for line in lines:
            values = dict(word.partition("=")[::2] for word in line.split() if "=" in word)
            if "JobState" in values:
                name = values["JobId"]
                if "ArrayTaskId" in values:
                    name = f"{values['ArrayJobId']}_{values['ArrayTaskId']}"
                found.append(
                    Job(
                        id=name,
                        state=values["JobState"],
                        exit_code=values["ExitCode"],
                        restarts=int(values.get("Restarts", 0)),
                    )
                )
        return found

    def wait(self, job: str, timeout_s: float = 600) -> list[Job]:
        """Return all tasks of a job when they have ended.

        Raises
        ------
        TimeoutError
            If they have not ended in time; the error lists their states.
        """
        return self._watch(job, timeout_s, lambda tasks: all(task.ended for task in tasks))

    def wait_for_start(self, job: str, timeout_s: float = 120) -> None:
        """Wait until a job that was queued again runs, or has ended."""
        self._watch(job, timeout_s, lambda tasks: all(task.ended or task.state == "RUNNING" for task in tasks))

    def _watch(self, job: str, timeout_s: float, done: Callable[[list[Job]], bool]) -> list[Job]:
        """Wait until the tasks of a job are as `done` wants; let requeued ones start after `_REQUEUE_S`."""
        deadline = time.monotonic() + timeout_s
        queued: dict[tuple[str, int], float] = {}
        tasks = self.jobs(job)
        while not done(tasks):
            if time.monotonic() > deadline:
                raise TimeoutError(f"job {job} after {timeout_s:.0f} s: {tasks}")
            time.sleep(0.5)
            tasks = self.jobs(job)
            for task in tasks:
                if task.state == "PENDING" and task.restarts:
                    since = queued.setdefault((task.id, task.restarts), time.monotonic())
                    if time.monotonic() - since > _REQUEUE_S:
                        with contextlib.suppress(subprocess.CalledProcessError):  # it starts just now
                            self.call("scontrol", "update", f"jobid={task.id}", "starttime=now")
        return tasks

    def _run(self, program: str, *arguments: str, name: str = "") -> None:
        name = name or program
        with (self.folder / f"{name}.out").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                [shutil.which(program, path=_PATH) or program, *arguments],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _end(self, name: str, number: signal.Signals) -> None:
        daemon = self._daemons.pop(name)
        daemon.send_signal(number)
        try:
            daemon.wait(timeout=20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


@contextlib.contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Start a cluster in a new temporary folder; stop it and delete the folder at the end.

    Raises
    ------
    TimeoutError
        If a daemon does not start; the error shows the end of its output.
    """
    folder = Path(tempfile.mkdtemp(prefix="mgc-slurm-"))
    folder.chmod(0o755)  # munge refuses a socket that others cannot reach
    cluster = Cluster(folder)
    try:
        try:
            cluster.start()
        except TimeoutError as error:
            outputs = [f"{file.name}: {file.read_text()[-600:]}" for file in sorted(folder.glob("*.out"))]
            raise TimeoutError("\n".join([str(error), *outputs])) from error
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _configuration(folder: Path) -> str:
    host, user = socket.gethostname().partition(".")[0], pwd.getpwuid(os.geteuid()).pw_name
    controller, *node_ports = free_ports(1 + len(NODES))
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={NODE_CPUS} RealMemory={NODE_MB}"
        for node, port in zip(NODES, node_ports, strict=True)
    )
    values: Mapping[str, Any] = {
        "ClusterName": "box",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": controller,
        "SlurmUser": user,
        "SlurmdUser": user,
        "AuthType": "auth/munge",
        "CredType": "cred/munge",
        "AuthInfo": f"socket={folder / 'munge' / 'socket'}",
        "CommunicationParameters": "NoInAddrAny,NoCtldInAddrAny",  # listen on loopback only
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "MpiDefault": "none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core_Memory",
        "DefMemPerCPU": 1000,
        "JobAcctGatherType": "jobacct_gather/linux",
        "JobAcctGatherFrequency": "task=1",
        "JobAcctGatherParams": "OverMemoryKill",
        "StateSaveLocation": folder / "state",
        "SlurmctldPidFile": folder / "slurmctld.pid",
        "SlurmctldLogFile": folder / "log" / "slurmctld",
        "SlurmdPidFile": folder / "slurmd-%n.pid",
        "SlurmdLogFile": folder / "log" / "%n",
        "SlurmdSpoolDir": folder / "spool" / "%n",
        "SlurmdTimeout": 15,
        "KillWait": 5,
        "ReturnToService": 2,
        "JobRequeue": 1,
        "SchedulerParameters": "batch_sched_delay=0,sched_interval=2",
        "MinJobAge": 3600,
    }
    lines = [f"{name}={value}" for name, value in values.items()]
    return "\n".join([*lines, nodes, f"PartitionName=cpu Nodes={','.join(NODES)} Default=YES MaxTime=INFINITE", ""])


def free_ports(n: int) -> list[int]:
    """Return different ports of loopback that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait(done: Callable[[], bool], timeout_s: float, what: str, *, must: bool = True) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(subprocess.SubprocessError):
            if done():
                return
        if time.monotonic() > deadline:
            if must:
                raise TimeoutError(f"{what}: not ready after {timeout_s:.0f} s")
            return
        time.sleep(0.2)


def main() -> int:
    if reason := missing():
        print(f"no cluster: {reason}", file=sys.stderr)
        return 2
    with running_cluster() as cluster:
        print(json.dumps({"nodes": cluster.node_states(), "folder": str(cluster.folder)}), file=sys.stderr)
        return subprocess.run(sys.argv[1:] or ["bash"], env=cluster.env, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
