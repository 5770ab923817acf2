"""What the settings of a cluster mean for a run: requeue, preemption, signals, process tracking. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from hpcresume.ops.doctor.finding import Finding, bad, ok, unknown, warn
from hpcresume.slurm.configuration import Configuration
from hpcresume.slurm.submission import Partition

__all__ = ["cluster_findings", "job_findings", "preempt_mode"]

AREA = "slurm"
KNOWN_SINCE = (20, 2)
"""preempt_send_user_signal came with 20.02 (Slurm's RELEASE_NOTES); older ones have no way to warn the batch step."""
EXIT_IS_REQUEUED = (24, 5)
"""Since 24.05 a job that exits by itself within its grace is requeued by Slurm."""
CLOCK_WARNS = 5.0
"""Seconds: a busy controller answers late, and it tells whole seconds."""
TESTED = ((22, 5), (24, 11))
"""The versions on which the suite runs."""


def cluster_findings(found: Configuration, partition: Partition | None) -> Iterator[Finding]:
    """Everything that the configuration tells.

    Args:
        found: the controller's configuration.
        partition: the one that is meant, None when there is none.
    """
    yield _version(found)
    yield _requeue(found)
    yield _preemption(found, partition)
    if _is_preempted(found, partition):
        yield _user_signal(found)
        yield _batch_requeue(found)
    yield _kill_wait(found)
    yield _clock(found)
    yield _process_tracking(found)
    if partition is not None and not partition.up:
        yield warn(AREA, "partition", f"{partition.name} is not up: jobs in it wait", "another --partition")


def job_findings(requeueable: bool | None, job_id: str) -> Iterator[Finding]:
    """What the run's own job says, which may differ from the cluster's default."""
    if requeueable is False:
        hint = "#SBATCH --requeue in its script; for this one: scontrol update JobId=" + job_id + " Requeue=1"
        yield bad(AREA, "the job's requeue", f"job {job_id} has Requeue=0: nothing brings it back", hint)
    elif requeueable:
        yield ok(AREA, "the job's requeue", f"job {job_id} may be requeued")


def _version(found: Configuration) -> Finding:
    numbers = _numbers(found.version)
    if not numbers:
        return unknown(AREA, "version", f"the version {found.version!r} is not understood")
    if numbers < KNOWN_SINCE:
        what = f"Slurm {found.version}: a preemption can warn the ranks by TERM only"
        return warn(AREA, "version", what, "start the ranks by srun; the session hears TERM")
    tested = "" if numbers in TESTED else " (the tests run on 22.05 and 24.11)"
    return ok(AREA, "version", f"Slurm {found.version}{tested}")


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")[:2]
    return tuple(int(part) for part in parts) if len(parts) == 2 and all(p.isdecimal() for p in parts) else ()


def _requeue(found: Configuration) -> Finding:
    value = found.text("JobRequeue")
    if value == "1":
        return ok(AREA, "requeue", "JobRequeue=1: jobs may be requeued")
    if value == "0":
        what = "JobRequeue=0: a job is requeued only when its script asks for it"
        return warn(AREA, "requeue", what, "#SBATCH --requeue in every script (hpcresume render writes it)")
    return unknown(AREA, "requeue", "the configuration names no JobRequeue", "#SBATCH --requeue is safe either way")


def preempt_mode(found: Configuration, partition: Partition | None) -> str:
    """What a preemption does to jobs of the partition: OFF, REQUEUE, CANCEL, SUSPEND, … in capitals; "" unknown."""
    if found.text("PreemptType") in ("preempt/none", ""):
        return "OFF" if found.text("PreemptType") else ""
    if found.text("PreemptType") == "preempt/qos":
        return "QOS"
    own = partition.preempt_mode if partition is not None else ""
    words = {word for word in (own or found.text("PreemptMode")).upper().split(",") if word not in ("GANG", "WITHIN")}
    return next(iter(sorted(words)), "")


def _is_preempted(found: Configuration, partition: Partition | None) -> bool:
    return preempt_mode(found, partition) not in ("OFF", "")


def _preemption(found: Configuration, partition: Partition | None) -> Finding:
    mode = preempt_mode(found, partition)
    where = f"in {partition.name}" if partition is not None else "here"
    name = "preemption"
    if mode == "OFF":
        return ok(AREA, name, f"nobody preempts a job {where} ({found.text('PreemptType')})")
    if mode == "REQUEUE":
        return ok(AREA, name, f"a job {where} is preempted by being requeued ({found.text('PreemptType')})")
    if mode == "CANCEL":
        what = f"a job {where} is preempted by being cancelled: Slurm does not bring it back"
        return warn(AREA, name, what, "hpcresume launch puts it back itself within the grace; submit with --requeue")
    if mode == "SUSPEND":
        what = f"a job {where} is preempted by being suspended: it stays in memory, and no signal tells it"
        return warn(AREA, name, what, "save often enough (every=…); a suspended job is not warned of a reboot")
    if mode == "QOS":
        what = "preemption goes by QOS (preempt/qos): mode and grace are those of the job's QOS"
        return unknown(AREA, name, what, "sacctmgr show qos format=name,preempt,preemptmode,gracetime")
    return unknown(AREA, name, f"PreemptType={found.text('PreemptType')!r}, mode {mode!r} is not known to hpcresume")


def _user_signal(found: Configuration) -> Finding:
    name = "warning of a preemption"
    if found.sends_user_signal:
        return ok(AREA, name, "a preemption sends the signal of the job's own --signal, B: heeded")
    what = "a preemption sends TERM to the ranks and nothing to the batch step, whatever --signal says"
    hint = ("start the ranks by srun: they hear it and save (mpiexec dies of it in 1 to 2 s); "
            "or ask for PreemptParameters=send_user_signal (in older versions: "
            "SlurmctldParameters=preempt_send_user_signal)")  # fmt: skip
    return warn(AREA, name, what, hint)


def _batch_requeue(found: Configuration) -> Finding:
    name, numbers = "requeues in a row", _numbers(found.version)
    limit = found.text("MaxBatchRequeue")
    if not limit:
        if numbers and numbers < EXIT_IS_REQUEUED:
            return ok(AREA, name, "this Slurm does not requeue a job that exits in its grace: hpcresume launch does")
        limit = "5, its default"
    return ok(AREA, name, f"MaxBatchRequeue={limit}: hpcresume launch requeues by scontrol, which does not count")


def _kill_wait(found: Configuration) -> Finding:
    seconds = found.seconds("KillWait")
    if seconds is None:
        return unknown(AREA, "KillWait", "the configuration names no KillWait")
    return ok(AREA, "KillWait", f"{seconds:g} s between TERM and KILL at the end of a grace and of a time limit")


def _clock(found: Configuration) -> Finding:
    name = "clock of the controller"
    if found.told_at is None:
        return unknown(AREA, name, "the controller does not tell its time")
    ahead = found.told_at - found.asked_at
    if abs(ahead) <= CLOCK_WARNS:
        return ok(AREA, name, "as ours, to some seconds")
    what = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} ours, and deadlines are told by it"
    return warn(AREA, name, what, "tell the administrators; a longer lead of --signal until then")


def _process_tracking(found: Configuration) -> Finding:
    name, value = "process tracking", found.text("ProctrackType")
    if value == "proctrack/cgroup":
        what = f"{value}: signals reach the direct children of Slurm's step daemon only"
        if found.text("SignalChildrenProcesses").lower() == "yes":  # of cgroup.conf, which show config lists below
            return ok(AREA, name, f"{value} with SignalChildrenProcesses: signals reach every process of a step")
        return ok(AREA, name, f"{what}, and the ranks are such under hpcresume launch")
    if value in ("proctrack/linuxproc", "proctrack/pgid"):
        return ok(AREA, name, f"{value}: signals reach every descendant of a rank too; a session shields its own")
    return unknown(AREA, name, f"ProctrackType={value!r}", "hpcresume doctor --probe shows which signal reaches whom")
