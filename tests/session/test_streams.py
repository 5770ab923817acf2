"""Every sample exactly once an epoch, in the documented order, whatever prefetches, resumes, or changes its size."""

from __future__ import annotations

import random
import signal
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hpcresume as hr
from hpcresume.errors import ConfigError, SampleCountError, UsageError
from hpcresume.policy.samples import SampleOrder, epoch_order
from hpcresume.session import rng
from hpcresume.session.fetching import FetchOptions
from hpcresume.session.streams import Batches
from tests.session.trainings import Noisy

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


class Range:
    """Items are their own indices."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        return index


def stream(n=23, batch_size=3, *, rank=0, world_size=1, seed=5, shuffle=True, dataset=None, **options):
    return Batches(
        "s",
        dataset or Range(n),
        SampleOrder(n, seed, shuffle=shuffle),
        batch_size=batch_size,
        rank=rank,
        world_size=world_size,
        gate=lambda what: None,
        options=FetchOptions(**{"collate_fn": list, **options}),
    )


def order(n, seed, count):
    found = []
    epoch = 0
    while len(found) < count:
        found += epoch_order(n, seed, epoch).tolist()
        epoch += 1
    return found[:count]


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 5), st.integers(1, 12), st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_all_ranks_together_run_through_the_order_without_gap_or_repeat(n, batch, world, steps, seed):
    parts = [stream(n, batch, rank=r, world_size=world, seed=seed) for r in range(world)]
    seen = [item for _ in range(steps) for part in parts for item in next(part)]
    assert seen == order(n, seed, steps * world * batch)
    assert {part.position for part in parts} == {steps * world * batch}


@given(
    st.integers(1, 40),
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(0, 6)), min_size=1, max_size=6),
)
@settings(max_examples=100, deadline=None)
def test_on_another_number_of_ranks_the_stream_goes_on_where_it_was(n, legs):
    """Each leg of the run has its own world size, batch size and number of steps."""
    seen, saved = [], None
    for world, batch, steps in legs:
        parts = [stream(n, batch, rank=r, world_size=world) for r in range(world)]
        for part in parts:
            if saved is not None:
                part.check(saved)
                part.restore(saved)
        seen += [item for _ in range(steps) for part in parts for item in next(part)]
        saved = parts[0].capture()
    assert seen == order(n, 5, len(seen))


def test_without_shuffling_the_order_is_the_data_sets_own():
    part = stream(5, 4, shuffle=False)
    assert [next(part) for _ in range(4)] == [[0, 1, 2, 3], [4, 0, 1, 2], [3, 4, 0, 1], [2, 3, 4, 0]]
    assert part.epoch == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_samples_and_augmentation_are_the_same_for_any_number_of_workers(workers):
    here = stream(50, 4, dataset=Noisy(), collate_fn=None)
    there = stream(50, 4, dataset=Noisy(), collate_fn=None, num_workers=workers)
    for _ in range(15):
        assert torch.equal(next(here), next(there))
    there.close()


@pytest.mark.parametrize("options", [{}, {"num_workers": 2}, {"num_workers": 1, "prefetch_factor": 5}])
def test_neither_making_nor_using_a_stream_draws_from_the_trainings_generators(options):
    def state():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = state()
    part = stream(50, 4, dataset=Noisy(), collate_fn=None, **options)
    for _ in range(5):
        next(part)
    part.close()
    assert state() == before


def test_what_workers_have_prefetched_does_not_count():
    part = stream(50, 2, num_workers=2, prefetch_factor=4)
    seen = [next(part) for _ in range(3)]
    time.sleep(0.2)
    saved = part.capture()
    part.close()
    assert saved["position"] == 6
    resumed = stream(50, 2)
    resumed.restore(saved)
    assert [item for batch in [*seen, next(resumed)] for item in batch] == order(50, 5, 8)


class Slow(Range):
    def __getitem__(self, index):
        time.sleep(0.02)
        return index


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_outlive_the_warnings_of_the_whole_step_and_end_when_the_parent_says_so(method):
    import psutil

    shielded = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP)
    part = stream(50, 2, dataset=Slow(50), num_workers=2, shielded=shielded, multiprocessing_context=method)
    before = set(psutil.Process().children())
    seen = next(part)
    workers = [child for child in psutil.Process().children() if child not in before]
    workers = [w for w in workers if "resource_tracker" not in " ".join(w.cmdline())]
    assert len(workers) == 2
    sender = "import os, sys\nfor pid in sys.argv[2:]: os.kill(int(pid), int(sys.argv[1]))"
    import subprocess
    import sys

    for number in shielded:  # from a process that is not their parent, as Slurm is none
        subprocess.run([sys.executable, "-c", sender, str(int(number)), *(str(w.pid) for w in workers)], check=True)
    for _ in range(10):
        seen += next(part)
    assert seen == order(50, 5, 22)
    assert all(worker.is_running() for worker in workers)
    workers[0].terminate()  # from the parent: multiprocessing's own way to end a worker
    workers[0].wait(10)
    part.close()
    workers[1].wait(10)


@pytest.mark.parametrize(
    ("change", "error"),
    [({"n": 24}, SampleCountError), ({"seed": 6}, ConfigError), ({"shuffle": False}, ConfigError)],
)
def test_a_position_in_another_order_is_refused(change, error):
    saved = stream().capture()
    with pytest.raises(error) as caught:
        stream(**change).check(saved)
    assert caught.value.hint


def test_the_position_is_restored_by_a_session_for_every_stream(run):
    def train(steps, stop):
        seen = {"a": [], "b": []}
        with hr.session(run, reaction=0) as s:
            first = s.batches(Range(7), 2, seed=1, collate_fn=list)
            second = s.batches(Range(5), 3, seed=2, collate_fn=list, name="validation")
            for step in s.steps(steps):
                seen["a"] += next(first) + next(first)  # gradient accumulation: two batches a step
                seen["b"] += next(second)
                if step == stop:
                    break
        return seen

    seen = {"a": [], "b": []}
    for stop in (2, 3, 8):
        with pytest.raises(hr.Stopped):
            found = train(12, stop)
            seen = {key: seen[key] + found[key] for key in seen}
    assert hr.load(run).state["streams"]["batches"]["position"] == 9 * 4
    found = train(12, None)
    assert found["a"] == order(7, 1, 48)[36:]
    assert found["b"] == order(5, 2, 36)[27:]


def test_a_data_set_that_changed_its_length_is_refused_on_resume(run):
    def train(n):
        with hr.session(run) as s:
            batches = s.batches(Range(n), 2, collate_fn=list)
            for _ in s.steps(5):
                next(batches)
                break

    with pytest.raises(hr.Stopped):
        train(7)
    with pytest.raises(SampleCountError) as caught:
        train(8)
    assert "7 samples" in caught.value.what


def test_a_batch_outside_the_loop_is_refused(run):
    with hr.session(run) as s:
        batches = s.batches(Range(5), 2, collate_fn=list)
        with pytest.raises(UsageError):
            next(batches)
        for _ in s.steps(2):
            next(batches)
        with pytest.raises(UsageError):
            next(batches)


class NoLength:
    def __getitem__(self, index):
        return index


class Unending(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield 1


@pytest.mark.parametrize(
    ("dataset", "options"),
    [
        (NoLength(), {}), (Unending(), {}), (iter([1]), {}), (Range(0), {}), ({1, 2}, {}), (5, {}),
        (Range(5), {"batch_size": 0}), (Range(5), {"batch_size": 1.5}), (Range(5), {"seed": -1}),
        (Range(5), {"seed": 2**64}), (Range(5), {"num_workers": -1}), (Range(5), {"drop_last": True}),
        (Range(5), {"sampler": None}), (Range(5), {"nonsense": 1}),
    ],
)  # fmt: skip
def test_what_cannot_be_a_resumable_stream_is_refused_with_advice(run, dataset, options):
    with hr.session(run) as s:
        with pytest.raises(ConfigError) as caught:
            s.batches(dataset, **{"batch_size": 2, **options})
        assert caught.value.where == "batches"
        for _ in s.steps(1):
            pass


def test_two_streams_of_one_name_are_refused(run):
    with hr.session(run) as s:
        s.batches(Range(5), 2, name="x", collate_fn=list)
        with pytest.raises(UsageError):
            s.batches(Range(5), 2, name="x", collate_fn=list)
        for _ in s.steps(1):
            pass


def test_torch_is_not_needed_without_workers_and_with_a_collate_function():
    import subprocess
    import sys

    from tests.support.mpi import child_environment

    code = """
import sys
from hpcresume.policy.samples import SampleOrder
from hpcresume.session.fetching import FetchOptions, fetch_batches
pairs = [list(SampleOrder(10, 3, shuffle=False).items(4, 2))]
assert list(fetch_batches(range(10), 3, pairs, FetchOptions(collate_fn=list))) == [[4, 5]]
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], env=child_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_seeding_of_a_sample_is_the_documented_one():
    part = stream(50, 1, dataset=Noisy(), collate_fn=list)
    (item,) = next(part)
    from hpcresume.policy.samples import sample_seed

    with rng.kept():
        rng.seed_on_host(sample_seed(5, 0))
        assert torch.equal(Noisy()[int(item[0])], item)
