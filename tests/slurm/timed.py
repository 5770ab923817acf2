"""A small training of one rank that saves often. python timed.py RUN STEPS SECONDS_A_STEP OUT"""

import hashlib
import sys
import time
from pathlib import Path

import numpy as np

import hpcresume as hr

run, steps, pause, out = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4])
np.random.seed(7)
state = np.zeros(1000)
with hr.session(run, every="10 steps", reaction=0) as s:
    s.track(state=state)
    for _ in s.steps(steps):
        state += np.random.standard_normal(1000)
        time.sleep(pause)
out.write_text(hashlib.sha256(state.tobytes()).hexdigest())
