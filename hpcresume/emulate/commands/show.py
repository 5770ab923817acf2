"""The records of `scontrol show`: jobs, steps, nodes, partitions, configuration. The order is that of 22.05."""

from __future__ import annotations

import os
import time

from hpcresume.emulate.commands.fields import group_name, job_fields, run_time
from hpcresume.emulate.commands.sinfo import node_state
from hpcresume.emulate.controller import Controller
from hpcresume.emulate.hostlist import compress
from hpcresume.emulate.jobs import Job, Step
from hpcresume.emulate.nodes import Node, Partition
from hpcresume.emulate.slurm_time import limit_text, stamp
from hpcresume.io.users import user_name

__all__ = ["config_text", "job_text", "node_text", "partition_text", "step_text"]


def _record(lines: list[str], oneline: bool) -> str:
    """Lines of one record, or all in one line."""
    return " ".join(lines) + "\n" if oneline else "\n   ".join(lines) + "\n\n"


def job_text(job: Job, oneline: bool) -> str:
    """One job."""
    f, request = job_fields(job), job.request
    array = f"ArrayJobId={job.array} ArrayTaskId={job.task} " if job.array is not None else ""
    if array and request.array is not None and request.array.limit:
        array += f"ArrayTaskThrottle={request.array.limit} "
    shown = request.shown
    cpus = f["numcpus"]
    restarts = int(f["restartcnt"])
    least = (request.ntasks_per_node or 1) * request.cpus_of_a_task
    flag = 1 + min(restarts, 1)
    sharing = "NO" if request.exclusive else "OK"
    exclude = compress([*request.exclude, *job.exclude]) or "(null)"
    batch = f" BatchHost={job.nodes[0]}" if job.nodes and job.start is not None else ""
    lines = [
        f"JobId={job.number} {array}JobName={request.name}",
        f"UserId={user_name()}({os.getuid()}) GroupId={group_name()}({os.getgid()}) MCS_label=N/A",
        f"Priority={f['prioritylong']} Nice={request.nice} Account={f['account']} QOS={f['qos']}",
        f"JobState={job.state} Reason={job.reason} Dependency={f['dependency']}",
        f"Requeue={int(job.requeue)} Restarts={restarts} BatchFlag={flag} Reboot=0 ExitCode={f['exit_code']}",
        f"RunTime={limit_text(run_time(job, time.time()))} TimeLimit={f['timelimitfull']} TimeMin=N/A",
        f"SubmitTime={stamp(job.submitted)} EligibleTime={stamp(job.begin or job.submitted)}",
        f"AccrueTime={stamp(job.begin or job.submitted)}",
        f"StartTime={stamp(job.start if job.start is not None else job.begin)} EndTime={stamp(job.end)} Deadline=N/A",
        f"PreemptEligibleTime={stamp(job.start, 'None')} PreemptTime={stamp(job.preempted_at, 'None')}",
        f"SuspendTime=None SecsPreSuspend=0 LastSchedEval={stamp(time.time())} Scheduler=Main",
        f"Partition={job.partition.name} AllocNode:Sid={os.uname().nodename}:1",
        f"ReqNodeList={compress(request.nodelist) or '(null)'} ExcNodeList={exclude}",
        f"NodeList={f['nodelist']}",
        *([batch.strip()] if batch else []),
        _counts(job, f),
        f"TRES=cpu={cpus},node={f['numnodes']},billing={cpus}",
        f"Socks/Node=* NtasksPerN:B:S:C={request.ntasks_per_node or 0}:0:*:* CoreSpec=*",
        f"MinCPUsNode={least} MinMemoryNode={shown.get('mem', '0')} MinTmpDiskNode=0",
        f"Features={f['features']} DelayBoot=00:00:00",
        f"OverSubscribe={sharing} Contiguous=0 Licenses={shown.get('licenses', '(null)')} Network=(null)",
        f"Command={request.command}",
        f"WorkDir={request.directory}",
        *([f"AdminComment={shown['admin-comment']}"] if "admin-comment" in shown else []),
        *([f"Comment={shown['comment']}"] if "comment" in shown else []),
        f"StdErr={job.error()}",
        f"StdIn={request.input or '/dev/null'}",
        f"StdOut={job.output()}",
    ]
    return _record(lines, oneline)


def _counts(job: Job, f: dict[str, str]) -> str:
    per_task = job.request.cpus_of_a_task
    counts = f"NumNodes={f['numnodes']} NumCPUs={f['numcpus']} NumTasks={f['numtasks']}"
    return f"{counts} CPUs/Task={per_task} ReqB:S:C:T=0:0:*:*"


