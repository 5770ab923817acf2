"""A small training for the cluster: numpy, a session, MPI ranks. python train.py RUN STEPS OUT [SECONDS_A_STEP]

TRAIN_EVERY says how often it saves: never before it has to, unless told; TRAIN_PAUSE is instead of SECONDS_A_STEP.
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

import hpcresume as hr
from hpcresume.comm.mpi import MpiRanks


def main(run: str, total: int, out: Path, pause: float) -> None:
    pause = float(os.environ.get("TRAIN_PAUSE", pause))
    ranks = MpiRanks()
    weights, momentum = np.zeros(1000), np.zeros(1000)
    np.random.seed(100 + ranks.rank)
    with hr.session(run, every=os.environ.get("TRAIN_EVERY", "1000000 steps"), comm=ranks, reaction=0) as s:
        s.track(weights=weights, momentum=momentum)
        for step in s.steps(total):
            gradient = np.random.standard_normal(1000)
            shared = [np.frombuffer(text) for text in ranks.allgather(gradient.tobytes())]
            momentum *= 0.9
            momentum += sum(shared)
            weights -= 0.01 * momentum
            s.log(loss=float(np.abs(weights).sum()))
            if ranks.rank == 0:
                with (out / "steps.jsonl").open("a") as lines:
                    lines.write(
                        json.dumps(
                            {
                                "step": step,
                                "pid": os.getpid(),
                                "loss": weights.sum().hex(),
                                "attempt": s.attempt,
                                "t": time.time(),
                            }
                        )
                        + "\n"
                    )
            time.sleep(pause)
    digest = hashlib.sha256(weights.tobytes() + momentum.tobytes()).hexdigest()
    (out / f"final-{s_rank()}.json").write_text(json.dumps({"digest": digest}))


def s_rank() -> int:
    return int(os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ.get("SLURM_PROCID") or 0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]) if len(sys.argv) > 4 else 0.0)
