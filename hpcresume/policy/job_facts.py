"""What the scheduler says of a job, as one frozen value. Knows no command and no clock."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["JobFacts"]


@dataclass(frozen=True)
class JobFacts:
    """The fields of `scontrol show job` that decisions rest on.

    Times are seconds since the epoch, None when Slurm says None, N/A or Unknown.

    Attributes:
        state: Slurm's JobState, for instance RUNNING, COMPLETING, PREEMPTED, NODE_FAIL.
        reason: Slurm's Reason, for instance None, NodeDown, Preempted.
        requeueable: the Requeue field: may `scontrol requeue` bring the job back?
        restarts: how often the job was started before.
        start: when this attempt began.
        end: when Slurm will end it. A preemption with grace moves this to now + GraceTime.
        preempted_at: PreemptTime, set once Slurm has chosen the job for preemption.
        down_nodes: those of the job's nodes that Slurm calls down.
        silent_nodes: those that do not answer any more, before Slurm has noticed.
        reached: another of its nodes let us in while the ranks ran, so that silence says something.
        partition: where it runs; of a waiting job perhaps several with commas.
        excluded: ExcNodeList in Slurm's compressed form, "" when none.
        required: ReqNodeList, likewise.
        tasks: NumTasks; None when not said.
        cpus: NumCPUs, while it runs those that it has.
        exit_code: the batch script's exit code, as far as it has ended; None when not said.
        limit: TimeLimit in seconds, None when there is none. Slurm lowers it to `least` for a start that would not fit
            otherwise, and leaves it so (seen on 22.05 and 24.11).
        least: TimeMin in seconds (`--time-min`), None without one.
        killed_by: the signal that the batch script died of, None for none.
        asked_at: our clock when Slurm answered.
        warning_lead: how long before its time limit the job asked to be warned, as far as that is known.
        warns_batch: that warning goes to the batch script alone (`--signal=B:…`).
    """

    state: str
    reason: str = ""
    requeueable: bool | None = None
    restarts: int = 0
    start: float | None = None
    end: float | None = None
    preempted_at: float | None = None
    down_nodes: tuple[str, ...] = ()
    silent_nodes: tuple[str, ...] = ()
    reached: bool = False
    partition: str = ""
    excluded: str = ""
    required: str = ""
    tasks: int | None = None
    cpus: int | None = None
    exit_code: int | None = None
    limit: float | None = None
    least: float | None = None
    killed_by: int | None = None
    asked_at: float = 0.0
    warning_lead: float | None = None
    warns_batch: bool = False

    @property
    def being_preempted(self) -> bool:
        """Has Slurm chosen this start of the job for preemption? 24.11 keeps an earlier start's PreemptTime (seen)."""
        if self.preempted_at is None:
            return False
        return self.state != "RUNNING" or self.start is None or self.preempted_at >= self.start
