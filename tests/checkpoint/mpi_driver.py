"""One rank of a job under mpiexec: does what the first argument says and writes what came of it to OUT/RANK.json.

mpi_driver.py SCENARIO OUT [ARGUMENT…]
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from hpcresume.checkpoint import commit as committing
from hpcresume.checkpoint import mpiio, probe, readback, writers
from hpcresume.checkpoint.restore import load_newest
from hpcresume.checkpoint.run import open_run
from hpcresume.checkpoint.save import SaveOptions, save_generation
from hpcresume.comm.mpi import MpiRanks
from hpcresume.errors import HpcresumeError
from hpcresume.io.files import Files, substituted
from hpcresume.model import Event, GlobalSlice, RankLocal
from tests.checkpoint.slices import my_slice


def wholes(step: int) -> dict[str, Any]:
    """Global arrays: the r… are replicated, the s… cut along an axis."""
    generator = np.random.default_rng(step)
    shapes = [(50, 7), (4,), (0, 3), (3, 4, 5), (300_000,), (2, 1)]
    found = {f"r{i}": generator.standard_normal(shape) for i, shape in enumerate(shapes)}
    return found | {f"s{i}": generator.integers(0, 99, shape, dtype=np.int16) for i, shape in enumerate(shapes)}


def state_of(step: int, rank: int, size: int, seed: int = 3) -> dict[str, Any]:
    """What one rank saves: replicated arrays, its blocks, its own values."""
    state: dict[str, Any] = {"step": step}
    for i, (name, whole) in enumerate(wholes(step).items()):
        state[name] = my_slice(whole, i % whole.ndim, rank, size, seed) if name[0] == "s" else whole
    return {**state, "rng": RankLocal(np.full(5, rank)), "ragged": RankLocal(np.arange(rank * 1000))}


def save(ranks: MpiRanks, run: str, step: int, write_path: str, events: list[Event] | None = None) -> Any:
    emit = (lambda event: None) if events is None else events.append
    paths = open_run(run, create=True, ranks=ranks)
    return save_generation(
        paths, state_of(step, ranks.rank, ranks.size), step=step, attempt=1, parent=None, ranks=ranks,
        options=SaveOptions(write_path=write_path), emit=emit,
    )  # fmt: skip


def save_each(ranks: MpiRanks, *runs_and_paths: str) -> Any:
    """Save step 1 into each RUN=WRITE_PATH."""
    found = {}
    for text in runs_and_paths:
        run, _, write_path = text.partition("=")
        events: list[Event] = []
        generation = save(ranks, run, 1, write_path, events)
        found[run] = [generation.write_path, [dict(e.fields) for e in events if e.name == "write-path"]]
    return found


def restore_each(ranks: MpiRanks, *runs: str) -> Any:
    """Load each run (saved on any number of ranks), whole and cut anew; how many arrays were equal to the last bit."""
    equal = 0
    for run in runs:
        paths = open_run(run, create=False, ranks=ranks)
        mine = {
            name: value
            for name, value in state_of(1, ranks.rank, ranks.size, seed=8).items()
            if isinstance(value, GlobalSlice)
        }
        whole, cut = load_newest(paths, ranks).state, load_newest(paths, ranks, slices=mine).state
        equal += sum(whole[name].tobytes() == array.tobytes() for name, array in wholes(1).items())
        equal += sum(cut[name].tobytes() == value.array.tobytes() for name, value in mine.items())
    return equal


def killed_while_saving(ranks: MpiRanks, run: str, write_path: str, where: str, victim: str) -> Any:
    """Save step 1, then die in the middle of saving step 2."""
    save(ranks, run, 1, write_path)
    if ranks.rank == int(victim):
        die_in(where)
    return save(ranks, run, 2, write_path).name


def die_in(where: str) -> None:
    """Make this process kill itself when it comes to a place of the protocol."""

    def die(*args: object, **more: object) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    places: dict[str, tuple[Any, str]] = {
        "write": (writers, "pwrite_all") if "posix" in sys.argv else (mpiio._Part, "_filled"),
        "read-back": (readback, "compare"),
        "rename": (committing, "check_fence"),
        "after-rename": (committing.attempts, "mark_committed"),
    }
    module, name = places[where]
    setattr(module, name, die)


def corrupt(ranks: MpiRanks) -> None:
    """From now on rank 1's MPI-IO writes one wrong byte, after its digest was taken."""
    filled = mpiio._Part._filled

    def wrong(self: Any, current: Any) -> Any:
        buffer = filled(self, current)
        if ranks.rank == 1:
            buffer[0] ^= 1
        return buffer

    mpiio._Part._filled = wrong  # type: ignore[method-assign]


def broken_from_the_start(ranks: MpiRanks, run: str) -> Any:
    corrupt(ranks)
    events: list[Event] = []
    generation = save(ranks, run, 1, "auto", events)
    return [generation.write_path, [dict(e.fields) for e in events if e.name == "write-path"]]


def broken_after_the_probe(ranks: MpiRanks, run: str) -> Any:
    assert save(ranks, run, 1, "auto").write_path == "mpiio"
    corrupt(ranks)
    return save(ranks, run, 2, "auto").name


def no_space_on_one_rank(ranks: MpiRanks, run: str) -> Any:
    save(ranks, run, 1, "auto")
    filled = mpiio._Part._filled

    def full(self: Any, current: Any) -> Any:
        raise OSError(28, "No space left on device")

    mpiio._Part._filled = full if ranks.rank == 1 else filled  # type: ignore[method-assign]
    return save(ranks, run, 2, "auto").name


class Syncs(Files):
    """Notes each fsync of the data file and each rename, when it was and since when its descriptor was open."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, float, float]] = []
        self.opened: dict[int, float] = {}

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        fd = super().open(path, flags, mode)
        self.opened[fd] = time.monotonic()
        return fd

    def fsync(self, fd: int) -> None:
        super().fsync(fd)
        if os.readlink(f"/proc/self/fd/{fd}").endswith("/state.h5"):
            self.notes.append(("fsync", time.monotonic(), self.opened[fd]))

    def rename(self, source: Path, target: Path) -> None:
        self.notes.append((f"rename {target.name}", time.monotonic(), 0.0))
        super().rename(source, target)


def synced(ranks: MpiRanks, run: str, write_path: str) -> Any:
    """Save step 1 and tell when this rank wrote its tensors, synced them, and renamed; one clock for all ranks."""
    syncs, wrote = Syncs(), list[tuple[float, float]]()
    module, name = (mpiio, "_write_rounds") if write_path == "mpiio" else (writers, "pwrite_all")
    original = getattr(module, name)

    def timed(*args: Any) -> Any:
        began = time.monotonic()
        try:
            return original(*args)
        finally:
            wrote.append((began, time.monotonic()))

    setattr(module, name, timed)
    with substituted(syncs):
        save(ranks, run, 1, write_path)
    wrote = wrote[-1:] if write_path == "mpiio" else wrote  # the probe writes by the same call
    return {"wrote": [wrote[0][0], wrote[-1][1]], "notes": syncs.notes}


def main() -> None:
    scenario, out, *rest = sys.argv[1:]
    ranks = MpiRanks()
    try:
        answer = {"result": globals()[scenario](ranks, *rest)}
    except HpcresumeError as error:
        answer = {"error": type(error).__name__, "text": str(error)}
    answer["probed"] = list(probe._probed.values())
    Path(out, f"{ranks.rank}.json").write_text(json.dumps(answer))
    ranks.barrier()


if __name__ == "__main__":
    main()
