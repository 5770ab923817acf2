"""A rank's block of a periodic two-dimensional grid, and the exchange of its edges with the neighbours.

Knows the decomposition and MPI; knows neither the equations nor hpcresume.
"""

from __future__ import annotations

import numpy as np
from mpi4py import MPI

__all__ = ["Domain"]


class Domain:
    """The block of rows `rows` and columns `columns` (global indices, end excluded) that this rank owns.

    The ranks form a periodic Cartesian grid, as square as their number allows; its sides need not divide the
    grid's. Fields are arrays of shape (fields, rows + 2, columns + 2): the block and a halo one cell wide.

    Raises:
        ValueError: there are more ranks along an axis than cells.
    """

    def __init__(self, comm: MPI.Comm, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.ranks = tuple(MPI.Compute_dims(comm.size, 2))
        if any(cells < ranks for cells, ranks in zip(shape, self.ranks, strict=True)):
            raise ValueError(f"{self.ranks[0]} × {self.ranks[1]} ranks are too many for {shape[0]} × {shape[1]} cells")
        # reorder=False: a rank has the same number here as in its session.
        self.comm = comm.Create_cart(self.ranks, periods=[True, True], reorder=False)
        self.rows, self.columns = map(_share, self.comm.coords, self.ranks, shape)

    @property
    def start(self) -> tuple[int, int]:
        """Global indices of the block's first cell."""
        return self.rows.start, self.columns.start

    def new_fields(self, count: int) -> np.ndarray:
        """Zeros for `count` fields on the block and its halo."""
        return np.zeros((count, len(self.rows) + 2, len(self.columns) + 2))

    def halo_exchange(self, fields: np.ndarray) -> HaloExchange:
        """What fills the halo of this very array."""
        return HaloExchange(self.comm, fields)


class HaloExchange:
    """Called: fills the halo of `fields` with the neighbours' edges. Collective; the corners are right too.

    The messages are always the same, so they are set up once (MPI's persistent requests) and only started later.
    """

    def __init__(self, comm: MPI.Cartcomm, fields: np.ndarray) -> None:
        self._comm, self._fields = comm, fields
        count, height, width = fields.shape
        # Columns first. Then whole rows, which carry the halo cells just filled round the corners.
        side, edge = (count, height - 2, 1), (count, 1, width)
        self._phases = [
            self._both_ways(1, side, [(0, 1, x) for x in (0, 1, width - 2, width - 1)]),
            self._both_ways(0, edge, [(0, y, 0) for y in (0, 1, height - 2, height - 1)]),
        ]

    def _both_ways(self, axis: int, shape: tuple[int, ...], places: list[tuple[int, ...]]) -> list[MPI.Prequest]:
        """The messages along an axis; `places`: low halo, first cells, last cells, high halo."""
        low_halo, first, last, high_halo = (self._window(shape, place) for place in places)
        below, above = self._comm.Shift(axis, 1)
        down, up = 0, 1  # tags: of two ranks on a ring each is below and above the other
        return [
            self._comm.Recv_init(high_halo, source=above, tag=down),
            self._comm.Recv_init(low_halo, source=below, tag=up),
            self._comm.Send_init(first, dest=below, tag=down),
            self._comm.Send_init(last, dest=above, tag=up),
        ]

    def _window(self, shape: tuple[int, ...], place: tuple[int, ...]) -> list:
        """A part of the fields as an MPI buffer: no copy is made here."""
        part = MPI.DOUBLE.Create_subarray(self._fields.shape, shape, place).Commit()
        return [self._fields, 1, part]

    def __call__(self) -> None:
        for requests in self._phases:
            MPI.Prequest.Startall(requests)
            MPI.Prequest.Waitall(requests)


def _share(index: int, parts: int, cells: int) -> range:
    """Part `index` of `cells` cells in `parts` parts whose sizes differ by one at most."""
    return range(index * cells // parts, (index + 1) * cells // parts)
