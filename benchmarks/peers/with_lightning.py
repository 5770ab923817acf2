"""Lightning's auto-requeue, as its page on Slurm shows it: `--signal=SIGUSR1@…`, `srun`, SLURMEnvironment.

Lightning saves model, optimizer, loops and the loader's position. Random generators it does not save: the two hooks add
them. `ckpt_path="last"` is for an end without a warning; Lightning's own "hpc" checkpoint goes first where there is
one.
"""

from __future__ import annotations

import signal
from typing import Any

import lightning as L  # noqa: N812
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import SLURMEnvironment

from benchmarks.peers import training


class Module(L.LightningModule):
    """The training as Lightning wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = training.make_net()

    def training_step(self, ids: list[int]) -> torch.Tensor:
        self.ids, self.loss = ids, training.loss_of(self.net, ids)
        return self.loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        step = self.global_step
        super().optimizer_step(*args, **kwargs)
        training.note_step(step, self.ids, self.loss)  # here, as in the other programs: before the callbacks save

    def validation_step(self, _: list[int]) -> None:
        training.evaluate(self.net)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return training.make_optimizer(self.net)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint.update(training.collected(), random=training.random_state())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.random = checkpoint["random"]

    def on_train_start(self) -> None:
        if hasattr(self, "random"):
            training.restore_random_state(self.random)


class Evaluation:
    """One batch; what it takes `training.evaluate` decides."""

    def __len__(self) -> int:
        return 1

    def __iter__(self):
        yield []


def main() -> None:
    """Train; Lightning's handler saves and requeues."""
    training.note_beginning()
    module = Module()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        num_nodes=2,
        strategy="ddp",
        max_steps=training.STEPS,
        max_epochs=-1,
        check_val_every_n_epoch=None,
        val_check_interval=training.EVALUATE_EVERY,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # Batches deals the samples out itself
        plugins=[SLURMEnvironment(auto_requeue=True, requeue_signal=signal.SIGUSR1)],
        callbacks=[
            ModelCheckpoint(
                training.OUT / "checkpoints", every_n_train_steps=training.EVERY, save_top_k=1, save_last=True
            )
        ],
        default_root_dir=training.OUT,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    warned_before = any(training.OUT.glob("hpc_ckpt_*.ckpt"))
    batches = training.Batches(trainer.global_rank)
    # Its checkpoints hold python's own generator too, which torch.load's weights_only would refuse.
    trainer.fit(module, batches, Evaluation(), ckpt_path="hpc" if warned_before else "last", weights_only=False)
    if trainer.global_step >= training.STEPS:
        training.finish(module.net, trainer.optimizers[0])


if __name__ == "__main__":
    main()
