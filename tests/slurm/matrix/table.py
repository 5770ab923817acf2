"""What each event has to do to each way: the one place that says it. docs/SLURM.md is made of it.

A cell is a way and an event. The suite measures the same tuple on a real cluster and compares the whole of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hpcresume.session.fence import FENCE_SECONDS
from tests.slurm.matrix.training import EVERY, PACE

__all__ = ["CAUSES_UNKNOWN", "CI", "CI_24_11", "EMPTY", "NOTES", "ON_24_11", "OUTCOMES", "WAYS", "Outcome"]

WAYS = {
    "srun": "sbatch, `hpcresume launch`, srun",
    "mpiexec": "sbatch, `hpcresume launch`, mpiexec",
    "torchrun": "sbatch, `hpcresume launch`, torchrun",
    "submitit": "submitit, `hr.Resumable`",
    "array": "submitit, `map_array`",
}


@dataclass(frozen=True)
class Outcome:
    """What becomes of a training.

    Attributes:
        state: of the run in the end, as `hpcresume status` has it.
        causes: why each attempt ended, in order.
        lost: steps that are done again, at most.
        lost_seen: how many they were in a run of the cell; None in the table of what is expected.
        same: are all losses and the final state those of an uninterrupted training, bit for bit? None: not finished.
        slurm: Slurm's state of the job in the end.
        evidence: what `hpcresume why` gives as evidence for the first cause, as a regular expression.
        deadline: "recorded" where Slurm told until when the job had, and the first attempt knew it within 2 s; "not
            recorded" where it did not know; "" where Slurm told nothing.
    """

    state: str
    causes: tuple[str, ...]
    lost: int
    same: bool | None
    slurm: str
    evidence: str = ""
    deadline: str = ""
    lost_seen: int | None = field(default=None, compare=False)


SINCE_SAVE = EVERY + 2
"""What is lost without a warning: the steps since the last save, of which there is one every EVERY steps."""


SPLIT = SINCE_SAVE + int((FENCE_SECONDS + 5) / PACE)
"""And when two starts are at work: what the older one does until it has seen the newer one's claim, for which it looks
every FENCE_SECONDS, and has come to the end of a step; five seconds for a busy machine."""


def _back(cause: str, lost: int, evidence: str, deadline: str = "") -> Outcome:
    """It comes back by itself and ends as if nothing had been."""
    return Outcome("done", (cause, "done"), lost, True, "COMPLETED", evidence, deadline)


_CHOSEN = "PreemptTime is set"
_NODE_GONE = r"Slurm: down: n\d+|slurmd on n\d+ has begun anew|NODE_FAIL|the supervisor vanished"
_PERSON = "warned by SIGUSR1; Slurm plans no end"
_UNTOUCHED = Outcome("done", ("done",), 0, True, "COMPLETED", "finished")
_LAUNCHED = {
    "preempt-batch": _back("preempted", 0, _CHOSEN, "recorded"),
    "preempt-ranks": _back("preempted", 0, _CHOSEN, "recorded"),
    "preempt-term": _back("preempted", 0, _CHOSEN, "recorded"),
    "preempt-at-once": _back("preempted", 0, "warned, then ended by Slurm|PreemptTime is set"),
    "time-limit": _back("walltime", 0, r"warned \d+ s before the time limit", "recorded"),
    "signal": _back("operator", 0, _PERSON),
    "signal-batch": _back("operator", 0, _PERSON),
    "signal-full": _back("operator", 0, _PERSON),
    "signal-step": _back("operator", 0, _PERSON),
    "requeue": _back("operator", 0, "without any warning, as scontrol requeue does"),
    "requeue-saving": _back("operator", 0, "without any warning, as scontrol requeue does"),
    "node-off": _back("node-failure", SINCE_SAVE, r"n\d+ does not answer any more|Slurm: down: n\d+"),
    "batch-node-off": _back("node-failure", SINCE_SAVE, _NODE_GONE),
    "split-brain": _back("node-failure", SPLIT, "Slurm has started the job again while|Slurm: down"),
    "controller": _UNTOUCHED,
    "drain": _UNTOUCHED,
    "no-requeue": Outcome("ended", ("preempted",), 0, None, "FAILED", _CHOSEN, "recorded"),
    "hold": _back("operator", 0, "without any warning, as scontrol requeue does"),
    "cancel": Outcome("ended", ("operator",), 0, None, "CANCELLED", "not requeued, as scancel does"),
    "memory": _back("out-of-memory", SINCE_SAVE, "MemoryError on rank 1"),
    "crash": _back("crash", SINCE_SAVE, "ValueError on rank 1"),
    "exit-0": _back("crash", SINCE_SAVE, "SystemExit on rank 1"),
}  # fmt: skip

_MPIEXEC = {
    # What Slurm sends to steps, the daemon of mpiexec on the other nodes dies of; mpiexec then ends all ranks.
    **{event: replace(_LAUNCHED[event], lost=SINCE_SAVE) for event in (
        "preempt-at-once", "signal-full", "requeue", "requeue-saving", "hold", "cancel",
    )},
    "preempt-ranks": _back("preempted", SINCE_SAVE, _CHOSEN, "not recorded"),
    "preempt-term": _back("preempted", SINCE_SAVE, _CHOSEN, "not recorded"),
    "signal": _back("unknown", SINCE_SAVE, "mpiexec ended with exit code 0"),
    "signal-step": _back("unknown", SINCE_SAVE, "mpiexec ended with exit code 0"),
}  # fmt: skip

_UNSUPERVISED = {
    # No supervisor stands in the batch script, and submitit's own dies of a warning; rank 0 brings the job back.
    "preempt-batch": _back("preempted", 0, "died of the warning"),
    "signal-batch": _back("operator", 0, "died of the warning"),
    "signal-full": _back("operator", 0, "died of the warning"),
    "requeue-saving": _back("operator", SINCE_SAVE, "without any warning, as scontrol requeue does|REQUEUED"),
    "node-off": Outcome("ended", ("unknown",), SINCE_SAVE, None, "FAILED", "nobody was left to record why"),
    "batch-node-off": _back("node-failure", SINCE_SAVE, _NODE_GONE),
    # What a function raises is its result, as submitit has it.
    **{event: Outcome("ended", _LAUNCHED[event].causes[:1], SINCE_SAVE, None, "FAILED", _LAUNCHED[event].evidence)
       for event in ("memory", "crash", "exit-0")},
}  # fmt: skip

OUTCOMES: dict[tuple[str, str], Outcome] = {
    **{("srun", event): outcome for event, outcome in _LAUNCHED.items()},
    **{("mpiexec", event): outcome for event, outcome in {**_LAUNCHED, **_MPIEXEC}.items()},
    **{("torchrun", event): outcome for event, outcome in _LAUNCHED.items()},
    **{("submitit", event): outcome for event, outcome in {**_LAUNCHED, **_UNSUPERVISED}.items()},
    **{("array", event): outcome for event, outcome in {**_LAUNCHED, **_UNSUPERVISED}.items()},
    ("array", "node-off"): _UNSUPERVISED["batch-node-off"],  # a task has one node
}
"""What is expected of each cell that runs."""

ON_24_11: dict[tuple[str, str], Outcome] = {
    # A job that leaves within its grace is called so there, whatever its exit code; FAILED before.
    (way, "no-requeue"): replace(OUTCOMES[way, "no-requeue"], slurm="PREEMPTED")
    for way in WAYS
}
"""Cells that end otherwise on 24.11."""

EMPTY: dict[tuple[str, str], str] = {}
"""Cells that do not run, and why not."""

CAUSES_UNKNOWN: dict[tuple[str, str], str] = {
    **{("mpiexec", event): "Open MPI's daemon dies of USR1 and mpiexec exits 0: nothing tells that a person sent it."
       for event in ("signal", "signal-step")},
    ("submitit", "node-off"): "No supervisor stands beside the ranks, which MPI ends before Slurm notices; the job has "
    "failed then, and no next start looks for the lost node.",
}  # fmt: skip
"""Cells in which a cause is not known, and why not."""

_DAEMON = (
    "The signal goes to mpiexec's daemon, which dies of it: `--signal=B:USR1@…` goes to `hpcresume launch` instead."
)
_OWN = "submitit's batch script has no trap and dies of the signal; rank 0 brings the job back."
_RESULT = "submitit returns the exception as the job's result, and the job is over."
NOTES: dict[tuple[str, str], str] = {
    **{("mpiexec", event): _DAEMON for event in ("preempt-ranks", "preempt-term")},
    **{(way, event): _OWN for way in ("submitit", "array")
       for event in ("preempt-batch", "signal-batch", "signal-full")},
    **{(way, event): _RESULT for way in ("submitit", "array") for event in ("memory", "crash", "exit-0")},
    **{(way, "split-brain"): "What the old start did after the new one had begun is lost too." for way in WAYS},
}  # fmt: skip
"""What a reader of the table has to know of a cell."""

CI: frozenset[tuple[str, str]] = frozenset({
    ("srun", "preempt-ranks"), ("srun", "preempt-at-once"), ("srun", "time-limit"), ("srun", "signal"),
    ("srun", "signal-step"), ("srun", "requeue-saving"), ("srun", "node-off"), ("srun", "hold"),
    ("mpiexec", "preempt-batch"), ("mpiexec", "preempt-term"), ("mpiexec", "signal-batch"), ("mpiexec", "node-off"),
    ("mpiexec", "cancel"), ("mpiexec", "exit-0"),
    ("torchrun", "preempt-batch"), ("torchrun", "node-off"), ("torchrun", "memory"), ("torchrun", "controller"),
    ("submitit", "preempt-ranks"), ("submitit", "signal-full"), ("submitit", "no-requeue"), ("submitit", "crash"),
    ("submitit", "split-brain"),
    ("array", "preempt-ranks"), ("array", "requeue"), ("array", "drain"), ("array", "batch-node-off"),
})  # fmt: skip
"""Pairs that CI runs: every way and every event once at least, and more of those that went wrong before."""

CI_24_11: tuple[tuple[str, str], ...] = (
    ("srun", "preempt-at-once"), ("srun", "no-requeue"), ("mpiexec", "cancel"), ("submitit", "preempt-ranks"),
    ("submitit", "crash"),
)  # fmt: skip
"""Cells that CI runs on 24.11 too: what became of a preemption, a refused requeue, and what is read of its words."""

CI_ACCOUNTED: tuple[tuple[str, str], ...] = (
    ("srun", "crash"), ("mpiexec", "preempt-batch"), ("torchrun", "requeue"), ("submitit", "cancel"),
    ("array", "crash"),
)  # fmt: skip
"""One cell of each way that CI runs with accounting, by which submitit and the causes know more of jobs."""
