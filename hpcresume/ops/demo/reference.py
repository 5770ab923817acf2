"""Runs the plain training, uninterrupted, under the same mpiexec as the interrupted one."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from hpcresume.errors import PeerFailureError
from hpcresume.io.durable import make_directory
from hpcresume.io.processes import end_marked
from hpcresume.launch.starter import plan_start
from hpcresume.observe.lines import LineTail
from hpcresume.slurm.environment import SlurmEnvironment

__all__ = ["run_reference"]

_MARK = "HPCRESUME_DEMO_REFERENCE"
_FOREIGN = ("SLURM_", "SLURMD_", "OMPI_COMM_", "PMI", "PRTE_MCA_", "HPCRESUME_", "TORCHELASTIC_")
"""Variables of an outer job, which would tell mpiexec or the ranks where they are not."""
LOOK_EVERY = 0.2
"""Seconds between two looks at the training's trace."""


def run_reference(command: Sequence[str], *, ranks: int, folder: Path, show: Callable[[int, float], None]) -> None:
    """Run `command` on `ranks` ranks to its end; its output goes to `folder`/log.

    `show(step, loss)` is called for every finished step of rank 0, as its trace in `folder` tells.

    Raises:
        PeerFailureError: it failed; the last line that it printed is told.
        ConfigError: there is no mpiexec.
    """
    make_directory(folder)
    mark = secrets.token_hex(8)
    start = plan_start(command, ranks=ranks, starter="mpiexec", options=(), slurm=SlurmEnvironment(), shared={})
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            start.arguments,
            env={"OMPI_MCA_btl": "^ofi", **kept, **start.environ, _MARK: mark},  # as in emulate: a second less
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = _wait(process, _Progress(folder, show))
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            end_marked(_MARK, mark)
    if code != 0:
        raise PeerFailureError(
            f"the uninterrupted training failed with exit code {code}: {_last_words(folder / 'log')}",
            where=str(folder / "log"),
            hint="read the log",
        )


def _wait(process: subprocess.Popen[bytes], progress: _Progress) -> int:
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(LOOK_EVERY)
            progress.look()
            return code
        progress.look()


class _Progress:
    """Follows rank 0's trace."""

    def __init__(self, folder: Path, show: Callable[[int, float], None]) -> None:
        self._folder = folder
        self._show = show
        self._tail: LineTail | None = None

    def look(self) -> None:
        """Show the steps that were finished since the last look."""
        if self._tail is None:
            path = next(self._folder.glob("trace-0000-*.jsonl"), None)
            self._tail = LineTail(path) if path else None
        for line in self._tail.poll() if self._tail else ():
            if "step" in line:
                self._show(int(line["step"]) + 1, float.fromhex(line["loss"]))


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    errors = [line for line in lines if "Error" in line]
    return (errors or lines or ["it printed nothing"])[-1]
