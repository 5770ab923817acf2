"""Wrote format-1/ beside it, once: mpiexec -n 2 python make_format_1.py DIRECTORY

What was written then is never written again: a file of a version shows that this version stays readable. A new format
version gets a script and a directory of its own.
"""

import pathlib
import sys

import numpy as np
import torch

import hpcresume as hr

BITS = np.array([0x7FC00001, 0xFFC12345, 0x80000000, 0x7F800000], dtype=np.uint32)
"""Two NaNs with payloads, a negative zero, an infinity, as float32."""


def state(rank: int, size: int, step: int) -> dict:
    """What `rank` of `size` saved at `step`: every kind of leaf and scope that format 1 has."""
    weight = torch.arange(6, dtype=torch.float32).reshape(2, 3) + step
    grid = np.arange(24, dtype=np.int32).reshape(4, 6) * step
    wide = 6 // size
    return {
        "model": {
            "weight": weight,
            "tied": weight,
            "half": torch.arange(5, dtype=torch.bfloat16) / 3,
            "mask": torch.arange(4) % 2 == 0,
            "waves": torch.tensor([1 + 2j, -0.0 - 1j], dtype=torch.complex64),
            "scalar": torch.tensor(step, dtype=torch.int64),
            "empty": torch.empty(0, 3, dtype=torch.float64),
            "nan": BITS.view(np.float32).copy(),
        },
        "optimizer": {"state": {0: {"step": step, "lr": 0.1}}, "groups": [(0.9, 0.999), None]},
        "grid": hr.GlobalSlice(grid[:, rank * wide : (rank + 1) * wide].copy(), (4, 6), (0, rank * wide)),
        "rng": hr.RankLocal({"key": np.arange(3, dtype=np.uint64) + rank, "position": rank}),
        "odd": hr.RankLocal(np.full(rank + 1, rank, dtype=np.int16)),
        "plain": {"text": "naïve", "raw": b"\x00\xff", "inf": float("inf"), "large": 2**70, "yes": True},
    }


if __name__ == "__main__":
    from mpi4py import MPI

    from hpcresume.checkpoint.attempts import Holder, claim, record_start
    from hpcresume.checkpoint.run import open_run
    from hpcresume.checkpoint.save import save_generation
    from hpcresume.comm.mpi import MpiRanks

    ranks = MpiRanks(MPI.COMM_WORLD)
    run = open_run(pathlib.Path(sys.argv[1]), create=True, ranks=ranks)
    start = None
    for attempt in (1, 2):
        holder = Holder("7", attempt - 1, "n1", "boot", 100, "1")
        claim(run, holder=holder, ranks=ranks, alive=lambda _: False)
        if ranks.rank == 0:
            record_start(run, attempt, start, ())
        content = state(ranks.rank, ranks.size, attempt)
        saved = save_generation(run, content, step=attempt, attempt=attempt, parent=start, ranks=ranks)
        start = saved.name
