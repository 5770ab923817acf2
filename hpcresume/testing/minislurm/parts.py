"""The parts of one cluster, put together: its places, its daemons, its nodes; and the commands that ask it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from hpcresume.errors import ClusterError, SlurmError
from hpcresume.testing.minislurm.daemons import MARK, Daemons, search_path
from hpcresume.testing.minislurm.logs import complaints
from hpcresume.testing.minislurm.nodes import Nodes
from hpcresume.testing.minislurm.places import Places
from hpcresume.testing.minislurm.root import HOLDER, OtherRoot
from hpcresume.testing.minislurm.state import State
from hpcresume.testing.minislurm.status import parse_nodes

__all__ = ["PATIENCE", "Parts"]

PATIENCE = 60.0
"""Seconds for what takes one or two on an idle machine."""
_FOREIGN = (
    "OMPI_", "PMIX_", "SACCT_", "SALLOC_", "SBATCH_", "SCONTROL_", "SINFO_", "SLURM_", "SQUEUE_", "SRUN_",
)  # fmt: skip
"""Variables of another Slurm's job, or of somebody's habits, that would change what commands do here."""
_PAUSE = 0.05


class Parts:
    """A cluster that has a directory and a token, whether it runs or not."""

    def __init__(self, places: Places, state: State) -> None:
        self.places = places
        self.state = state
        self.daemons = Daemons(places, state.token)
        self.other = None if state.root is None else OtherRoot(Path(state.root), places, self.daemons)
        self.nodes = Nodes(places, self.daemons, self.enter)

    def enter(self) -> list[str]:
        """The beginning of a command that is to run where Slurm's programs are."""
        return [] if self.other is None else self.other.enter()

    @property
    def essential(self) -> tuple[str, ...]:
        """The daemons without which nothing works, in the order of their start."""
        first = (HOLDER,) if self.other is not None else ()
        accounting = ("mariadbd", "slurmdbd") if self.state.settings.accounting else ()
        return (*first, *accounting, "munged", "slurmctld")

    @property
    def variables(self) -> dict[str, str]:
        """What must be added to an environment so that sbatch, srun and their kind speak with this cluster."""
        path = search_path()
        if self.other is not None:
            path = f"{self.places.programs}{os.pathsep}{path}"
        # Open MPI's daemons name their folders in /tmp by their pid alone, and in namespaces pids are alike.
        own = {"PRTE_MCA_prte_tmpdir_base": str(self.places.directory / "tmp")}
        return {"SLURM_CONF": str(self.places.configuration), "PATH": path, **own}

    @property
    def _marked(self) -> dict[str, str]:
        """The environment of what is asked here for the cluster's own sake: it is ended with the cluster."""
        return {**self.environment, MARK: self.state.token}

    @property
    def environment(self) -> dict[str, str]:
        """A whole environment: ours, without what another Slurm left in it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        return {**kept, **self.variables}

    def ask(
        self, *words: str, timeout: float = PATIENCE, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the cluster's environment.

        Raises:
            SlurmError: it is missing, or gives no answer in time.
        """
        try:
            return subprocess.run(
                words,
                env=self.environment if environ is None else dict(environ),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SlurmError(f"{words[0]} gave no answer in {timeout:g} s", where=str(self.places.directory)) from None
        except OSError as error:
            raise SlurmError(f"{words[0]}: {error.strerror}", where=str(error.filename or words[0])) from error

    def node_states(self, *, timeout: float = PATIENCE) -> dict[str, str]:
        """Node → state in sinfo's words; empty when the controller does not answer.

        Raises:
            SlurmError: sinfo is missing or hangs.
        """
        words = ("sinfo", "--noheader", "--Node", "--format=%N %T")
        answer = self.ask(*words, timeout=timeout, environ=self._marked)
        return parse_nodes(answer.stdout) if answer.returncode == 0 else {}

    def change(self, *words: str) -> bool:
        """Have a command change something; whether it could.

        Raises:
            SlurmError: it is missing or hangs.
        """
        return self.ask(*words, timeout=20.0, environ=self._marked).returncode == 0

    def node_facts(self, node: str) -> str:
        """What scontrol says of a node, on one line; empty when the controller does not answer.

        Raises:
            SlurmError: scontrol is missing or hangs.
        """
        return self.ask("scontrol", "--oneliner", "show", "node", node, environ=self._marked).stdout

    def expect(
        self, condition: Callable[[], bool], what: str, daemons: tuple[str, ...], *, timeout: float = PATIENCE
    ) -> None:
        """Wait for a condition while the daemons that it needs are alive.

        Raises:
            ClusterError: one of them ended, or the time is over; with the daemon's last words.
        """
        until = time.monotonic() + timeout
        while True:
            dead = [name for name in daemons if self.daemons.pid(name) is None]
            if dead:
                raise ClusterError(f"{dead[0]} ended: {self._words(dead[0])}", where=str(self.places.logs))
            if condition():
                return
            if time.monotonic() > until:
                words = "; ".join(filter(None, (self._words(name) for name in daemons[-2:])))
                raise ClusterError(f"no {what} after {timeout:g} s: {words}", where=str(self.places.logs))
            time.sleep(_PAUSE)

    def _words(self, daemon: str) -> str:
        return complaints(self.places.logs, daemon) or "it said nothing"
