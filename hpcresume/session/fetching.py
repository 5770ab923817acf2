"""Getting samples out of a data set: here or in DataLoader workers, with the same randomness either way.

The one module of the session that uses torch's DataLoader, and only if it is needed. Knows no position.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any

from hpcresume.policy.samples import sample_seed
from hpcresume.session import rng
from hpcresume.session.signals import blocked_for_children

__all__ = ["FetchOptions", "fetch_batches"]

Numbered = Sequence[tuple[int, int]]
"""The samples of a batch: (number in the stream, index into the data set)."""


@dataclass(frozen=True)
class FetchOptions:
    """What is passed on to torch's DataLoader, with its meanings; `shielded` are signals workers outlive."""

    num_workers: int = 0
    collate_fn: Callable[[list[Any]], Any] | None = None
    pin_memory: bool = False
    prefetch_factor: int | None = None
    timeout: float = 0
    worker_init_fn: Callable[[int], None] | None = None
    multiprocessing_context: Any = None
    shielded: tuple[signal.Signals, ...] = ()


def fetch_batches(dataset: Any, seed: int, batches: Iterable[Numbered], options: FetchOptions) -> Iterator[Any]:
    """Collated batches, in order. Python's, numpy's and torch's generators are left as they were.

    Each sample is fetched with the three generators seeded by `sample_seed(seed, k)`, so that augmentation
    depends on which sample it is and not on who fetches it or what was fetched before.
    """
    seeded = _Seeded(dataset, seed)
    if options.num_workers == 0 and not options.pin_memory:
        return _fetch_here(seeded, batches, options.collate_fn)
    return _fetch_with_loader(seeded, batches, options)


class _Seeded:
    """A map-style data set whose keys are (number in the stream, index)."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        number, index = key
        rng.seed_on_host(sample_seed(self.seed, number))
        return self.dataset[index]


def _fetch_here(
    seeded: _Seeded, batches: Iterable[Numbered], collate: Callable[[list[Any]], Any] | None
) -> Iterator[Any]:
    join = _default_collate() if collate is None else collate
    for batch in batches:
        with rng.kept():
            collated = join([seeded[key] for key in batch])
        yield collated


def _default_collate() -> Callable[[list[Any]], Any]:
    from torch.utils.data import default_collate

    return default_collate


def _fetch_with_loader(seeded: _Seeded, batches: Iterable[Numbered], options: FetchOptions) -> Iterator[Any]:
    import torch
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(
        seeded,  # type: ignore[arg-type]  # a map-style data set needs no base class
        batch_sampler=batches,  # type: ignore[arg-type]  # keys are pairs here
        num_workers=options.num_workers,
        collate_fn=options.collate_fn,
        pin_memory=options.pin_memory,
        prefetch_factor=options.prefetch_factor,
        timeout=options.timeout,
        worker_init_fn=functools.partial(_begin_worker, options.shielded, options.worker_init_fn),
        multiprocessing_context=options.multiprocessing_context,
        # Its own, since a new iterator draws a number: from the global one, a resumed run would diverge.
        generator=torch.Generator(),
    )
    # Starting it unblocks TERM in this thread, which would undo what follows for the first spawned worker.
    resource_tracker.ensure_running()
    # Here and not in worker_init_fn only: a worker must be deaf to warnings from its first instruction on.
    with rng.kept(), blocked_for_children(options.shielded):
        return iter(loader)


def _begin_worker(shielded: tuple[signal.Signals, ...], user_init: Callable[[int], None] | None, worker: int) -> None:
    """Runs in each worker: outlive the warning that goes to every process of a step."""
    signal.pthread_sigmask(signal.SIG_BLOCK, shielded)
    if signal.SIGTERM in shielded:
        threading.Thread(target=_obey_parent, name="hpcresume shield", daemon=True).start()
    if user_init is not None:
        user_init(worker)


def _obey_parent() -> None:
    """A TERM from the parent ends the worker (multiprocessing terminates so); one from Slurm does not."""
    while True:
        if signal.sigwaitinfo({signal.SIGTERM}).si_pid == os.getppid():
            os._exit(0)
