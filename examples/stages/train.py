"""The second stage: fits a line to what `prepare` has made, inside a session, so that it survives a preemption."""

import argparse
import os
import time
from pathlib import Path

import numpy as np

import hpcresume as hr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--pause", type=float, default=0.02, help="seconds that a step takes longer")
    asked = parser.parse_args()
    data = np.load(Path(os.environ["HPCRESUME_STAGE_PREPARE_RUN"]) / "data.npz")
    inputs, targets = data["inputs"], data["targets"]
    weights = np.zeros(inputs.shape[1])
    np.random.seed(2)
    with hr.session(os.environ["HPCRESUME_RUN"], every="20min") as s:
        s.track(weights=weights)
        for _ in s.steps(asked.steps):
            rows = np.random.choice(len(inputs), 32, replace=False)  # the session tracks this generator
            errors = inputs[rows] @ weights - targets[rows]
            weights -= 0.02 * inputs[rows].T @ errors / len(rows)
            s.log(loss=float(np.mean(errors**2)))
            time.sleep(asked.pause)


if __name__ == "__main__":
    main()
