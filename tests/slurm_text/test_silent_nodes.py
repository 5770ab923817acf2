"""Which nodes of a job have gone silent: real ports of this machine stand for their slurmds."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from hpcresume.slurm.commands import Answer
from hpcresume.slurm.silent_nodes import can_knock, knock, silent_nodes


@pytest.fixture
def ports() -> Iterator[list[int]]:
    """Two on which somebody listens, and one that refuses."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    numbers = [each.getsockname()[1] for each in sockets]
    sockets[2].close()
    try:
        yield numbers
    finally:
        for each in sockets[:2]:
            each.close()


def lines(*nodes: tuple[str, int | None]) -> str:
    """As 22.05 prints it; a port of its own stands there only when it is not SlurmdPort."""
    return "\n".join(
        f"NodeName={name} Arch=x86_64 CoresPerSocket=1 CPUTot=2 AvailableFeatures=(null) NodeAddr=127.0.0.1 "
        f"NodeHostName={name} {'' if port is None else f'Port={port} '}Version=22.05.8 OS=Linux State=ALLOCATED "
        for name, port in nodes
    )


def asked(nodes: str, config: str = ""):
    def execute(words, _timeout):
        return Answer(0, nodes if "node" in words else config, "")

    return execute


def test_a_node_that_refuses_is_silent_as_long_as_our_own_answers(ports):
    three = lines(("n1", ports[0]), ("n2", ports[1]), ("n3", ports[2]))
    assert silent_nodes("n[1-3]", "n1", execute=asked(three)) == ("n3",)
    assert silent_nodes("n[1-3]", "n3", execute=asked(three)) == (), "slurmds cannot be reached from here"


def test_the_port_of_the_configuration_counts_for_nodes_without_their_own(ports):
    two = lines(("n1", None), ("n2", None))
    config = f"SlurmdParameters        = (null)\nSlurmdPort              = {ports[0]}\nSlurmdSyslogDebug = x\n"
    assert silent_nodes("n[1-2]", "n1", reached=True, execute=asked(two, config)) == ()
    one = asked(lines(("n1", ports[1]), ("n2", None)), f"SlurmdPort = {ports[2]}\n")
    assert silent_nodes("n[1-2]", "n1", reached=True, execute=one) == ("n2",)


@pytest.mark.parametrize(
    ("silent", "reached", "lost"),
    [
        ("2", True, "2"),
        ("2", False, ""),  # the only other one: it may be that nodes never let each other in
        ("3", True, "3"),
    ],
)
def test_of_two_nodes_the_other_one_is_lost_only_if_it_answered_before(silent, reached, lost):
    nodes = lines(("n1", 1), (f"n{silent}", 2))
    found = silent_nodes("n[1-3]", "n1", reached=reached, execute=asked(nodes), knock=lambda _, port: port == 1)
    assert found == ((f"n{lost}",) if lost else ())


@pytest.mark.parametrize(
    ("answering", "reached", "lost"),
    [
        ({1, 2, 3}, False, ("n4",)),
        ({1, 2}, False, ("n3", "n4")),
        ({1}, False, ()),  # a firewall between the nodes
        ({1}, True, ()),  # rather we are cut off than three of four nodes lost at once
        ({2, 3, 4}, True, ()),  # our own does not answer
        (set(), True, ()),
        ({1, 2, 3, 4}, True, ()),
    ],
)
def test_a_cluster_whose_nodes_do_not_let_each_other_in_loses_none(answering, reached, lost):
    nodes = lines(*((f"n{number}", number) for number in range(1, 5)))
    found = silent_nodes("n[1-4]", "n1", reached=reached, execute=asked(nodes), knock=lambda _, p: p in answering)
    assert found == lost


def test_whether_silence_means_anything_is_found_out_while_the_ranks_run(ports):
    assert can_knock("n[1-2]", "n1", execute=asked(lines(("n1", ports[2]), ("n2", ports[0]))))
    assert not can_knock("n[1-2]", "n1", execute=asked(lines(("n1", ports[0]), ("n2", ports[2]))))
    assert not can_knock("n1", "n1", execute=asked(lines(("n1", ports[0]))))
    assert not can_knock("n[1-2]", "n1", execute=lambda *_: Answer(None, "", "no answer within 10 s"))


@pytest.mark.parametrize(
    ("node_list", "own", "answer"),
    [
        ("n1", "n1", Answer(0, lines(("n1", 1)), "")),
        ("n[1-2]", None, Answer(0, lines(("n1", 1), ("n2", 1)), "")),
        ("n[1-2]", "n9", Answer(0, lines(("n1", 1), ("n2", 1)), "")),
        ("n1;reboot", "n1", Answer(0, lines(("n1", 1), ("n2", 1)), "")),
        ("n[1-2]", "n1", Answer(None, "", "no answer within 10 s")),
        ("n[1-2]", "n1", Answer(0, "garbage\x00 NodeName= NodeAddr=", "")),
    ],
)
def test_nothing_is_concluded_where_nobody_can_be_asked(node_list, own, answer):
    assert silent_nodes(node_list, own, execute=lambda words, timeout: answer, knock=lambda *_: False) == ()


def test_an_address_that_cannot_be_looked_up_says_nothing():
    assert knock("no-such-host.invalid", 1)
