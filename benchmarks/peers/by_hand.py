"""By hand: a signal handler that sets a flag, torch.save in place, a batch script that traps and requeues.

The save is that of PyTorch's own example (`torch.save(state, filename)`), with random generators and the position
in the data added; the batch script in contenders.py is the usual trap, `srun … &`, `wait`, `scontrol requeue`.
"""

from __future__ import annotations

import signal
import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from benchmarks.peers import training

COME_BACK = 85
CHECKPOINT = training.OUT / "checkpoint.pt"


def main() -> int:
    """Train; leave with COME_BACK after a warning."""
    training.note_beginning()
    warned = torch.zeros(1)
    signal.signal(signal.SIGUSR1, lambda *_: warned.fill_(1))
    rank = training.join_ranks()
    net = training.make_net()
    model = DistributedDataParallel(net)
    optimizer = training.make_optimizer(net)
    batches = training.Batches(rank)
    start = 0
    if CHECKPOINT.exists():
        state = torch.load(CHECKPOINT, weights_only=False)
        net.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        batches.load_state_dict(state["batches"])
        training.restore_random_state(state["random"])
        start = state["step"]
    stream = training.endless(batches)
    for step in range(start, training.STEPS):
        ids = next(stream)
        loss = training.loss_of(model, ids)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        training.note_step(step, ids, loss)
        if (step + 1) % training.EVALUATE_EVERY == 0:
            training.evaluate(net)
        stop = warned.clone()
        dist.all_reduce(stop)  # the ranks stop at the same step, or one of them waits for ever
        if stop or (step + 1) % training.EVERY == 0:
            if rank == 0:
                state = {
                    "step": step + 1,
                    "model": net.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "batches": batches.state_dict(),
                    "random": training.random_state(),
                    **training.collected(),
                }
                torch.save(state, CHECKPOINT)
            dist.barrier()
        if stop:
            return COME_BACK
    training.finish(net, optimizer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
