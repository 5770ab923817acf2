"""Save+fsync and verified load of one state against raw I/O and torch.save/load, in one run, as ratios.

    python benchmarks/save_load.py [--mib 1024] [--rounds 5] [--dir DIR] [--json]

Contenders take turns, so that a machine whose speed drifts treats all alike; the median ratio per round is quoted.
Reads begin with the file dropped from the page cache (posix_fadvise), and "warm" ones with it in there.
`hr.save` includes reading every byte back before the commit; "no read-back" shows what that costs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hpcresume as hr
from hpcresume.checkpoint.run import open_run
from hpcresume.checkpoint.save import SaveOptions, save_generation
from hpcresume.comm.single import SingleRanks

CHUNK = 16 << 20


def make_state(mib: int) -> dict[str, Any]:
    """Tensors of 16 MiB and a few hundred small ones, of random bytes: what a model looks like to a disk."""
    generator = torch.Generator().manual_seed(0)
    big = {f"block.{i}.weight": torch.randn(CHUNK // 4, generator=generator) for i in range(mib // 16)}
    small = {f"block.{i}.bias": torch.randn(1024, generator=generator) for i in range(200)}
    return {"model": {**big, **small}, "step": 1}


def drop(path: Path) -> None:
    """Forget the pages of a file or of all files in a directory."""
    for each in path.rglob("*") if path.is_dir() else [path]:
        if each.is_file():
            fd = os.open(each, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


class Bench:
    """One state, one directory, and the contenders."""

    def __init__(self, mib: int, directory: Path) -> None:
        self.state = make_state(mib)
        self.flat = [t.numpy() for t in self.state["model"].values()]
        self.directory = directory
        self.serial = 0
        self.loaded: Path = directory

    def fresh(self, suffix: str) -> Path:
        """A path never used before, so that nobody overwrites allocated blocks."""
        self.serial += 1
        return self.directory / f"{self.serial}{suffix}"

    def raw_write(self) -> Path:
        path = self.fresh(".raw")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        offset = 0
        for array in self.flat:
            offset += os.pwrite(fd, array.data, offset)
        os.fsync(fd)
        os.close(fd)
        return path

    def torch_save(self) -> Path:
        path = self.fresh(".pt")
        torch.save(self.state, path)
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        return path

    def our_save(self) -> Path:
        path = self.fresh(".run")
        hr.save(path, self.state, step=1)
        return path

    def our_save_no_read_back(self) -> Path:
        path = self.fresh(".run")
        ranks = SingleRanks()
        run = open_run(path, create=True, ranks=ranks)
        options = SaveOptions(read_back="none")
        save_generation(run, self.state, step=1, attempt=1, parent=None, ranks=ranks, options=options)
        return path

    def raw_read(self, path: Path) -> None:
        buffer = np.empty(CHUNK, dtype=np.uint8)
        fd = os.open(path, os.O_RDONLY)
        while os.readv(fd, [buffer.data]):
            pass
        os.close(fd)

    def torch_load(self, path: Path) -> None:
        torch.load(path, weights_only=True)

    def our_load(self, path: Path) -> None:
        hr.load(path)


def timed(action: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    """Wall seconds of one call, and what it returned."""
    begin = time.perf_counter()
    result = action(*args)
    return time.perf_counter() - begin, result


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def one_round(bench: Bench) -> dict[str, float]:
    """Seconds of every contender, in turn."""
    seconds: dict[str, float] = {}
    seconds["raw pwrite+fsync"], raw = timed(bench.raw_write)
    seconds["torch.save+fsync"], peer = timed(bench.torch_save)
    seconds["hr.save (all read back)"], ours = timed(bench.our_save)
    seconds["hr.save (no read-back)"], quick = timed(bench.our_save_no_read_back)
    remove(quick)
    for kind in ("cold", "warm"):
        for name, action, path in (
            ("raw read", bench.raw_read, raw),
            ("torch.load", bench.torch_load, peer),
            ("hr.load (verified)", bench.our_load, ours),
        ):
            if kind == "cold":
                drop(path)
            seconds[f"{name}, {kind}"], _ = timed(action, path)
    for path in (raw, peer, ours):
        remove(path)
    return seconds


BASELINES = {"save": ("raw pwrite+fsync", "torch.save+fsync"), "cold": ("raw read, cold", "torch.load, cold")}
BASELINES["warm"] = ("raw read, warm", "torch.load, warm")


def baseline_of(name: str) -> tuple[str, str]:
    """The raw and the peer contender that `name` is held against."""
    kind = name.rpartition(", ")[2]
    return BASELINES.get(kind, BASELINES["save"])


def summarize(rounds: list[dict[str, float]], mib: int) -> dict[str, dict[str, float]]:
    """Median seconds, MiB/s, and median of the per-round ratios to raw I/O and to torch."""
    table = {}
    for name in rounds[0]:
        raw, peer = baseline_of(name)
        seconds = statistics.median(r[name] for r in rounds)
        table[name] = {
            "seconds": seconds,
            "mib_per_s": mib / seconds,
            "times_raw": statistics.median(r[name] / r[raw] for r in rounds),
            "times_torch": statistics.median(r[name] / r[peer] for r in rounds),
        }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, default=None, help="where to write (default: a temporary directory)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=options.dir))
    try:
        bench = Bench(options.mib, directory)
        one_round(bench)  # the first round allocates memory and warms the disk's own caches
        table = summarize([one_round(bench) for _ in range(options.rounds)], options.mib)
    finally:
        shutil.rmtree(directory)
    if options.json:
        print(json.dumps(table))
        return
    print(f"{options.mib} MiB, median of {options.rounds} rounds\n")
    print(f"{'':26} {'seconds':>8} {'MiB/s':>8} {'x raw':>7} {'x torch':>8}")
    for name, row in table.items():
        figures = f"{row['seconds']:8.2f} {row['mib_per_s']:8.0f} {row['times_raw']:7.2f} {row['times_torch']:8.2f}"
        print(f"{name:26} {figures}")


if __name__ == "__main__":
    main()
