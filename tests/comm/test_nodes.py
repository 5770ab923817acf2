"""Which ranks share a machine."""

from __future__ import annotations

import socket

import pytest

from hpcresume.comm.nodes import node_name, number_nodes


def test_the_emulators_node_comes_before_slurmds_and_that_before_the_hostname():
    assert node_name({"HPCRESUME_NODE": "n1", "SLURMD_NODENAME": "c7"}) == "n1"
    assert node_name({"HPCRESUME_NODE": "", "SLURMD_NODENAME": "c7"}) == "c7"
    assert node_name({}) == socket.gethostname()


@pytest.mark.parametrize(
    ("names", "numbers"),
    [([], ()), ([b"a"], (0,)), ([b"b", b"a", b"b"], (0, 1, 0)), ([b"", b"a", b""], (0, 1, 0))],
)
def test_nodes_are_numbered_by_first_appearance(names, numbers):
    assert number_nodes(names) == numbers
