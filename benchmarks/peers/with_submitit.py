"""submitit's own checkpointing, as its page shows it: a callable whose `checkpoint` saves and hands itself on.

submitit calls `checkpoint` in its signal handler, on the first task alone. What a lost node needs is a save now and
then, which the callable looks for when it begins.
"""

from __future__ import annotations

import os

import torch
from submitit.helpers import DelayedSubmission
from torch.nn.parallel import DistributedDataParallel

from benchmarks.peers import training


class Trainer:
    """The training as submitit wants it."""

    def __call__(self, checkpoint: str) -> str:
        training.note_beginning()
        self.rank = training.join_ranks()
        self.net = training.make_net()
        model = DistributedDataParallel(self.net)
        self.optimizer = training.make_optimizer(self.net)
        self.batches = training.Batches(self.rank)
        self.step = 0
        if os.path.exists(checkpoint):
            self.restore(checkpoint)
        stream = training.endless(self.batches)
        while self.step < training.STEPS:
            ids = next(stream)
            loss = training.loss_of(model, ids)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            training.note_step(self.step, ids, loss)
            self.step += 1
            if self.step % training.EVALUATE_EVERY == 0:
                training.evaluate(self.net)
            if self.step % training.EVERY == 0 and self.rank == 0:
                self.save(checkpoint)
        training.finish(self.net, self.optimizer)
        return "done"

    def checkpoint(self, checkpoint: str) -> DelayedSubmission:
        if hasattr(self, "step"):
            self.save(checkpoint)
        return DelayedSubmission(Trainer(), checkpoint)

    def save(self, checkpoint: str) -> None:
        state = {
            "step": self.step,
            "model": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "batches": self.batches.state_dict(),
            "random": training.random_state(),
            **training.collected(),
        }
        torch.save(state, checkpoint)

    def restore(self, checkpoint: str) -> None:
        state = torch.load(checkpoint, weights_only=False)
        self.net.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.batches.load_state_dict(state["batches"])
        training.restore_random_state(state["random"])
        self.step = state["step"]
