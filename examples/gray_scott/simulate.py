"""Gray–Scott reaction–diffusion on all MPI ranks, that survives preemption and may come back on other ranks.

numpy and mpi4py only. What hpcresume adds are the lines with `hr.` and `s.` in them.
"""

from __future__ import annotations

import argparse
import math
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from domain import Domain
from model import PATTERNS, GrayScott, Noise, Parameters
from mpi4py import MPI

import hpcresume as hr


def main() -> None:
    """Simulate; stop when warned; go on where the last attempt stopped."""
    args = parser().parse_args()
    draw = _drawing() if args.picture else None
    parameters = read_parameters(args)
    try:
        domain = Domain(MPI.COMM_WORLD, parameters.shape)
    except ValueError as error:
        raise SystemExit(f"simulate.py: {error}" if MPI.COMM_WORLD.rank == 0 else 1) from error
    fields, noise = GrayScott(parameters, domain), Noise(parameters.seed, domain)

    with hr.session(args.run, every=args.every, comm="mpi") as s:
        s.track(
            u=hr.GlobalSlice(fields.u, shape=domain.shape, start=domain.start),
            v=hr.GlobalSlice(fields.v, shape=domain.shape, start=domain.start),
            noise=noise,
            parameters=parameters,
        )
        progress = Progress(args.steps, parameters, domain)
        for step in s.steps(args.steps):
            fields.advance(noise)
            s.log(covered=progress.show(step, fields))
    if draw is not None and domain.comm.rank == 0:
        draw(hr.Generations(args.run).newest(), args.picture)


class Progress:
    """How far the simulation is, in some twenty lines by rank 0."""

    def __init__(self, steps: int, parameters: Parameters, domain: Domain) -> None:
        self._steps, self._iterations, self._domain = steps, parameters.iterations, domain
        self._every = max(1, steps // 20)
        self._last: tuple[int, float] | None = None

    def show(self, step: int, fields: GrayScott) -> float:
        """Collective. The share of all cells that the pattern covers by now; printed now and then."""
        comm, cells = self._domain.comm, math.prod(self._domain.shape)
        count = np.array(fields.covered())
        comm.Allreduce(MPI.IN_PLACE, count)
        covered = int(count) / cells
        done, now = step + 1, time.monotonic()
        if self._last is None:
            self._last = done, now
        elif comm.rank == 0 and (done % self._every == 0 or done == self._steps):
            rate = (done - self._last[0]) * self._iterations / (now - self._last[1])
            on = " × ".join(map(str, self._domain.ranks))
            print(f"step {done}/{self._steps}  {covered:.1%} covered  {rate:,.0f} iterations/s  {on} ranks", flush=True)
            self._last = done, now
        return covered


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--run", type=Path, required=True, help="the run's directory")
    options.add_argument("--steps", type=int, default=200, help="steps in the whole simulation (default 200)")
    options.add_argument("--iterations", type=int, default=50, help="time steps in each of them (default 50)")
    options.add_argument(
        "--grid", type=_grid, default=(256, 256), metavar="ROWSxCOLUMNS", help="cells (default 256x256)"
    )
    options.add_argument("--pattern", choices=sorted(PATTERNS), default="coral", help="feed and kill by name")
    options.add_argument("--feed", type=float, help="feed rate, instead of the pattern's")
    options.add_argument("--kill", type=float, help="kill rate, instead of the pattern's")
    options.add_argument("--noise", type=float, default=0.02, help="relative noise on v after each step (default 0.02)")
    options.add_argument("--seed", type=_seed, default=0, help="of the noise and of where the pattern starts")
    options.add_argument("--every", default="20 steps", help='how often to save: "20 steps", "5min", "auto"')
    options.add_argument("--picture", type=Path, metavar="PNG", help="draw v here in the end (needs matplotlib)")
    return options


def read_parameters(args: argparse.Namespace) -> Parameters:
    """What was asked for, as the simulation wants it."""
    feed, kill = PATTERNS[args.pattern]
    return Parameters(
        shape=args.grid,
        feed=feed if args.feed is None else args.feed,
        kill=kill if args.kill is None else args.kill,
        noise=args.noise,
        iterations=args.iterations,
        seed=args.seed,
    )


def _grid(text: str) -> tuple[int, int]:
    """`256x192` as (256, 192)."""
    sides = re.fullmatch(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", text)
    if sides is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no grid; try 256x192")
    return int(sides[1]), int(sides[2])


def _seed(text: str) -> int:
    """Any whole number of 64 bits."""
    if not re.fullmatch(r"[0-9]{1,20}", text) or int(text) >= 2**64:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to 2**64 - 1")
    return int(text)


def _drawing() -> Callable[[hr.Generation, Path], None]:
    """`draw.draw`, imported before hours of work and not after: without matplotlib it fails at once."""
    from draw import draw

    return draw


if __name__ == "__main__":
    main()
