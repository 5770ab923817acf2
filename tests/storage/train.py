"""A training for these tests: numpy and MPI, 8 MiB of state, and it can wait in the midst of the filesystem's work.

python train.py RUN STEPS OUT [--every …] [--pause …] …; OUT lies on another disk than RUN. When the file OUT/hold
names a call (JSON: call, name, rank), the first such call of that rank, on a file of that name, does not begin before
OUT/go exists; OUT/held tells that it waits.
"""

import argparse
import contextlib
import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np

import hpcresume as hr
from hpcresume.comm.mpi import MpiRanks
from hpcresume.io.files import Files, substituted

SIZE = 1 << 19


class Waiting(Files):
    """The real filesystem, but for one call that waits."""

    def __init__(self, out: Path, rank: int) -> None:
        self._out, self._rank = out, rank

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        self._perhaps_wait("open", str(path))
        return super().open(path, flags, mode)

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        self._perhaps_wait("pwrite", fd)
        return super().pwrite(fd, data, offset)

    def fsync(self, fd: int) -> None:
        self._perhaps_wait("fsync", fd)
        super().fsync(fd)

    def rename(self, source: Path, target: Path) -> None:
        self._perhaps_wait("rename", str(target))
        super().rename(source, target)

    def pread_into(self, fd: int, buffer: memoryview, offset: int) -> int:
        self._perhaps_wait("pread", fd)
        return super().pread_into(fd, buffer, offset)

    def _perhaps_wait(self, call: str, where: "int | str") -> None:
        hold = self._out / "hold"
        if not hold.exists():
            return
        wish = json.loads(hold.read_text())
        if call != wish["call"] or self._rank != wish["rank"]:
            return
        path = os.readlink(f"/proc/self/fd/{where}") if isinstance(where, int) else where
        if not Path(path).match(wish["name"]):
            return
        (self._out / "held.new").write_text(path)
        hold.unlink()
        (self._out / "held.new").rename(self._out / "held")
        end = time.monotonic() + 60
        while not (self._out / "go").exists() and time.monotonic() < end:
            time.sleep(0.01)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, kind in (("run", str), ("steps", int), ("out", Path)):
        parser.add_argument(name, type=kind)
    parser.add_argument("--every", default="1000000 steps")
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--write-path", default="posix")
    parser.add_argument("--watchdog", default="60s")
    parser.add_argument("--keep", type=int, default=3)
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--save-failures", type=int, default=5)
    given = parser.parse_args()
    ranks = MpiRanks()
    with contextlib.ExitStack() as stack:
        if ranks.rank < 100:
            stack.enter_context(substituted(Waiting(given.out, ranks.rank)))
        train(given, ranks)


def train(given: argparse.Namespace, ranks: MpiRanks) -> None:
    weights, momentum = np.zeros(given.size), np.zeros(given.size)
    np.random.seed(100 + ranks.rank)
    with hr.session(
        given.run, every=given.every, comm=ranks, reaction=0, write_path=given.write_path, watchdog=given.watchdog,
        keep=given.keep, save_failures=given.save_failures,
    ) as s:  # fmt: skip
        s.track(weights=weights, momentum=momentum)
        for step in s.steps(given.steps):
            gradient = np.random.standard_normal(1000)
            shared = sum(np.frombuffer(text) for text in ranks.allgather(gradient.tobytes()))
            momentum *= 0.9
            momentum += np.resize(shared, given.size)
            weights -= 0.01 * momentum
            if ranks.rank == 0:
                with (given.out / "steps.jsonl").open("a") as lines:
                    lines.write(json.dumps({"step": step, "loss": float(weights.sum()).hex()}) + "\n")
            time.sleep(given.pause)
    digest = hashlib.sha256(weights.tobytes() + momentum.tobytes()).hexdigest()
    (given.out / f"final-{ranks.rank}.json").write_text(json.dumps({"digest": digest}))


if __name__ == "__main__":
    main()
