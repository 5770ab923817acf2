"""The configuration files of a small Slurm, as texts made from its settings. Pure.

The values were watched on Slurm 22.05 and 24.11; where one has a reason, it stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpcresume.testing.minislurm.places import Places
from hpcresume.testing.minislurm.settings import Partition, Settings

__all__ = ["CLUSTER", "Site", "hosts", "slurm_conf", "slurmdbd_conf"]

CLUSTER = "mini"
DATABASE = "slurm_acct_db"


@dataclass(frozen=True)
class Site:
    """What the machine and its moment decide.

    Attributes:
        host: this machine's name, as hostname(1) has it.
        user: who starts the daemons, and as whom jobs run.
        port: slurmctld's; each node has one of those that follow, slurmdbd the last.
    """

    host: str
    user: str
    port: int


def slurm_conf(settings: Settings, places: Places, site: Site) -> str:
    """slurm.conf."""
    values = {**_fixed(places, site), **_chosen(settings, places, site)}
    replaced = {key.lower() for key in settings.extra}
    lines = [f"{key}={value}" for key, value in values.items() if key.lower() not in replaced]
    lines += [f"{key}={value}" for key, value in settings.extra.items()]
    last = settings.nodes
    lines.append(
        f"NodeName=n[1-{last}] NodeHostname=n[1-{last}] NodeAddr=127.0.0.1 Port=[{site.port + 1}-{site.port + last}] "
        f"CPUs={settings.cpus} RealMemory={settings.memory} State=UNKNOWN"
    )
    lines += [_partition(partition, default=index == 0) for index, partition in enumerate(settings.partitions)]
    return "\n".join(lines) + "\n"


def _fixed(places: Places, site: Site) -> dict[str, str]:
    """What every cluster has."""
    return {
        "ClusterName": CLUSTER,
        "SlurmctldHost": f"{site.host}(127.0.0.1)",
        "SlurmUser": site.user,
        "SlurmdUser": site.user,
        "AuthType": "auth/munge",
        # A requeued job waits for its old credential to expire: 120 s by default, 5 s at the least.
        "AuthInfo": f"socket={places.munge_socket},cred_expire=5",
        "CredType": "cred/munge",
        "SlurmctldPort": str(site.port),
        "StateSaveLocation": str(places.directory / "state"),
        "SlurmctldPidFile": str(places.run("slurmctld.pid")),
        "SlurmctldLogFile": str(places.logs / "slurmctld.log"),
        "SlurmdSpoolDir": str(places.spool("%n")),
        "SlurmdPidFile": str(places.run("slurmd-%n.pid")),
        "TmpFS": str(places.temporary("%n")),
        "SlurmdLogFile": str(places.logs / "slurmd-%n.log"),
        "MailProg": "/bin/true",
        "ProctrackType": "proctrack/linuxproc",  # needs no cgroups
        "TaskPlugin": "task/none",
        "SwitchType": "switch/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "SlurmdParameters": "config_overrides",  # nodes have the processors and the memory that they claim
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core",
        "MpiDefault": "none",
        "PropagateResourceLimits": "NONE",
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "JobRequeue": "1",
        "KillWait": "5",
        "CompleteWait": "0",
        "MinJobAge": "3600",  # finished jobs can still be asked for
        "SlurmctldTimeout": "30",
        "SlurmdTimeout": "10",  # so long until a lost node is noticed
        "BatchStartTimeout": "10",
        "ReturnToService": "2",
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": "sched_interval=2,bf_interval=2,sched_min_interval=100000",
    }


def _chosen(settings: Settings, places: Places, site: Site) -> dict[str, str]:
    """What this cluster was asked to be."""
    values = {}
    if settings.user_signal:  # newer versions know it as a word of PreemptParameters too, older ones refuse that
        values["SlurmctldParameters"] = "preempt_send_user_signal"
    if settings.accounting:
        values["AccountingStorageType"] = "accounting_storage/slurmdbd"
        values["AccountingStorageHost"] = "127.0.0.1"
        values["AccountingStoragePass"] = str(places.munge_socket)  # slurmdbd is not spoken to with AuthInfo's
        values["AccountingStoragePort"] = str(site.port + settings.nodes + 1)
    else:
        values["AccountingStorageType"] = "accounting_storage/none"
        values["JobCompType"] = "jobcomp/filetxt"
        values["JobCompLoc"] = str(places.logs / "jobcomp.txt")
    return values


def _partition(partition: Partition, *, default: bool) -> str:
    limit = "INFINITE" if partition.limit is None else str(partition.limit)
    return (
        f"PartitionName={partition.name} Nodes={partition.nodes} Default={'YES' if default else 'NO'} "
        f"PriorityTier={partition.tier} PreemptMode={partition.preempt} GraceTime={partition.grace} "
        f"MaxTime={limit} OverSubscribe=NO State=UP"
    )


def slurmdbd_conf(settings: Settings, places: Places, site: Site) -> str:
    """slurmdbd.conf. MariaDB listens on a socket in a private directory only and asks for no password."""
    lines = {
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={places.munge_socket}",
        "DbdHost": site.host,
        "DbdAddr": "127.0.0.1",
        "DbdPort": str(site.port + settings.nodes + 1),
        "SlurmUser": site.user,
        "LogFile": str(places.logs / "slurmdbd.log"),
        "PidFile": str(places.run("slurmdbd.pid")),
        "StorageType": "accounting_storage/mysql",
        "StorageHost": "localhost",
        "StorageUser": site.user,
        "StorageLoc": DATABASE,
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items())


def hosts(names: Sequence[str], host: str, machine: str) -> str:
    """/etc/hosts as the nodes see it: every node is this machine; then what the machine's own says."""
    return f"127.0.0.1 {' '.join(['localhost', host, *names])}\n{machine}"
