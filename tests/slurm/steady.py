"""A training that goes on for a minute and needs nobody. python steady.py RUN OUT"""

import sys
import time

import hpcresume as hr

with hr.session(sys.argv[1], every="1000 steps") as s:
    s["x"] = 0
    for _ in s.steps(600):
        time.sleep(0.1)
