"""A real Slurm of several nodes on this machine, for tests: munged, slurmctld, and a slurmd per namespace.

Each node has its own hostname, process tree, /dev/shm and mounts (unshare(1)); killing a node's init kills the
whole node. Works as root and, with user namespaces, as a plain user. Only processes that `start` began are ended.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "srun", "unshare", "setpriv")

CONFIGURATION = """\
ClusterName=mini
SlurmctldHost={host}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={base}/run/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={port}
StateSaveLocation={base}/state
SlurmctldPidFile={base}/run/slurmctld.pid
SlurmctldLogFile={base}/log/slurmctld.log
SlurmdSpoolDir={base}/spool/%n
SlurmdPidFile={base}/run/slurmd-%n.pid
TmpFS={base}/tmp/%n
SlurmdLogFile={base}/log/slurmd-%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
PropagateResourceLimits=NONE
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
KillWait=5
CompleteWait=0
MinJobAge=3600
SlurmctldTimeout=30
SlurmdTimeout=10
BatchStartTimeout=10
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=100000
AccountingStorageType=accounting_storage/none
NodeName=n[1-{nodes}] NodeHostname=n[1-{nodes}] NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs=2 RealMemory=2000
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=20 MaxTime=INFINITE State=UP
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE State=UP
"""

NODE_INIT = """\
set -eu
hostname "$1"
mount -t proc proc /proc
mount --bind "$2/etc/hosts" /etc/hosts
mount -t tmpfs tmpfs /dev/shm
exec setpriv --ambient-caps=-all --inh-caps=-all slurmd -D -N "$1" -f "$2/etc/slurm.conf"
"""


def missing_programs() -> list[str]:
    """Programs that the cluster needs and this machine lacks."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [program for program in PROGRAMS if shutil.which(program, path=path) is None]


def _free_ports(count: int) -> int:
    """First of `count` neighbouring TCP ports that nobody uses now."""
    for first in range(17000, 19000, count):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    probe = stack.enter_context(socket.socket())
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise RuntimeError("no free ports for the cluster")


class Cluster:
    """A running cluster in `base`; `env` is what its commands and jobs need."""

    def __init__(self, base: Path, nodes: int = 2) -> None:
        self.base = base
        self.nodes = nodes
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_", "OMPI_", "PMIX_"))},
            "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin",
            "SLURM_CONF": str(base / "etc/slurm.conf"),
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Bring the cluster up; return when all nodes are idle."""
        for name in ("etc", "run", "state", "log", "spool"):
            (self.base / name).mkdir(parents=True)
        port = _free_ports(self.nodes + 1)
        host = socket.gethostname()
        (self.base / "etc/slurm.conf").write_text(
            CONFIGURATION.format(
                host=f"{host}(127.0.0.1)", user=getpass.getuser(), base=self.base, port=port,
                nodes=self.nodes, first=port + 1, last=port + self.nodes,
            )
        )  # fmt: skip
        names = " ".join(["localhost", host, *self._names()])
        (self.base / "etc/hosts").write_text(f"127.0.0.1 {names}\n")
        self._start_munge()
        self._run("slurmctld", ["slurmctld", "-D", "-f", str(self.base / "etc/slurm.conf")])
        for node in self._names():
            self.start_node(node)
        self.wait(lambda: self.command("sinfo", "-h", "-o", "%T %D").strip() == f"idle {self.nodes}", "idle nodes")

    def _names(self) -> list[str]:
        return [f"n{i}" for i in range(1, self.nodes + 1)]

    def _start_munge(self) -> None:
        key = self.base / "etc/munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        run, log = self.base / "run", self.base / "log"
        self._run(
            "munged",
            ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={run}/munge.socket",
             f"--pid-file={run}/munged.pid", f"--log-file={log}/munged.log", f"--seed-file={run}/munge.seed"],
        )  # fmt: skip
        self.wait(lambda: (run / "munge.socket").exists(), "munged's socket")

    def start_node(self, node: str) -> None:
        """Power a node on, with an empty spool and /tmp as on a diskless node.

        A slurmstepd that is killed leaves its PMIx socket and directory there, and the same step of the
        requeued job then cannot start on this node ("Address already in use", 22.05).
        """
        for place, mode in ((self.base / "spool" / node, 0o755), (self.base / "tmp" / node, 0o1777)):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            place.chmod(mode)
        user = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
        spaces = ["--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount", "--propagation", "private"]
        self._run(node, ["unshare", *user, *spaces, "sh", "-c", NODE_INIT, "sh", node, str(self.base)])

    def kill_node(self, node: str) -> None:
        """Power a node off: everything on it dies at once."""
        process = self._processes.pop(node)
        process.kill()
        process.wait()

    def _run(self, name: str, argv: list[str]) -> None:
        with (self.base / "log" / f"{name}.out").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                argv, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def stop(self) -> None:
        """End what `start` began, jobs first."""
        with contextlib.suppress(subprocess.SubprocessError):
            self.command("scancel", "--full", "--signal=KILL", f"--user={getpass.getuser()}")
        for name in [*self._names(), "slurmctld", "munged"]:
            process = self._processes.pop(name, None)
            if process is None:
                continue
            process.send_signal(signal.SIGKILL if name.startswith("n") else signal.SIGTERM)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def command(self, *argv: str, check: bool = True) -> str:
        """Run a Slurm command and return what it printed."""
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=60, check=False)
        if check and done.returncode != 0:
            raise subprocess.CalledProcessError(done.returncode, argv, done.stdout, done.stderr)
        return done.stdout

    def wait(self, condition, what: str, timeout: float = 60.0) -> None:  # type: ignore[no-untyped-def]
        """Wait until `condition()` is true."""
        end = time.monotonic() + timeout
        while True:
            with contextlib.suppress(subprocess.SubprocessError, KeyError):
                if condition():
                    return
            if time.monotonic() > end:
                raise TimeoutError(f"no {what} after {timeout:g} s; logs are in {self.base / 'log'}\n{self.logs()}")
            time.sleep(0.1)

    def logs(self) -> str:
        """The ends of the daemons' logs, for a failure's message."""
        texts = []
        for path in sorted((self.base / "log").iterdir()):
            texts.append(f"--- {path.name}\n" + path.read_text(errors="replace")[-1500:])
        return "\n".join(texts)

    def submit(self, script: Path, *options: str) -> str:
        """sbatch a script; return the job id."""
        return self.command("sbatch", "--parsable", *options, str(script)).strip().partition(";")[0]

    def job(self, job_id: str) -> dict[str, str]:
        """`scontrol show job` as a dict (fields without spaces only)."""
        text = self.command("scontrol", "show", "job", "-o", job_id)
        return dict(item.split("=", 1) for item in text.split() if "=" in item)


@contextlib.contextmanager
def running_cluster(base: Path, nodes: int = 2) -> Iterator[Cluster]:
    """A cluster for the block."""
    cluster = Cluster(base, nodes)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


if __name__ == "__main__":
    with running_cluster(Path(sys.argv[1])) as mini:
        print(mini.command("sinfo"))
