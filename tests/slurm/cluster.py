"""The cluster of these tests: hpcresume's own `MiniSlurm`, with what tests ask of it in few words."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hpcresume.testing.minislurm import MiniSlurm
from hpcresume.testing.minislurm.machine import missing_programs
from tests.support.lacking import cannot

__all__ = ["Cluster", "root_2411", "running_cluster", "skip_without_slurm"]


class Cluster:
    """A running cluster; `env` is what its commands and jobs need."""

    def __init__(self, mini: MiniSlurm) -> None:
        self.mini = mini
        self.base = mini.directory
        self.nodes = len(mini.names)
        self.env = mini.environment

    def start_node(self, node: str) -> None:
        """Power a node on."""
        self.mini.start_node(node)

    def kill_node(self, node: str) -> None:
        """Power a node off: everything on it dies at once."""
        self.mini.kill_node(node)

    def command(self, *argv: str, check: bool = True) -> str:
        """Run a Slurm command and return what it printed."""
        return self.mini.command(*argv, check=check)

    def wait(self, condition: Callable[[], object], what: str, timeout: float = 60.0) -> None:
        """Wait until `condition()` is true."""

        def met() -> object:
            with contextlib.suppress(KeyError):  # a field that `job` does not have yet
                return condition()
            return False

        self.mini.wait(met, what, timeout=timeout)

    def submit(self, script: Path, *options: str) -> str:
        """sbatch a script; return the job id."""
        return self.command("sbatch", "--parsable", *options, str(script)).strip().partition(";")[0]

    def job(self, job_id: str) -> dict[str, str]:
        """`scontrol show job` as a dict (fields without spaces only)."""
        text = self.command("scontrol", "show", "job", "-o", job_id)
        return dict(item.split("=", 1) for item in text.split() if "=" in item)


def skip_without_slurm() -> None:
    """Skip the test where Slurm is not installed; in CI it fails."""
    missing = missing_programs()
    if missing:
        cannot(f"no real Slurm here: {', '.join(missing)} missing; `make test-slurm` installs them where it may")


def root_2411() -> Path:
    """The folder of the Debian with Slurm 24.11 that tools/install_slurm_2411.sh makes; else skip the test, or fail it
    in CI.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = Path(os.environ.get("HPCRESUME_SLURM_ROOT") or cache / "hpcresume" / "slurm-24.11")
    if not (root / ".complete").exists():
        cannot(f"no Slurm 24.11 in {root}; as root, `make test-slurm` makes it (tools/install_slurm_2411.sh)")
    return root


@contextlib.contextmanager
def running_cluster(base: Path, nodes: int = 2, root: Path | None = None, **settings: Any) -> Iterator[Cluster]:
    """A cluster for the block; `settings` as `MiniSlurm` takes them."""
    with MiniSlurm(base, nodes=nodes, root=root, **settings) as mini:
        yield Cluster(mini)
