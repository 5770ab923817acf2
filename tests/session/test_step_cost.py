"""An empty step costs next to nothing: at most 100 µs of CPU per rank at 2 ranks, as the design demands."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import pytest

from tests.support.mpi import mpiexec

DRIVER = str(Path(__file__).with_name("cost_driver.py"))
LIMIT = 100.0
"""Microseconds of CPU."""


@pytest.mark.alone
@pytest.mark.mpi
def test_an_empty_step_costs_at_most_100_microseconds_of_cpu(run):
    """The median over windows of 5000 steps: a rank whose peer is not scheduled spins, and that is not ours."""
    done = mpiexec(2, [sys.executable, DRIVER, str(run), "0.25"], timeout=120)
    assert done.returncode == 0, done.stderr
    everyone = json.loads(done.stdout.splitlines()[-1])["micros"]
    assert [len(windows) for windows in everyone] == [12, 12]
    worst = max(statistics.median(windows) for windows in everyone)
    print(f"empty step at 2 ranks: {worst:.2f} µs of CPU per rank (limit {LIMIT:g})")
    assert 0 < worst <= LIMIT
