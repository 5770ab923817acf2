"""Which maintenance is in a job's way, from records as Slurm 22.05 and 24.11 print them."""

from __future__ import annotations

import time

import pytest

from hpcresume.slurm.commands import Answer
from hpcresume.slurm.maintenance import maintenance_in_the_way

NOW = time.mktime((2026, 5, 6, 8, 0, 0, 0, 0, -1))
RECORD = (
    "ReservationName={name} StartTime=2026-05-06T{start}:00 EndTime=2026-05-06T{end}:00 Duration=04:00:00 "
    "Nodes={nodes} NodeCnt=3 CoreCnt=6 Features=(null) PartitionName=(null) Flags={flags},SPEC_NODES TRES=cpu=6 "
    "Users=root Groups=(null) Accounts=(null) Licenses=(null) State=INACTIVE BurstBuffer=(null) Watts=n/a "
    "MaxStartDelay=(null)\n"
)
NODES = {"n[1-4]": "n1 n2 n3 n4", "n[2-4]": "n2 n3 n4", "n[1-2]": "n1 n2"}


def record(**changes: str) -> str:
    usual = {"name": "m1", "start": "10:00", "end": "14:00", "nodes": "n[2-4]", "flags": "MAINT,IGNORE_JOBS"}
    return RECORD.format(**{**usual, **changes})


class Cluster:
    """Four nodes, and these reservations."""

    def __init__(self, text: str, code: int | None = 0, silent: str = "") -> None:
        self.text, self.code, self.silent, self.calls = text, code, silent, list[str]()

    def __call__(self, words, timeout) -> Answer:  # type: ignore[no-untyped-def]
        self.calls.append(" ".join(words))
        if self.silent and self.silent in self.calls[-1]:
            return Answer(None, "", "no answer within 5 s")
        if "reservation" in words:
            return Answer(self.code, self.text, "")
        if "hostnames" in words:
            return Answer(0, NODES[words[-1]].replace(" ", "\n") + "\n", "")
        assert words[0] == "sinfo"
        return Answer(0, "".join(f"n{i}|idle|2|2000|(null)|(null)\n" for i in range(1, 5)), "")


def found(cluster: Cluster, nodes: int = 2, hours: float | None = 24) -> str | None:
    seconds = None if hours is None else hours * 3600
    one = maintenance_in_the_way("low", nodes, seconds, NOW, execute=cluster, sleep=lambda _: None)
    return one.name if one is not None else None


@pytest.mark.parametrize(
    ("text", "nodes", "hours", "name"),
    [
        (record(), 2, 24, "m1"),
        (record(), 2, None, "m1"),
        (record(), 2, 1.9, None),
        (record(), 1, 24, None),
        (record(start="06:00"), 2, 0.1, "m1"),
        (record(start="02:00", end="07:00"), 2, 24, None),
        (record(flags="DAILY"), 2, 24, None),
        (record(nodes="(null)"), 2, 24, None),
        (record(name="late", start="12:00") + record(name="early", start="09:00"), 2, 24, "early"),
        (record(nodes="n[1-2]", start="09:00") + record(name="m2"), 2, 24, "m2"),
        ("No reservations in the system\n", 2, 24, None),
        ("", 2, 24, None),
        ("garbage =\x00= Flags=MAINT StartTime=soon\n", 2, 24, None),
    ],
    ids=["ahead", "no limit", "over before", "a node is left", "going on", "past", "no maintenance", "no nodes",
         "the first", "the one that takes too many", "none", "nothing", "garbage"],
)  # fmt: skip
def test_the_first_maintenance_that_leaves_too_few_nodes_is_in_the_way(text, nodes, hours, name):
    assert found(Cluster(text), nodes, hours) == name


def test_without_a_maintenance_nothing_more_is_asked():
    cluster = Cluster("No reservations in the system\n")
    assert found(cluster) is None
    assert cluster.calls == ["scontrol --oneliner show reservation"]


@pytest.mark.parametrize("silent", ["reservation", "sinfo", "hostnames"])
def test_a_slurm_that_does_not_answer_says_nothing(silent):
    assert found(Cluster(record(), silent=silent)) is None


def test_a_refusal_says_nothing():
    assert found(Cluster("slurm_load_reservations error\n", code=1)) is None


def test_its_times_and_nodes_are_those_of_the_record():
    one = maintenance_in_the_way("low", 2, None, NOW, execute=Cluster(record()), sleep=lambda _: None)
    assert one is not None
    assert (one.start - NOW, one.end - NOW, one.nodes) == (2 * 3600, 6 * 3600, "n[2-4]")
