"""`MiniSlurm`: a real Slurm of several nodes on this machine, up, asked, damaged, down.

Owns what users call. How each thing is done stands in the modules beside it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from hpcresume.emulate import keeper_program
from hpcresume.errors import ClusterError, ConfigError, SlurmError, UsageError
from hpcresume.testing.minislurm import state as states
from hpcresume.testing.minislurm.daemons import MARK
from hpcresume.testing.minislurm.logs import tails
from hpcresume.testing.minislurm.machine import check_machine, slurm_version
from hpcresume.testing.minislurm.parts import PATIENCE, Parts
from hpcresume.testing.minislurm.places import Places, checked_directory
from hpcresume.testing.minislurm.ports import free_ports, taken_ports
from hpcresume.testing.minislurm.settings import Partition, Settings, default_partitions
from hpcresume.testing.minislurm.start import start_cluster, start_controller
from hpcresume.testing.minislurm.state import State
from hpcresume.testing.minislurm.status import NodeStatus, Status, is_up, registered

__all__ = ["MiniSlurm"]


class MiniSlurm:
    """A real Slurm on this machine: munged, slurmctld, and a slurmd per node in namespaces of its own.

        with MiniSlurm("/tmp/mini", nodes=4, grace=20) as cluster:
            job = cluster.command("sbatch", "--parsable", "job.sh").strip()
            cluster.kill_node("n2")
            cluster.start_node("n2")

    Needs Debian's or Ubuntu's Slurm packages and no root; a plain user needs user namespaces, and jobs run as that
    user. As a context manager it is bound to this process: even a kill -9 of this process takes it down. After `up()`
    it stays until `down()`, which another process may call through `MiniSlurm.attach(directory)`.

    Args:
        directory: where everything of it lies: missing or empty, made private (0700). At most about 65 bytes long,
            for the unix sockets in it.
        nodes: how many; they are n1, n2, …
        cpus: of each node, whatever the machine has.
        memory: of each node in MB, whatever the machine has.
        grace: GraceTime of the partition `low`, seconds between the warning of a preemption and its end.
        partitions: other ones than `low` (default, preempted and requeued) and `high` (preempts `low`).
        user_signal: whether a preemption sends the signal of the job's `--signal` at once.
        accounting: whether slurmdbd and a private MariaDB run beside it, so that sacct works.
        extra: further lines of slurm.conf, such as {"KillWait": "10"}.
        root: another root (a folder with a Debian in it) whose Slurm is to be used.

    Raises:
        ConfigError: a value is out of its limits, or Slurm cannot use the directory's path.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        nodes: int = 2,
        cpus: int = 2,
        memory: int = 2000,
        grace: int = 20,
        partitions: Sequence[Partition] = (),
        user_signal: bool = True,
        accounting: bool = False,
        extra: Mapping[str, str] | None = None,
        root: str | os.PathLike[str] | None = None,
    ) -> None:
        settings = Settings(
            nodes=nodes,
            cpus=cpus,
            memory=memory,
            partitions=tuple(partitions) or default_partitions(grace),
            user_signal=user_signal,
            accounting=accounting,
            extra=dict(extra or {}),
        )
        self._settings = settings
        self._places = Places(checked_directory(Path(directory), settings.names[-1]))
        self._root = None if root is None else Path(root).absolute()
        self._parts: Parts | None = None
        self._keeper: tuple[subprocess.Popen[bytes], int] | None = None

    @classmethod
    def attach(cls, directory: str | os.PathLike[str]) -> MiniSlurm:
        """The cluster that this user started in `directory`, from whichever process.

        Raises:
            ClusterError: there is none, it is another user's, or its file is damaged.
        """
        places = Places(Path(directory).absolute())
        state = states.read(places)
        cluster = cls(places.directory, partitions=state.settings.partitions, root=state.root)
        cluster._settings = state.settings
        cluster._parts = Parts(places, state)
        return cluster

    # ---- what it is

    @property
    def directory(self) -> Path:
        """Where it lies."""
        return self._places.directory

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its nodes."""
        return self._settings.names

    @property
    def settings(self) -> Settings:
        """What it was asked to be."""
        return self._settings

    @property
    def version(self) -> str:
        """Slurm's version, `22.05.8` for instance.

        Raises:
            UsageError: the cluster is not up.
        """
        return self._running().state.version

    @property
    def variables(self) -> dict[str, str]:
        """What must be added to an environment so that sbatch, srun and their kind speak with this cluster.

        Raises:
            UsageError: the cluster is not up.
        """
        return self._running().variables

    @property
    def environment(self) -> dict[str, str]:
        """A whole environment for commands of this cluster: ours, without what another Slurm left in it.

        Raises:
            UsageError: the cluster is not up.
        """
        return self._running().environment

    def _running(self) -> Parts:
        if self._parts is None:
            raise UsageError("this cluster is not up", where=str(self.directory), hint="up(), or with MiniSlurm(…)")
        return self._parts

    # ---- up and down

    def __enter__(self) -> MiniSlurm:
        self._up(bound=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(self) -> None:
        """Start it; return when all nodes are idle. It stays until somebody takes it down, also without this process.

        Raises:
            ClusterError: programs or rights are missing, or a daemon does not start; the message has its last words.
            ConfigError: the directory is not empty, not ours, or holds a cluster.
        """
        self._up(bound=False)

    def _up(self, *, bound: bool) -> None:
        if self._parts is not None:
            raise UsageError("this cluster is up already", where=str(self.directory), hint="down() first")
        check_machine(accounting=self._settings.accounting, root=self._root)
        version = slurm_version(self._root)
        made = not self.directory.exists()
        with free_ports(self._settings.nodes + 2) as port:
            state = State(
                format=states.FORMAT,
                token=secrets.token_hex(8),
                user=os.geteuid(),
                port=port,
                version=version,
                root=None if self._root is None else str(self._root),
                made=made,
                settings=self._settings,
            )
            try:
                states.claim(self._places, state)
                self._parts = Parts(self._places, state)
                if bound:
                    self._bind(state.token)
                start_cluster(self._parts)
            except BaseException:
                self._give_up(state)
                raise
        if not bound:
            self._parts.daemons.let_go()

    def _give_up(self, state: State) -> None:
        """Take back what an `up` has begun; what is not ours stays."""
        if self._parts is None and states.is_ours(self._places, state.token):  # interrupted in the midst of claiming
            self._parts = Parts(self._places, state)
        self.down()
        if state.made:
            with contextlib.suppress(OSError):  # not made yet, or something lies in it
                self.directory.rmdir()

    def _bind(self, token: str) -> None:
        """Have a keeper take it down when this process ends, in whichever way: it sees a pipe close."""
        read, write = os.pipe2(os.O_CLOEXEC)
        words = [sys.executable, "-S", "-I", str(keeper_program.__file__), str(read), f"{MARK}={token}"]
        try:
            keeper = subprocess.Popen(
                [*words, str(self.directory)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(read,),
                start_new_session=True,
                cwd="/",
            )
        except BaseException:
            os.close(write)
            raise
        finally:
            os.close(read)
        self._keeper = (keeper, write)

    def let_go(self) -> None:
        """What this process started of it may outlive this process."""
        self._running().daemons.let_go()

    def down(self, *, keep_logs: bool = False) -> None:
        """End every process of it and remove everything it made, but its logs when asked; nothing if it is down.

        Jobs that run in it are killed. Only processes that this cluster started are ended.

        Raises:
            OSError: something cannot be removed.
        """
        parts, self._parts = self._parts, None
        if parts is not None:
            parts.daemons.end_all()
            states.clear(self._places, parts.state, keep_logs=keep_logs)
        if self._keeper is not None:
            (keeper, write), self._keeper = self._keeper, None
            keeper.kill()
            keeper.wait()
            os.close(write)

    # ---- asked

    def command(self, *words: str, check: bool = True, timeout: float = PATIENCE) -> str:
        """Run a command, such as sbatch, in the cluster's environment; return what it printed.

        Raises:
            SlurmError: it is missing, gives no answer in time, or (with `check`) fails.
        """
        done = self._running().ask(*words, timeout=timeout)
        if check and done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip()).replace("\n", "; ")
            raise SlurmError(f"{words[0]} exited with {done.returncode}: {said}", where=" ".join(words))
        return done.stdout

    def on_node(self, name: str, *words: str, check: bool = True, timeout: float = PATIENCE) -> str:
        """Run a command on a node, outside of any job; return what it printed.

        What it mounts is that node's alone, jobs there see it, and it goes when the node loses power:
        `cluster.on_node("n1", "mount", "-t", "tmpfs", "tmpfs", "/scratch")`. What it leaves running stays on the node.
        It has this user's rights, so mounting takes root.

        Raises:
            ConfigError: there is no such node.
            ClusterError: the node is off.
            SlurmError: it is missing, gives no answer in time, or (with `check`) fails.
        """
        self._check_node(name)
        leading = self._running().nodes.lead_into(name)
        if not leading:
            raise ClusterError(f"{name} is off", where=str(self.directory), hint=f"start_node({name!r})")
        return self.command(*leading, *words, check=check, timeout=timeout)

    def wait(self, condition: Callable[[], object], what: str, *, timeout: float = PATIENCE) -> None:
        """Wait until `condition()` is true; a command that fails meanwhile only means "not yet".

        Raises:
            ClusterError: the time is over; the message has the ends of all logs.
        """
        until = time.monotonic() + timeout
        while True:
            with contextlib.suppress(SlurmError):
                if condition():
                    return
            if time.monotonic() > until:
                raise ClusterError(f"no {what} after {timeout:g} s\n{self.logs()}", where=str(self._places.logs))
            time.sleep(0.1)

    def copy_logs(self, folder: Path) -> None:
        """Copy the daemons' logs.

        Raises:
            OSError: they cannot be read or written.
        """
        shutil.copytree(self._places.logs, folder, dirs_exist_ok=True)

    def logs(self) -> str:
        """The ends of all daemons' logs."""
        return tails(self._places.logs)

    def status(self) -> Status:
        """How it is now: its nodes as Slurm sees them, and which daemons are alive."""
        parts = self._running()
        states_seen: dict[str, str] = {}
        if parts.daemons.pid("slurmctld") is not None:
            with contextlib.suppress(SlurmError):
                states_seen = parts.node_states(timeout=10.0)
        return Status(
            directory=str(self.directory),
            version=parts.state.version,
            nodes=tuple(
                NodeStatus(
                    name=name,
                    state=states_seen.get(name, "unknown"),
                    powered=first is not None,
                    slurmd=slurmd,
                )
                for name, (first, slurmd) in parts.nodes.look(self.names).items()
            ),
            daemons={name: parts.daemons.pid(name) for name in parts.essential},
        )

    # ---- damaged, and mended

    def kill_node(self, name: str) -> None:
        """Power a node off: everything that runs on it is gone when this returns. Slurm notices after a while.

        Raises:
            ConfigError: there is no such node.
        """
        self._check_node(name)
        self._running().nodes.kill(name)

    def kill_slurmd(self, name: str) -> None:
        """End a node's slurmd alone: its jobs run on while Slurm believes that the node is lost (split brain).

        Raises:
            ConfigError: there is no such node.
        """
        self._check_node(name)
        self._running().nodes.kill_slurmd(name)

    def start_node(self, name: str, *, wait: bool = True) -> None:
        """Power a node on, or start its slurmd again where only that had ended; wait until Slurm may use it.

        Raises:
            ConfigError: there is no such node.
            ClusterError: its port has been taken meanwhile, or it does not come up.
        """
        self._check_node(name)
        parts = self._running()
        number = self.names.index(name) + 1
        began = 0
        if parts.nodes.slurmd(name) is None:
            began = self._next_second(name)
            port = parts.state.port + number
            if taken_ports(range(port, port + 1)):
                raise ClusterError(f"the port of {name} has been taken", where=f"127.0.0.1:{port}", hint="ss -ltnp")
        parts.nodes.start(name)
        if wait:
            parts.expect(lambda: self._is_back(name, began), f"answer of {name}", (name,))

    def _next_second(self, name: str) -> int:
        """Now in whole seconds, by which a registration from now on differs from the one before."""
        before = registered(self._running().node_facts(name))
        while before is not None and int(time.time()) <= before:
            time.sleep(0.02)
        return int(time.time())

    def _is_back(self, name: str, began: int) -> bool:
        """Whether a node has registered since `began` and takes jobs. One that was set down meanwhile is asked back."""
        parts = self._running()
        if (registered(parts.node_facts(name)) or 0) < began:
            return False
        state = parts.node_states().get(name, "")
        if state.startswith("down"):
            parts.change("scontrol", "update", f"NodeName={name}", "State=RESUME")
        return is_up(state)

    def stop_controller(self, *, crash: bool = False) -> None:
        """End slurmctld, as its machine's administrator does; or by a crash, which loses what it had not saved yet."""
        self._running().daemons.end("slurmctld", kindly=0.0 if crash else 20.0)

    def start_controller(self) -> None:
        """Start slurmctld again with the state that it left; wait until it answers.

        Raises:
            ClusterError: it does not start.
        """
        parts = self._running()
        if parts.daemons.pid("slurmctld") is None:
            start_controller(parts)
        alive = [name for name, (_, slurmd) in parts.nodes.look(self.names).items() if slurmd is not None]
        parts.expect(lambda: self._knows(alive), "nodes", ("munged", "slurmctld"))

    def _knows(self, alive: list[str]) -> bool:
        """Whether the controller has heard of the nodes that are on."""
        seen = self._running().node_states()
        return bool(seen) and not any(seen.get(name, "unknown").startswith("unknown") for name in alive)

    def _check_node(self, name: str) -> None:
        if name not in self.names:
            raise ConfigError(f"there is no node {name}", where=str(self.directory), hint=f"n1 to {self.names[-1]}")
