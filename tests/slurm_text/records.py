"""Records of `scontrol show job`, as a real Slurm prints them."""

from __future__ import annotations

__all__ = ["record"]

_FIELDS = (
    "JobId={job_id} JobName={name} UserId=ada(1000) GroupId=domain users(513) MCS_label=N/A Priority=4294901757 "
    "Nice=0 Account=(null) QOS=(null) JobState={state} Reason={reason} Dependency=(null) Requeue={requeue} "
    "Restarts={restarts} BatchFlag=1 Reboot=0 ExitCode=0:0 RunTime=00:00:03 TimeLimit=UNLIMITED TimeMin=N/A "
    "SubmitTime=2024-05-06T07:00:00 EligibleTime=2024-05-06T07:00:00 AccrueTime=2024-05-06T07:00:00 "
    "StartTime={start} EndTime={end} Deadline=N/A PreemptEligibleTime={start} PreemptTime={preempted} "
    "SuspendTime=None SecsPreSuspend=0 LastSchedEval=2024-05-06T07:00:01 Scheduler=Backfill Partition=low "
    "AllocNode:Sid=login:812 ReqNodeList=(null) ExcNodeList=(null) NodeList=n[1-2] BatchHost=n1 NumNodes=2 "
    "NumCPUs=4 NumTasks=4 CPUs/Task=1 ReqB:S:C:T=0:0:*:* TRES=cpu=4,node=2,billing=4 Socks/Node=* "
    "Features=(null) DelayBoot=00:00:00 OverSubscribe=NO Contiguous=0 Licenses=(null) Network=(null) "
    "Command={command} WorkDir={workdir} Comment={comment} StdErr=/tmp/o StdIn=/dev/null StdOut=/tmp/o Power="
)


def record(**changes: str) -> str:
    """One line as `scontrol --oneliner show job` of Slurm 22.05 prints it, with some fields changed."""
    usual = {
        "job_id": "12", "name": "train", "state": "RUNNING", "reason": "None", "requeue": "1", "restarts": "0",
        "start": "2024-05-06T07:08:09", "end": "Unknown", "preempted": "None", "command": "/home/ada/job.sh",
        "workdir": "/home/ada", "comment": "(null)",
    }  # fmt: skip
    return _FIELDS.format(**{**usual, **changes}) + "\n"
