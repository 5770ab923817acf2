"""What a small Slurm is asked to be, and the files that come of it: no Slurm needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcresume.errors import ConfigError
from hpcresume.testing import MiniSlurm, Partition
from hpcresume.testing.minislurm.places import Places, checked_directory
from hpcresume.testing.minislurm.settings import (
    OWN_KEYS,
    Settings,
    default_partitions,
    parse_partition,
    parse_setting,
)
from hpcresume.testing.minislurm.status import is_up, parse_nodes, registered
from hpcresume.testing.minislurm.texts import Site, hosts, slurm_conf, slurmdbd_conf

PLACES = Places(Path("/tmp/mini"))
SITE = Site("laptop", "ada", 17000)


def settings(**given) -> Settings:
    return Settings(**{"partitions": default_partitions(20), **given})


def lines(text: str) -> dict[str, str]:
    """Key → value of the lines that are no nodes and no partitions."""
    pairs = [line.split("=", 1) for line in text.splitlines() if not line.startswith(("NodeName", "PartitionName"))]
    assert len({key for key, _ in pairs}) == len(pairs), "a key stands there twice"
    return dict(pairs)


def test_the_configuration_has_a_port_for_each_node_and_the_two_partitions():
    text = slurm_conf(settings(nodes=4, cpus=3, memory=500), PLACES, SITE)
    assert "NodeName=n[1-4] NodeHostname=n[1-4] NodeAddr=127.0.0.1 Port=[17001-17004] CPUs=3 RealMemory=500" in text
    low, high = [line for line in text.splitlines() if line.startswith("PartitionName")]
    assert "PartitionName=low" in low
    assert "Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=20 MaxTime=INFINITE" in low
    assert "Default=NO PriorityTier=10 PreemptMode=OFF GraceTime=0" in high
    values = lines(text)
    assert values["SlurmctldHost"] == "laptop(127.0.0.1)"
    assert values["SlurmUser"] == "ada"
    assert values["SlurmctldPort"] == "17000"


def test_the_user_signal_can_be_off():
    assert lines(slurm_conf(settings(), PLACES, SITE))["SlurmctldParameters"] == "preempt_send_user_signal"
    assert "send_user_signal" not in slurm_conf(settings(user_signal=False), PLACES, SITE)


def test_accounting_takes_the_port_after_the_nodes_and_no_password():
    wanted = settings(nodes=3, accounting=True)
    values = lines(slurm_conf(wanted, PLACES, SITE))
    assert values["AccountingStorageType"] == "accounting_storage/slurmdbd"
    assert values["AccountingStoragePort"] == lines(slurmdbd_conf(wanted, PLACES, SITE))["DbdPort"] == "17004"
    assert "StoragePass" not in slurmdbd_conf(wanted, PLACES, SITE)


def test_a_line_of_one_s_own_replaces_ours_whatever_its_case():
    values = lines(slurm_conf(settings(extra={"killwait": "9", "MaxArraySize": "77"}), PLACES, SITE))
    assert values["killwait"] == "9"
    assert "KillWait" not in values
    assert values["MaxArraySize"] == "77"


@pytest.mark.parametrize("key", sorted(OWN_KEYS))
def test_lines_on_which_the_cluster_depends_cannot_be_set(key):
    with pytest.raises(ConfigError, match="decided here"):
        parse_setting(f"{key}=x")


@pytest.mark.parametrize("text", ["KillWait", "KillWait=", "=5", "Kill Wait=5", "KillWait=5\nNodeName=x", "A=\x1b[0m"])
def test_what_is_no_line_of_slurm_conf_is_refused(text):
    with pytest.raises(ConfigError, match=r"no line of slurm\.conf"):
        parse_setting(text)


@pytest.mark.parametrize(
    ("text", "partition"),
    [
        ("main", Partition("main")),
        ("low,tier=2,preempt=requeue,grace=5", Partition("low", 2, "REQUEUE", 5)),
        ("a,limit=3,nodes=n[1-2,4]", Partition("a", limit=3, nodes="n[1-2,4]")),
        ("a,nodes=n1,n3,tier=4", Partition("a", tier=4, nodes="n1,n3")),
    ],
)
def test_partitions_are_read(text, partition):
    assert parse_partition(text) == partition


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot be the name"),
        ("9", "cannot be the name"),
        ("a b", "cannot be the name"),
        ("a,grace", "does not belong"),
        ("a,color=red", "does not belong"),
        ("a,tier=1,tier=2", "does not belong"),
        ("a,grace=-1", "no whole number"),
        ("a,grace=1e3", "no whole number"),
        ("a,tier=65534", "tier is 65534"),
        ("a,limit=0", "limit is 0"),
        ("a,preempt=SUSPEND", "cannot preempt by 'SUSPEND'"),
        ("a,nodes=m1", "no list of nodes"),
        ("a,nodes=n1 State=DOWN", "no list of nodes"),
    ],
)
def test_what_is_no_partition_is_refused_with_the_reason(text, says):
    with pytest.raises(ConfigError, match=says):
        parse_partition(text)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"nodes": 0}, "nodes is 0"),
        ({"nodes": 257}, "nodes is 257"),
        ({"nodes": True}, "nodes is True"),
        ({"nodes": "4"}, "nodes is '4'"),
        ({"cpus": 0}, "cpus is 0"),
        ({"memory": -1}, "memory is -1"),
        ({"grace": -1}, "grace is -1"),
        ({"partitions": [Partition("a"), Partition("A")]}, "same name"),
        ({"extra": {"NodeName": "x"}}, "decided here"),
    ],
)
def test_a_cluster_out_of_its_limits_is_refused_before_anything_is_made(given, says, tmp_path):
    with pytest.raises(ConfigError, match=says):
        MiniSlurm(tmp_path / "c", **given)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("name", ["with space", "a,b", "a#b", "a%nb", "a=b", 'a"b', "a\\b", "a\nb", "größe", "a;b"])
def test_a_path_that_slurm_conf_would_misread_is_refused(name, tmp_path):
    with pytest.raises(ConfigError, match=r"slurm\.conf cannot hold"):
        MiniSlurm(tmp_path / name)


def test_a_path_that_is_too_long_for_a_unix_socket_is_refused_with_the_length_that_is_not():
    assert checked_directory(Path("/" + "x" * 60), "n2") == Path("/" + "x" * 60)
    with pytest.raises(ConfigError, match="13 bytes too long for the unix sockets") as caught:
        checked_directory(Path("/" + "x" * 80), "n2")
    assert "at most 68 bytes" in caught.value.hint
    longest = Places(Path("/" + "x" * 67)).spool("n2") / "stepd.slurm.pmix.999999.99999"
    assert len(str(longest)) == 107


def test_hosts_has_all_nodes_here_and_keeps_what_the_machine_knows():
    text = hosts(["n1", "n2"], "laptop", "10.0.0.1 storage\n")
    assert text == "127.0.0.1 localhost laptop n1 n2\n10.0.0.1 storage\n"


def test_states_of_nodes_are_read_once_for_each_node():
    assert parse_nodes("n1 idle\nn1 idle\nn2 DOWN*\n\nslurm_load_node: error of some kind\n") == {
        "n1": "idle",
        "n2": "down*",
    }
    assert [is_up(state) for state in ("idle", "mixed", "idle*", "down", "drained", "unknown")] == [
        True, True, False, False, False, False,
    ]  # fmt: skip


def test_the_start_of_a_slurmd_is_read():
    assert registered("NodeName=n1 SlurmdStartTime=2026-01-02T03:04:05 LastBusyTime=x") is not None
    assert registered("NodeName=n1 SlurmdStartTime=None") is None
    assert registered("") is None
