"""A real multi-node Slurm on one machine, for the tests and the CI of whoever runs things on Slurm.

    from hpcresume.testing import MiniSlurm

    with MiniSlurm("/tmp/mini", nodes=4) as cluster:
        cluster.command("srun", "-N4", "hostname")

Owns all of it; docs/MINISLURM.md shows how it is used.
"""

from __future__ import annotations

from hpcresume.testing.minislurm.cluster import MiniSlurm
from hpcresume.testing.minislurm.settings import Partition, Settings
from hpcresume.testing.minislurm.status import NodeStatus, Status

__all__ = ["MiniSlurm", "NodeStatus", "Partition", "Settings", "Status"]
