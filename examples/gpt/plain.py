"""The same training as train.py as a plain loop: no checkpoint, no resume, hpcresume never imported.

Its samples come from the formula in hpcresume's documentation, written out here once more.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
from common import Batch, Trace, build, dataset, parser, save_final, train_step
from data import ByteWindows
from mpi4py import MPI
from torch.utils.data import default_collate


def shuffled_batches(windows: ByteWindows, batch_size: int, seed: int) -> Iterator[Batch]:
    """This rank's share of an endless stream of samples that is shuffled anew in every epoch."""
    rank, size = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size
    pending, epoch = np.empty(0, np.int64), 0
    while True:
        while len(pending) < size * batch_size:
            keys = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(len(windows))
            pending = np.concatenate([pending, np.argsort(keys, kind="stable")])
            epoch += 1
        own = pending[rank * batch_size : (rank + 1) * batch_size]
        yield tuple(default_collate([windows[int(i)] for i in own]))
        pending = pending[size * batch_size :]


def main() -> None:
    """Train without interruption."""
    args = parser(__doc__).parse_args()
    model, optimizer, scheduler = build(args.steps, args.seed)
    trace = Trace(args.out)

    batches = shuffled_batches(dataset(args.text_bytes), args.batch_size, args.seed)
    for step in range(args.steps):
        outcome = train_step(model, optimizer, scheduler, batches)
        trace.step(step, outcome)
    save_final(args.out, model, optimizer, scheduler)


if __name__ == "__main__":
    main()
    used = sorted(name for name in sys.modules if name.partition(".")[0] == "hpcresume")
    if used:
        raise SystemExit(f"plain.py must not use hpcresume, and loaded {used}")
