"""Measures the CPU time of empty steps: cost_driver.py RUN REACTION, under mpiexec. Rank 0 prints JSON."""

from __future__ import annotations

import itertools
import json
import sys
import time

from mpi4py import MPI

import hpcresume as hr

WINDOW, WINDOWS = 5000, 12

marks = []
with hr.session(sys.argv[1], every="1h", reaction=float(sys.argv[2])) as s:
    for step in s.steps(WINDOW * (WINDOWS + 1) + 1):
        if step % WINDOW == 0:
            marks.append(time.process_time())  # all threads of the process, MPI's waiting included
    micros = [(after - before) / WINDOW * 1e6 for before, after in itertools.pairwise(marks)]
    everyone = MPI.COMM_WORLD.gather(micros[1:])  # the first window warms up
    if s.rank == 0:
        print(json.dumps({"micros": everyone}))
