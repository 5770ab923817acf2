"""What settings, times and filesystems mean for a run: verdicts by table."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcresume.ops.doctor import mounts
from hpcresume.ops.doctor.cluster import cluster_findings, job_findings, preempt_mode
from hpcresume.ops.doctor.finding import EXIT_BAD, EXIT_WARN, Finding, as_json, bad, exit_code, ok, unknown, warn
from hpcresume.ops.doctor.mounts import Mount, kind_finding, mount_of, parse_mounts
from hpcresume.ops.doctor.timing import Measured, lead_for, time_findings
from hpcresume.policy.lead import Timings
from hpcresume.slurm.configuration import Configuration
from hpcresume.slurm.submission import Partition

GOOD = {
    "SLURM_VERSION": "22.05.8",
    "JobRequeue": "1",
    "PreemptType": "preempt/partition_prio",
    "PreemptMode": "REQUEUE",
    "KillWait": "30 sec",
    "ProctrackType": "proctrack/cgroup",
    "SlurmctldParameters": "preempt_send_user_signal",
}
LOW = Partition("low", True, True, 4, None, None, 30, preempt_mode="REQUEUE")


def verdicts(values: dict[str, str], part: Partition | None = LOW) -> dict[str, str]:
    return {each.name: each.verdict for each in cluster_findings(Configuration(values), part)}


def test_a_good_cluster_is_good():
    found = verdicts(GOOD)
    assert found.pop("clock of the controller") == "unknown"
    assert set(found.values()) == {"ok"}


@pytest.mark.parametrize(("told", "verdict"), [(1000.0, "ok"), (997.0, "ok"), (1030.0, "warn"), (900.0, "warn")])
def test_the_clock_of_the_controller_is_held_against_ours(told, verdict):
    found = cluster_findings(Configuration(GOOD, told, 1000.0), LOW)
    assert [each.verdict for each in found if each.name == "clock of the controller"] == [verdict]


@pytest.mark.parametrize(
    ("changes", "name", "verdict"),
    [
        ({"JobRequeue": "0"}, "requeue", "warn"),
        ({"JobRequeue": ""}, "requeue", "unknown"),
        ({"SlurmctldParameters": ""}, "warning of a preemption", "warn"),
        ({"SlurmctldParameters": "", "PreemptParameters": "send_user_signal"}, "warning of a preemption", "ok"),
        ({"SLURM_VERSION": "19.05.7"}, "version", "warn"),
        ({"SLURM_VERSION": "x"}, "version", "unknown"),
        ({"SLURM_VERSION": "25.05.1"}, "version", "ok"),
        ({"PreemptType": "preempt/none"}, "preemption", "ok"),
        ({"PreemptType": "preempt/qos"}, "preemption", "unknown"),
        ({"KillWait": ""}, "KillWait", "unknown"),
        ({"ProctrackType": "proctrack/odd"}, "process tracking", "unknown"),
        ({"ProctrackType": "proctrack/linuxproc"}, "process tracking", "ok"),
    ],
)
def test_each_setting_has_its_verdict(changes, name, verdict):
    assert verdicts({**GOOD, **changes})[name] == verdict


@pytest.mark.parametrize(
    ("mode", "verdict"),
    [
        ("REQUEUE", "ok"),
        ("CANCEL", "warn"),
        ("SUSPEND", "warn"),
        ("GANG,SUSPEND", "warn"),
        ("OFF", "ok"),
        ("odd", "unknown"),
    ],
)
def test_what_a_preemption_does_goes_by_the_partition(mode, verdict):
    part = Partition("low", True, True, 4, None, None, 30, preempt_mode=mode)
    assert verdicts(GOOD, part)["preemption"] == verdict


def test_where_nobody_preempts_no_warning_is_missed():
    found = verdicts({**GOOD, "PreemptType": "preempt/none", "SlurmctldParameters": ""})
    assert "warning of a preemption" not in found
    assert preempt_mode(Configuration({}), None) == ""


def test_a_newer_slurm_may_hold_a_job_that_exits_in_its_grace():
    new = {**GOOD, "SLURM_VERSION": "24.11.5", "MaxBatchRequeue": "5"}
    (told,) = [f for f in cluster_findings(Configuration(new), LOW) if f.name == "requeues in a row"]
    assert "MaxBatchRequeue=5" in told.what


def test_a_job_without_requeue_is_bad_whatever_the_cluster_says():
    (found,) = job_findings(False, "7")
    assert (found.verdict, "Requeue=0" in found.what) == ("bad", True)
    assert "scontrol update JobId=7" in found.hint
    assert [f.verdict for f in job_findings(True, "7")] == ["ok"]
    assert list(job_findings(None, "7")) == []


def measured(save: float, step: float = 0.0, count: int = 20) -> Measured:
    return Measured(Timings(tuple([save] * count), step))


def times(found: Measured, **changes: object) -> dict[str, Finding]:
    facts = {"mode": "REQUEUE", "grace": 30.0, "kill_wait": 30.0, "asked": None, "limited": False, **changes}
    return {each.name: each for each in time_findings(found, **facts)}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("save", "step", "grace", "verdict", "words"),
    [
        (5.0, 1.0, 30.0, "ok", "grace 30 s, a save takes 5 s"),
        (20.5, 0.0, 28.0, "warn", "nothing to spare"),
        (20.0, 5.0, 30.0, "warn", "without reading it back"),
        (41.0, 2.0, 30.0, "warn", "without reading it back"),
        (120.0, 0.0, 30.0, "bad", "grace 30 s, a save takes 120 s: a preemption loses"),
        (80.0, 0.0, 30.0, "bad", "loses what was done since the last save"),
        (41.0, 28.0, 30.0, "bad", "loses what was done since the last save"),
        (1.0, 0.0, 0.0, "ok", "KillWait leaves 30 s"),
        (120.0, 0.0, 0.0, "bad", "GraceTime=0"),
    ],
)
def test_the_grace_is_held_against_what_a_save_takes(save, step, grace, verdict, words):
    found = times(measured(save, step), grace=grace)["grace of a preemption"]
    assert (found.verdict, words in found.what) == (verdict, True), found
    if verdict == "bad":
        assert "save more often" in found.hint
        assert "or ask for GraceTime=" in found.hint


def test_without_a_measured_save_nobody_can_tell():
    found = times(Measured())
    assert {name: each.verdict for name, each in found.items()} == {
        "time of a save": "unknown",
        "grace of a preemption": "unknown",
    }
    assert times(Measured(), grace=0.0)["grace of a preemption"].verdict == "warn"
    assert "grace of a preemption" not in times(measured(1.0), mode="OFF")
    assert times(measured(1.0), grace=None)["grace of a preemption"].verdict == "unknown"


@pytest.mark.parametrize(("asked", "verdict"), [(300.0, "ok"), (40.0, "warn"), (None, "warn")])
def test_the_lead_of_the_time_limit(asked, verdict):
    found = times(measured(60.0), asked=asked, limited=True)["lead of the time limit"]
    assert found.verdict == verdict
    if verdict == "warn":
        assert f"B:USR1@{lead_for(measured(60.0))}" in found.hint
    assert times(Measured(), asked=300.0, limited=True)["lead of the time limit"].verdict == "unknown"


def test_the_advised_lead_is_never_shorter_than_usual():
    assert lead_for(Measured()) == lead_for(measured(0.01)) == 120
    assert lead_for(measured(200.0)) == 280


MOUNTS = """\
22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:40 / /scratch rw,relatime shared:1 - lustre 10.0.0.1@tcp:/scratch rw
31 30 0:41 / /scratch/in\\040between rw - tmpfs tmpfs rw
32 22 0:42 / /home rw - nfs4 server:/home rw
33 22 0:43 / /net rw master:3 - fuse.glusterfs host:/v1 rw
torn line
"""


@pytest.mark.parametrize(
    ("path", "kind", "verdict"),
    [
        ("/scratch/runs", "lustre", "ok"),
        ("/scratch/in between/x", "tmpfs", "bad"),
        ("/scratchy", "ext4", "warn"),
        ("/home/me", "nfs4", "warn"),
        ("/net/v", "fuse.glusterfs", "ok"),
    ],
)
def test_the_filesystem_of_a_folder(path, kind, verdict):
    found = mounts._holding(path, parse_mounts(MOUNTS))
    assert found is not None
    assert found.kind == kind
    assert kind_finding(found, many_nodes=True).verdict == verdict


@pytest.mark.parametrize(
    ("kind", "many", "seen", "verdict"),
    [
        ("ext4", False, None, "ok"),
        ("ext4", True, None, "warn"),
        ("ext4", True, True, "ok"),
        ("ext4", True, False, "bad"),
        ("tmpfs", True, True, "bad"),
        ("overlay", False, None, "warn"),
        ("cifs", True, True, "bad"),
        ("oddfs", False, None, "unknown"),
        ("oddfs", True, True, "ok"),
        ("ceph", False, None, "ok"),
    ],
)
def test_a_local_disk_is_fine_alone_and_not_for_many_nodes(kind, many, seen, verdict):
    assert kind_finding(Mount("/x", kind, "s"), many_nodes=many, seen_by_others=seen).verdict == verdict


def test_this_machine_tells_where_its_memory_is(tmp_path):
    found = mount_of(tmp_path)
    assert found is not None
    shm = mount_of(Path("/dev/shm"))
    assert shm is not None
    assert (shm.kind, kind_finding(shm, many_nodes=False).verdict) == ("tmpfs", "bad")
    assert kind_finding(None, many_nodes=False).verdict == "unknown"


def test_the_exit_code_is_that_of_the_worst():
    fine, odd = ok("a", "b", "c"), unknown("a", "b", "c")
    assert exit_code([]) == exit_code([fine, odd]) == 0
    assert exit_code([fine, warn("a", "b", "c")]) == EXIT_WARN == 3
    assert exit_code([warn("a", "b", "c"), bad("a", "b", "c", "d")]) == EXIT_BAD == 1
    assert as_json(fine) == {"area": "a", "check": "b", "verdict": "ok", "what": "c", "try": None}
