"""hpcresume: `hr.session`, started by `hpcresume launch`, or by submitit through `hr.Resumable` (submit_session.py)."""

from __future__ import annotations

import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import hpcresume as hr
from benchmarks.peers import training


class Collected:
    """What belongs into every checkpoint beside model and optimizer."""

    def state_dict(self) -> dict[str, object]:
        return training.collected()

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Nothing to do with it."""


def train(run: str) -> str:
    """Train; the session restores, saves and leaves."""
    training.note_beginning()
    training.join_ranks()
    net = training.make_net()
    model = DistributedDataParallel(net)
    optimizer = training.make_optimizer(net)
    with hr.session(run, every=f"{training.EVERY} steps") as s:
        s.track(model=net, optimizer=optimizer, collected=Collected())
        batches = s.batches(training.Samples(), training.BATCH, seed=1, collate_fn=list)
        for step in s.steps(training.STEPS):
            ids = next(batches)
            loss = training.loss_of(model, ids)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            training.note_step(step, ids, loss)
            if (step + 1) % training.EVALUATE_EVERY == 0:
                training.evaluate(net, hurry=s.poll)
    training.finish(net, optimizer)
    dist.destroy_process_group()
    return "done"


if __name__ == "__main__":
    train(str(training.OUT / "run"))
