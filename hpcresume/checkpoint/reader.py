"""Reading a committed generation: no byte is handed out before its unit has matched its digest.

Local to one rank; libhdf5 is never asked, since the manifest says where every byte lies. A mismatch counts only
when a second read, past the page cache, confirms it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from hpcresume.checkpoint.digest import DIGEST_BYTES
from hpcresume.checkpoint.layout import Extent, Unit
from hpcresume.checkpoint.manifest import FileEntry, Sealed
from hpcresume.checkpoint.units import away, open_regular, read_unit
from hpcresume.errors import DamagedError
from hpcresume.io.files import files
from hpcresume.io.hints import is_away

__all__ = ["FileReader", "row_bytes"]

Bytes = npt.NDArray[np.uint8]


class FileReader:
    """One open data file of a generation.

    Args:
        sealed: the generation's manifest.
        directory: where the generation lies.
        file: which of its files.
        check: False hands out bytes without comparing them with their digests.

    Attributes:
        checked: indices of the units that have matched so far.
        unconfirmed: how many mismatches a second read did not confirm.

    Raises:
        DamagedError: the file is missing or has the wrong size, or the layout is impossible.
        RunDirectoryError: the file cannot be opened for a reason that is no damage.
    """

    def __init__(self, sealed: Sealed, directory: Path, file: FileEntry, *, check: bool = True) -> None:
        self.checked: set[int] = set()
        self.unconfirmed = 0
        self._generation = directory.name
        self._file = file
        self._check = check
        self._binding = sealed.body.binding(file)
        self.extents = [entry.extent() for entry in file.tensors]
        self.units = sealed.body.units(file)
        self._of_tensor: dict[int, list[int]] = {}
        for i, unit in enumerate(self.units):
            self._of_tensor.setdefault(unit.tensor, []).append(i)
        self._fd = self._open(directory / file.name)

    def _open(self, path: Path) -> int:
        fd = open_regular(path, self._generation)
        size = os.fstat(fd).st_size
        if size != self._file.size:
            files().close(fd)
            problem = f"{path.name} has {size} bytes, {self._file.size} were written"
            raise self._damaged(problem, None, offset=min(size, self._file.size))
        return fd

    def __enter__(self) -> FileReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        files().close(self._fd)

    def _damaged(self, problem: str, unit: Unit | None, offset: int = -1) -> DamagedError:
        tensor = ""
        if unit is not None:
            offset = unit.offset
            tensor = self._file.tensors[unit.tensor].name if unit.tensor >= 0 else ""
        place = f"{self._generation}/{self._file.name}" + (f", byte {offset}" if offset >= 0 else "")
        return DamagedError(
            problem,
            where=place,
            hint="hpcresume verify shows all damage; an older generation may be whole",
            generation=self._generation,
            tensor=tensor,
            offset=offset,
        )

    def _read_checked(self, index: int, into: Bytes | None = None) -> Bytes:
        unit = self.units[index]
        problem = ""
        for attempt in range(2):
            try:
                data = read_unit(self._fd, unit, into=into, past_cache=attempt > 0)
            except OSError as error:
                if attempt > 0 and is_away(error.errno):
                    raise away(error, f"{self._generation}/{self._file.name}") from error
                problem = f"a read failed: {error.strerror}"
                continue
            if data is not None and (not self._check or self._matches(index, data)):
                self.unconfirmed += attempt
                if self._check:
                    self.checked.add(index)
                return data
            problem = "bytes do not match their digest"
        what = self._file.tensors[unit.tensor].name if unit.tensor >= 0 else "HDF5 metadata"
        raise self._damaged(f"{what}: {problem}", unit)

    def _matches(self, index: int, data: Bytes) -> bool:
        width = 2 * DIGEST_BYTES
        expected = self._file.units[index * width : (index + 1) * width]
        return self._binding.digest(data, self.units[index].offset).hex() == expected

    def check(self, index: int) -> None:
        """Read one unit and compare it.

        Raises:
            DamagedError: it does not match.
        """
        self._read_checked(index)

    def read_range(self, tensor: int, start: int, stop: int) -> Bytes:
        """Bytes [start, stop) of a dataset, in a new array; they must lie in it.

        Raises:
            DamagedError: a unit that the range touches does not match its digest.
        """
        extent = self.extents[tensor]
        if not 0 <= start <= stop <= extent.nbytes:
            raise ValueError(f"bytes {start} to {stop} of a tensor of {extent.nbytes}")
        out = np.empty(stop - start, dtype=np.uint8)
        low, high = extent.offset + start, extent.offset + stop
        for index in self._of_tensor.get(tensor, []):
            unit = self.units[index]
            if unit.end <= low or unit.offset >= high:
                continue
            if unit.count == 1 and low <= unit.offset and unit.end <= high:
                self._read_checked(index, out[unit.offset - low : unit.end - low])
            else:
                _scatter(out, low, unit, self._read_checked(index))
        return out

    def read_rows(self, tensor: int, first: int, last: int) -> Bytes:
        """Bytes of rows [first, last) along the first axis of a dataset (the whole of a 0-d one)."""
        extent = self.extents[tensor]
        row = row_bytes(extent)
        return self.read_range(tensor, first * row, last * row)

    def unchecked(self, indices: Iterable[int]) -> list[int]:
        """Those of `indices` that have not been checked yet."""
        return [i for i in indices if i not in self.checked]


def row_bytes(extent: Extent) -> int:
    """Bytes of one index of the first axis; of the element for a 0-d dataset."""
    return math.prod(extent.shape[1:]) * extent.item_size


def _scatter(out: Bytes, low: int, unit: Unit, data: Bytes) -> None:
    """Copy the part of a unit that lies in `out`, whose first byte is at file offset `low`."""
    for i in range(unit.count):
        offset = unit.offset + i * unit.stride
        begin, end = max(offset, low), min(offset + unit.run, low + len(out))
        if begin < end:
            at = i * unit.run + begin - offset
            out[begin - low : end - low] = data[at : at + end - begin]
