"""Every kind of tracked object comes back in place, bit for bit."""

from __future__ import annotations

import random
from collections import OrderedDict

import numpy as np
import pytest
import torch

import hpcresume as hr
from hpcresume.errors import UsageError


def stop_after(run, steps, during, **objects):
    with pytest.raises(hr.Stopped), hr.session(run) as s:
        s.track(**objects)
        for step in s.steps(100):
            during(s)
            if step == steps - 1:
                break


def resume(run, look=lambda s: None, **objects):
    with hr.session(run) as s:
        s.track(**objects)
        for _ in s.steps(100):
            look(s)
            s.finish()


def test_tensors_and_arrays_are_restored_in_place(run):
    tensor, array, zero = torch.arange(6.0).reshape(2, 3), np.arange(4), torch.tensor(5)
    stop_after(run, 1, lambda s: None, tensor=tensor, array=array, zero=zero, strided=tensor.t())
    fresh = torch.zeros(2, 3), np.zeros(4, dtype=int), torch.tensor(0), torch.zeros(3, 2)
    same = fresh[0].data_ptr()
    resume(run, tensor=fresh[0], array=fresh[1], zero=fresh[2], strided=fresh[3])
    assert fresh[0].data_ptr() == same
    assert torch.equal(fresh[0], tensor)
    assert fresh[1].tolist() == [0, 1, 2, 3]
    assert fresh[2].item() == 5
    assert torch.equal(fresh[3], tensor.t())


def test_containers_are_filled_in_place_and_so_are_the_tensors_in_them(run):
    inner = torch.ones(2)
    stop_after(run, 1, lambda s: None, config={"a": [1, (2.5, None)], "t": inner, 3: b"x"}, queue=[1, 2, 3])
    config, queue, tensor = {"t": torch.zeros(2), "old": 1}, [9], None
    tensor = config["t"]
    resume(run, config=config, queue=queue)
    assert config == {"a": [1, (2.5, None)], "t": tensor, 3: b"x"}
    assert config["t"] is tensor
    assert tensor.tolist() == [1, 1]
    assert queue == [1, 2, 3]


def test_a_list_of_tensors_that_has_grown_comes_back_longer(run):
    history = []
    stop_after(run, 3, lambda s: history.append(torch.tensor([float(s.step)])), history=history)
    fresh = []
    resume(run, history=fresh)
    assert [t.item() for t in fresh] == [0, 1, 2]


def test_plain_values_are_read_and_written_by_name(run):
    def during(s):
        s["best"] = s["best"] / 2
        s["note"] = f"step {s.step}"
        s["nan"] = float("nan")

    stop_after(run, 3, during, best=8.0, flag=True, pair=(1, "two"))
    seen = {}
    resume(run, lambda s: seen.update({n: s[n] for n in ("best", "note", "flag", "pair", "nan")}), best=0.0)
    assert seen.pop("nan") != 0
    assert seen == {"best": 1.0, "note": "step 2", "flag": True, "pair": (1, "two")}


def test_a_value_is_not_readable_before_it_is_restored(run):
    with hr.session(run) as s:
        s["best"] = 1
        with pytest.raises(UsageError, match="restored"):
            s["best"]
        for _ in s.steps(1):
            assert s["best"] == 1


def test_a_new_value_keeps_what_it_was_given(run):
    stop_after(run, 1, lambda s: None, old=1)
    seen = []
    resume(run, lambda s: seen.append((s["old"], s["new"])), old=0, new=7)
    assert seen == [(1, 7)]


def test_what_belongs_to_one_rank_comes_back_to_it(run):
    stop_after(run, 1, lambda s: None, mine=hr.RankLocal(np.arange(3)), count=hr.RankLocal(5), box=hr.RankLocal([1, 2]))
    array, box, seen = np.zeros(3, dtype=int), [], []
    resume(
        run, lambda s: seen.append(s["count"]), mine=hr.RankLocal(array), count=hr.RankLocal(0), box=hr.RankLocal(box)
    )
    assert (array.tolist(), seen, box) == ([0, 1, 2], [5], [1, 2])


def test_a_slice_of_a_global_array_comes_back_in_place(run):
    block = torch.arange(6.0).reshape(2, 3)
    stop_after(run, 1, lambda s: None, block=hr.GlobalSlice(block, (2, 3), (0, 0)))
    fresh = torch.zeros(2, 3)
    resume(run, block=hr.GlobalSlice(fresh, (2, 3), (0, 0)))
    assert torch.equal(fresh, block)


def test_anything_with_a_state_dict_is_tracked(run):
    class Counter:
        def __init__(self):
            self.state = OrderedDict(count=0)

        def state_dict(self):
            return OrderedDict(self.state)

        def load_state_dict(self, state):
            self.state = state

    counter = Counter()

    def during(s):
        counter.state["count"] += 1

    stop_after(run, 4, during, counter=counter)
    fresh = Counter()
    resume(run, counter=fresh)
    assert fresh.state == OrderedDict(count=4)


@pytest.mark.parametrize(
    "make",
    [
        lambda o: torch.optim.lr_scheduler.StepLR(o, 3),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 / (step + 1)),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=100),
        lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o),
    ],
    ids=["StepLR", "LambdaLR", "OneCycleLR", "ReduceLROnPlateau"],
)
def test_torchs_schedulers_come_back(run, make):
    def parts():
        weight = torch.nn.Parameter(torch.ones(2))
        optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
        return weight, optimizer, make(optimizer)

    weight, optimizer, scheduler = parts()

    def during(s):
        weight.grad = torch.ones(2)
        optimizer.step()
        scheduler.step(*([1.0] if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) else []))

    stop_after(run, 5, during, weight=weight, optimizer=optimizer, scheduler=scheduler)
    again = parts()
    resume(run, weight=again[0], optimizer=again[1], scheduler=again[2])
    assert torch.equal(weight, again[0])
    assert repr(again[1].state_dict()) == repr(optimizer.state_dict())
    assert again[2].get_last_lr() == scheduler.get_last_lr()


def test_tied_weights_stay_tied(run):
    def model():
        first, second = torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False)
        second.weight = first.weight
        return torch.nn.Sequential(first, second)

    saved = model()
    stop_after(run, 1, lambda s: None, model=saved)
    fresh = model()
    resume(run, model=fresh)
    assert fresh[0].weight is fresh[1].weight
    assert torch.equal(fresh[0].weight, saved[0].weight)


def test_the_generators_are_tracked_without_asking_and_restored_last_of_all(run):
    class Draws:
        """Draws numbers while it is restored, as a badly written object does."""

        def state_dict(self):
            random.random()
            return {"x": 1}

        def load_state_dict(self, state):
            torch.rand(10)
            np.random.random(10)

    def numbers():
        return random.random(), np.random.normal(), torch.rand(()).item(), random.gauss(0, 1)

    drawn = []
    with pytest.raises(hr.Stopped), hr.session(run) as s:
        s.track(draws=Draws())
        for step in s.steps(100):
            drawn.append(numbers())
            if step == 2:
                break
    state = (np.random.get_state(), torch.get_rng_state())
    expected = np.random.normal(), torch.rand(()).item()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    got = []
    resume(run, lambda s: got.append((np.random.normal(), torch.rand(()).item())), draws=Draws())
    assert got == [expected]
    assert state is not None
