"""What people write first: import, training and submission in one script, so that the function is `__main__`'s own."""

import sys

import numpy as np
import submitit

import hpcresume as hr


def train(run, steps):
    total = np.zeros(1)
    with hr.session(run, every="5 steps") as s:
        s.track(total=total)
        for step in s.steps(steps):
            total += step
    return float(total[0])


if __name__ == "__main__":
    executor = submitit.AutoExecutor(folder="logs", cluster=sys.argv[1])
    executor.update_parameters(timeout_min=5)
    print(executor.submit(hr.Resumable(train), "runs/one-file", 10).result())
