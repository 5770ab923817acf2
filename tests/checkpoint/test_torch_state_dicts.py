"""Every optimizer and schedule of torch: what its state_dict holds can be saved, and comes back the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as schedules

import hpcresume as hr
from tests.checkpoint.states import same

OPTIMIZERS = [
    "SGD", "Adam", "AdamW", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "ASGD", "LBFGS",
    "Adafactor",
]  # fmt: skip

SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "LambdaLR": lambda o: schedules.LambdaLR(o, lambda epoch: 0.9**epoch),
    "MultiplicativeLR": lambda o: schedules.MultiplicativeLR(o, lambda epoch: 0.9),
    "StepLR": lambda o: schedules.StepLR(o, 2),
    "MultiStepLR": lambda o: schedules.MultiStepLR(o, [2, 4]),
    "ConstantLR": schedules.ConstantLR,
    "LinearLR": schedules.LinearLR,
    "ExponentialLR": lambda o: schedules.ExponentialLR(o, 0.9),
    "CosineAnnealingLR": lambda o: schedules.CosineAnnealingLR(o, 10),
    "PolynomialLR": schedules.PolynomialLR,
    "ReduceLROnPlateau": schedules.ReduceLROnPlateau,
    "CyclicLR": lambda o: schedules.CyclicLR(o, 0.1, 0.2),
    "OneCycleLR": lambda o: schedules.OneCycleLR(o, 0.1, 10),
    "CosineAnnealingWarmRestarts": lambda o: schedules.CosineAnnealingWarmRestarts(o, 5),
    "SequentialLR": lambda o: schedules.SequentialLR(
        o, [schedules.ConstantLR(o), schedules.ExponentialLR(o, 0.9)], [2]
    ),
    "ChainedScheduler": lambda o: schedules.ChainedScheduler(
        [schedules.ConstantLR(o), schedules.ExponentialLR(o, 0.9)]
    ),
}


def trained(make: Callable[[Any], torch.optim.Optimizer]) -> torch.optim.Optimizer:
    """An optimizer with one step behind it."""
    layer = torch.nn.Linear(3, 3, bias=False)
    optimizer = make(layer.parameters())

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = layer(torch.ones(1, 3)).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return optimizer


def assert_round_trip(state: Any, run: Path) -> None:
    hr.save(run, state, step=1)
    assert same(state, hr.load(run).state)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_of_every_optimizer_comes_back(name: str, tmp_path: Path) -> None:
    assert_round_trip(trained(lambda p: getattr(torch.optim, name)(p, lr=0.1)).state_dict(), tmp_path / "run")


@pytest.mark.filterwarnings("ignore::UserWarning:torch.optim.lr_scheduler")
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_state_of_every_schedule_comes_back(name: str, tmp_path: Path) -> None:
    optimizer = trained(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))
    assert_round_trip(SCHEDULES[name](optimizer).state_dict(), tmp_path / "run")
