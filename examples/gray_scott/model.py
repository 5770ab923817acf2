"""The Gray–Scott equations on one rank's block, with noise that does not depend on which rank owns a cell.

    du/dt = Du ∇²u - u v² + feed (1 - u)
    dv/dt = Dv ∇²v + u v² - (feed + kill) v

Two chemicals: u is fed and v removed, and v makes more of itself out of u (J. E. Pearson, "Complex Patterns in a
Simple System", Science 261, 1993). Cells are one apart and a time step is one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from domain import Domain

__all__ = ["PATTERNS", "GrayScott", "Noise", "Parameters"]

PATTERNS = {
    "coral": (0.0545, 0.062),
    "maze": (0.029, 0.057),
    "mitosis": (0.0367, 0.0649),
    "worms": (0.046, 0.063),
}
"""Well-known values of feed and kill."""
DIFFUSION = (1.0, 0.5)
"""Of u and v, for this stencil and time step."""
SPOTS = 20
"""Squares with v in them, from which the pattern grows."""


@dataclass(frozen=True)
class Parameters:
    """What decides the result. Tracked, so that an attempt cannot go on with other values by accident."""

    shape: tuple[int, int]
    feed: float
    kill: float
    noise: float
    iterations: int
    seed: int

    def state_dict(self) -> dict[str, Any]:
        """All values."""
        return {**dataclasses.asdict(self), "shape": list(self.shape)}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Compare with the run's values.

        Raises:
            ValueError: some differ, all of them named.
        """
        changed = [f"{name}={saved[name]}, not {now}" for name, now in self.state_dict().items() if saved[name] != now]
        if changed:
            raise ValueError("the run was begun with " + "; ".join(changed))


class Noise:
    """Uniform numbers in [-0.5, 0.5) for every cell of the grid, the same for any decomposition.

    Cell (y, x) takes number y × columns + x of a Philox stream that belongs to the seed and the draw. Philox is
    counter-based: any rank can begin anywhere in the stream at no cost. The count of draws is the whole state.
    """

    def __init__(self, seed: int, domain: Domain) -> None:
        self.seed, self.draws, self._domain = seed, 0, domain

    def state_dict(self) -> dict[str, int]:
        """How often was drawn."""
        return {"draws": self.draws}

    def load_state_dict(self, saved: dict[str, int]) -> None:
        """Go on after the saved draw."""
        self.draws = saved["draws"]

    def draw(self) -> np.ndarray:
        """The next numbers for this rank's block.

        Whole rows are drawn in one go and cut: cheaper than to set the generator anew for each row.
        """
        (top, left), width = self._domain.start, self._domain.shape[1]
        height = len(self._domain.rows)
        block, skip = divmod(top * width + left, 4)  # a tick of the counter yields four numbers
        words = _philox(self.seed, self.draws, block).random_raw(skip + height * width)[skip:].reshape(height, width)
        self.draws += 1
        return (words[:, : len(self._domain.columns)] >> 11) * 2.0**-53 - 0.5


class GrayScott:
    """Both fields on this rank's block. `u` and `v` are views of the block without its halo."""

    def __init__(self, parameters: Parameters, domain: Domain) -> None:
        self._parameters, self._domain = parameters, domain
        self._fields = domain.new_fields(2)
        self.u, self.v = self._fields[:, 1:-1, 1:-1]
        self._exchange = domain.halo_exchange(self._fields)
        self._begin()
        self._sums = np.empty((2, self._fields.shape[1], self._fields.shape[2] - 2))
        self._change = np.empty((2, *self.u.shape))
        self._scratch = np.empty_like(self.u)

    def _begin(self) -> None:
        """Set u = 1, and squares of u = 0.5, v = 0.25 at places that the seed decides; the grid's edges wrap round."""
        self.u[:] = 1.0
        generator = np.random.Generator(_philox(self._parameters.seed, 2**64 - 1))
        (rows, columns), half = self._parameters.shape, max(2, min(self._parameters.shape) // 64)
        for place in generator.random((SPOTS, 2)):
            inside = np.ix_(
                _near(self._domain.rows, int(place[0] * rows), half, rows),
                _near(self._domain.columns, int(place[1] * columns), half, columns),
            )
            self.u[inside], self.v[inside] = 0.5, 0.25

    def advance(self, noise: Noise) -> None:
        """One step: many small time steps, and then a kick of noise. Collective."""
        for _ in range(self._parameters.iterations):
            self._exchange()
            self._iterate()
        if self._parameters.noise:
            self.v *= 1.0 + self._parameters.noise * noise.draw()

    def _iterate(self) -> None:
        """One explicit Euler step of a time unit, in place: the order of operations is the same for every cell."""
        feed, kill = self._parameters.feed, self._parameters.kill
        change, scratch = self._laplace(), self._scratch
        change *= np.array(DIFFUSION)[:, None, None]
        np.multiply(self.v, self.v, out=scratch)
        scratch *= self.u
        change[0] -= scratch
        change[1] += scratch
        np.subtract(1.0, self.u, out=scratch)
        scratch *= feed
        change[0] += scratch
        np.multiply(self.v, feed + kill, out=scratch)
        change[1] -= scratch
        self._fields[:, 1:-1, 1:-1] += change

    def _laplace(self) -> np.ndarray:
        """∇² of both fields by the nine-point stencil (1 4 1; 4 -20 4; 1 4 1) / 20.

        Which is the square of (1 4 1), along rows and then along columns, less 36 times the cell.
        """
        fields, sums, result = self._fields, self._sums, self._change
        np.multiply(fields[:, :, 1:-1], 4.0, out=sums)
        sums += fields[:, :, :-2]
        sums += fields[:, :, 2:]
        np.multiply(sums[:, 1:-1], 4.0, out=result)
        result += sums[:, :-2]
        result += sums[:, 2:]
        sums = sums[:, 1:-1]
        np.multiply(fields[:, 1:-1, 1:-1], 36.0, out=sums)
        result -= sums
        result *= 0.05
        return result

    def covered(self, threshold: float = 0.1) -> int:
        """In how many cells of this block v is above `threshold`: a whole number adds up alike in any order."""
        return int(np.count_nonzero(self.v > threshold))


def _philox(seed: int, stream: int, block: int = 0) -> np.random.Philox:
    """Stream `stream` of a seed, from block `block` of four numbers on."""
    return np.random.Philox(key=np.array([seed, stream], np.uint64), counter=np.array([block, 0, 0, 0], np.uint64))


def _near(cells: range, centre: int, half: int, total: int) -> np.ndarray:
    """Which of these cells lie within `half` of `centre` on a ring of `total`."""
    distance = (np.array(cells) - centre) % total
    return np.minimum(distance, total - distance) <= half
