"""A task of an array: numpy, a session, a file of its own at the end. python task.py STEPS SECONDS_A_STEP

It crashes at its third step for as long as a file `bug-RUN` stands in the folder.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

import hpcresume as hr

run = os.environ["HPCRESUME_RUN"]
weights = np.zeros(4)
np.random.seed(7)
with hr.session(run, every="1000 steps", reaction=0.0) as s:
    s.track(weights=weights)
    for step in s.steps(int(sys.argv[1])):
        if step == 2 and Path(f"bug-{Path(run).name}").exists():
            raise ValueError("the bug")
        weights += np.random.standard_normal(4)
        time.sleep(float(sys.argv[2]))
Path(f"{run}.result").write_text(" ".join(value.hex() for value in weights.tolist()))
