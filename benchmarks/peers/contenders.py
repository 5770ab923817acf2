"""The contenders: how each is submitted, where its checkpoints lie, and which page its program follows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PEERS = Path(__file__).resolve().parent
ROOT = PEERS.parents[1]

SBATCH = """\
#!/bin/bash
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal={signal}
"""


@dataclass(frozen=True)
class Terms:
    """What a case asks of a submission.

    Attributes:
        minutes: the job's limit.
        lead: seconds before it at which the warning is to come.
        other_form: is the job's `--signal` to have `B:` where the contender's page has none, and none where it has?
    """

    minutes: int = 60
    lead: int = 60
    other_form: bool = False


@dataclass(frozen=True)
class Contender:
    """One of them.

    Attributes:
        name: for the command line.
        title: for the page.
        signal: the signal by which it is warned.
        to_batch: does its page warn the batch script (`--signal=B:…`) rather than the tasks?
        body: of its batch script; {python} is filled in. Empty for those that submitit submits.
        submitit: the word of submit.py, for those.
        files: what its user wrote for it.
        checkpoints: patterns of its checkpoint files below the job's folder.
        distribution: whose version counts.
        page: what its program follows.
    """

    name: str
    title: str
    signal: str
    to_batch: bool
    body: str
    files: tuple[str, ...]
    checkpoints: tuple[str, ...]
    distribution: str
    page: str
    submitit: str = ""

    def form(self, terms: Terms) -> str:
        """The value of `--signal`."""
        return f"{'B:' if self.to_batch is not terms.other_form else ''}{self.signal}@{terms.lead}"

    def script(self, terms: Terms) -> str:
        """The batch script."""
        return SBATCH.format(signal=self.form(terms)) + self.body.format(python=sys.executable)

    def submit(self, command: Callable[..., str], out: Path, terms: Terms) -> str:
        """Submit; the job's id. `command` runs a command in the cluster's environment and returns what it printed."""
        if self.submitit:
            words = (sys.executable, "-m", "benchmarks.peers.submit", self.submitit)
            return command(*words, str(terms.minutes), str(terms.lead), "low").split()[-1]
        path = out / "job.sh"
        path.write_text(self.script(terms))
        options = ("--partition=low", f"--time={terms.minutes}", f"--output={out}/job.log", f"--chdir={out}")
        return command("sbatch", "--parsable", *options, str(path)).strip()

    def newest_checkpoints(self, out: Path) -> list[Path]:
        """Its checkpoint files, the newest first."""
        found = [path for pattern in self.checkpoints for path in out.glob(pattern) if path.is_file()]
        return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)

    def user_lines(self) -> int:
        """Lines of program and batch script that its user writes; without blank lines, comments and docstrings."""
        texts = [(PEERS / name).read_text() for name in self.files]
        own = self.script(Terms()) if self.body else ""
        return sum(map(_lines_of_code, texts)) + sum(1 for line in own.splitlines() if line.strip())


def _lines_of_code(text: str) -> int:
    """Lines that hold a statement or a part of one, docstrings left out."""
    import ast

    tree = ast.parse(text)
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            skipped.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(text.splitlines(), 1)
    return sum(1 for n, line in lines if line.strip() and not line.strip().startswith("#") and n not in skipped)


HAND = """\
trap 'kill -USR1 "$srun"' USR1
srun {python} -m benchmarks.peers.by_hand &
srun=$!
while kill -0 "$srun" 2>/dev/null; do
    wait "$srun"
    code=$?
done
if [ "$code" = 85 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""
LAUNCH = """\
trap '' USR1
exec {python} -m hpcresume launch --run="$PEERS_OUT/run" -- {python} -m benchmarks.peers.with_session
"""

CONTENDERS = (
    Contender(
        name="launch",
        title="hpcresume launch",
        signal="USR1",
        to_batch=True,
        body=LAUNCH,
        files=("with_session.py",),
        checkpoints=("run/generations/*/state.h5",),
        distribution="hpcresume",
        page="../README.md",
    ),
    Contender(
        name="resumable",
        title="hr.Resumable, with submitit",
        signal="USR2",
        to_batch=False,
        body="",
        submitit="resumable",
        files=("with_session.py",),
        checkpoints=("run/generations/*/state.h5",),
        distribution="hpcresume",
        page="../examples/submitit/README.md",
    ),
    Contender(
        name="submitit",
        title="submitit",
        signal="USR2",
        to_batch=False,
        body="",
        submitit="own",
        files=("with_submitit.py",),
        checkpoints=("checkpoint.pt",),
        distribution="submitit",
        page="https://facebookincubator.github.io/submitit/checkpointing.html",
    ),
    Contender(
        name="lightning",
        title="Lightning",
        signal="USR1",
        to_batch=False,
        body="srun {python} -m benchmarks.peers.with_lightning\n",
        files=("with_lightning.py",),
        checkpoints=("hpc_ckpt_*.ckpt", "checkpoints/*.ckpt"),
        distribution="lightning",
        page="https://lightning.ai/docs/pytorch/stable/clouds/cluster_advanced.html",
    ),
    Contender(
        name="by-hand",
        title="by hand",
        signal="USR1",
        to_batch=True,
        body=HAND,
        files=("by_hand.py",),
        checkpoints=("checkpoint.pt",),
        distribution="torch",
        page="https://docs.nersc.gov/jobs/examples/",
    ),
)
