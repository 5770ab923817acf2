"""The time that a cluster gives a job between the warning of a preemption and its end: of its partition, or its QOS."""

from __future__ import annotations

from dataclasses import dataclass

from hpcresume.errors import SlurmError
from hpcresume.ops.doctor.cluster import preempt_mode
from hpcresume.slurm.configuration import Configuration, read_configuration
from hpcresume.slurm.qos import Qos, qos_of_job
from hpcresume.slurm.submission import Partition, partition

__all__ = ["Given", "ask_given", "given_time", "qos_if_it_counts"]


@dataclass(frozen=True)
class Given:
    """Seconds are None, and texts "", where nobody could tell.

    Attributes:
        mode: what a preemption does, as `cluster.preempt_mode` says; QOS when that is not known of the job's QOS.
        grace: GraceTime.
        kill_wait: KillWait.
        whose: the partition or the QOS that says so, in words.
        sends_user_signal: does a preemption send the signal of the job's own `--signal`?
    """

    mode: str = ""
    grace: float | None = None
    kill_wait: float | None = None
    whose: str = ""
    sends_user_signal: bool | None = None


def given_time(found: Configuration | None, part: Partition | None, qos: Qos | None) -> Given:
    """From what Slurm has told. With preempt/qos a partition's GraceTime says nothing (slurm.conf(5), GraceTime)."""
    if found is None:
        return Given(grace=part.grace if part is not None else None, whose=_name(part))
    mode, kill_wait = preempt_mode(found, part), found.seconds("KillWait")
    if mode != "QOS":
        grace = part.grace if part is not None else None
        return Given(mode, grace, kill_wait, _name(part), found.sends_user_signal)
    if qos is None:
        return Given(mode, None, kill_wait, "", found.sends_user_signal)
    own = Configuration({"PreemptType": "preempt/partition_prio", "PreemptMode": qos.preempt_mode or
                         found.text("PreemptMode")})  # fmt: skip
    return Given(preempt_mode(own, None) or "QOS", qos.grace, kill_wait, f"QOS {qos.name}", found.sends_user_signal)


def _name(part: Partition | None) -> str:
    return f"partition {part.name}" if part is not None else ""


def ask_given(partition_name: str | None, job_id: str) -> Given:
    """Ask Slurm for all of it. Never raises: what it does not tell is not known."""
    try:
        found = read_configuration()
        part = partition(partition_name)
    except SlurmError:
        return Given()
    return given_time(found, part, qos_if_it_counts(found, job_id))


def qos_if_it_counts(found: Configuration, job_id: str) -> Qos | None:
    """The job's QOS where preemption goes by it; None elsewhere, and when nobody can tell."""
    if preempt_mode(found, None) != "QOS":
        return None
    try:
        return qos_of_job(job_id)
    except SlurmError:
        return None