def step_text(job: Job, step: Step, oneline: bool) -> str:
    """One step that runs."""
    return _record(
        [
            f"StepId={job.id}.{step.number} UserId={os.getuid()} StartTime={stamp(step.start)} TimeLimit=UNLIMITED",
            f"State=RUNNING Partition={job.partition.name} NodeList={compress(step.nodes)}",
            f"Nodes={len(step.nodes)} CPUs={sum(step.tasks)} Tasks={sum(step.tasks)} Name={step.name} Network=(null)",
        ],
        oneline,
    )


def node_text(node: Node, controller: Controller, oneline: bool) -> str:
    """One node."""
    state = node_state(node, time.time()).upper().replace("DRAINED", "IDLE+DRAIN").replace("DRAINING", "MIXED+DRAIN")
    own = [p.name for p in controller.settings.partitions if not p.nodes or node.name in p.nodes]
    lines = [
        f"NodeName={node.name} Arch={os.uname().machine} CoresPerSocket=1 ",
        f"CPUAlloc={node.used} CPUEfctv={node.cpus} CPUTot={node.cpus} CPULoad=N/A",
        "AvailableFeatures=(null)",
        "ActiveFeatures=(null)",
        "Gres=(null)",
        f"NodeAddr=127.0.0.1 NodeHostName={node.name} Version={controller.settings.slurm}",
        f"RealMemory=1 AllocMem=0 FreeMem=N/A Sockets={node.cpus} Boards=1",
        f"State={state} ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A",
        f"Partitions={','.join(own)} ",
        *([f"Reason={node.reason}"] if node.reason else []),
    ]
    return _record(lines, oneline)


def partition_text(partition: Partition, controller: Controller, oneline: bool) -> str:
    """One partition."""
    nodes = partition.nodes or tuple(controller.nodes)
    cpus = sum(controller.nodes[name].cpus for name in nodes)
    default = "YES" if partition == controller.default_partition else "NO"
    limit = limit_text(partition.limit)
    default_limit = limit_text(partition.default_limit, missing="NONE")
    lines = [
        "AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL",
        f"AllocNodes=ALL Default={default} QoS=N/A",
        f"DefaultTime={default_limit} DisableRootJobs=NO ExclusiveUser=NO GraceTime={partition.grace:g} Hidden=NO",
        f"MaxNodes=UNLIMITED MaxTime={limit} MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED",
        f"Nodes={compress(nodes)}",
        f"PriorityJobFactor=1 PriorityTier={partition.tier} RootOnly=NO ReqResv=NO OverSubscribe=NO",
        f"OverTimeLimit=NONE PreemptMode={partition.preempt.upper()}",
        f"State=UP TotalCPUs={cpus} TotalNodes={len(nodes)} SelectTypeParameters=NONE",
        "JobDefaults=(null)",
        "DefMemPerNode=UNLIMITED MaxMemPerNode=UNLIMITED",
        f"TRES=cpu={cpus},node={len(nodes)},billing={cpus}",
    ]
    return _record([f"PartitionName={partition.name}", *lines], oneline)


def config_text(controller: Controller) -> str:
    """What of slurm.conf has a meaning here."""
    settings = controller.settings
    signals = "send_user_signal" if settings.user_signal else ""
    newer = settings.slurm != "22.05"
    values = {
        "ClusterName": settings.name,
        "JobFileAppend": int(settings.append),
        "JobRequeue": int(settings.requeue),
        "KillWait": f"{settings.kill_wait:g} sec",
        "MaxArraySize": 1001,
        "MaxBatchRequeue": 5,
        "MinJobAge": "300 sec",
        "MpiDefault": settings.mpi,
        "PreemptMode": "REQUEUE",
        "PreemptParameters": (signals if newer else "") or "(null)",
        "PreemptType": "preempt/partition_prio",
        "PreemptExemptTime": "00:00:00",
        "ProctrackType": "proctrack/linuxproc",
        "SchedulerType": "sched/builtin",
        "SLURM_VERSION": f"{settings.slurm}.0",
        "SlurmctldParameters": "(null)" if newer or not signals else f"preempt_{signals}",
    }
    head = f"Configuration data as of {stamp(time.time())}\n"
    return head + "".join(f"{key:<23} = {value}\n" for key, value in values.items())
