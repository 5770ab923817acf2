"""`hr.load` and `hr.read_tensor`: generations without a session."""

from __future__ import annotations

import builtins
import operator
import os
import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hpcresume.checkpoint import fit
from hpcresume.checkpoint.history import read_sealed
from hpcresume.checkpoint.phases import together
from hpcresume.checkpoint.places import read_place
from hpcresume.checkpoint.reader import FileReader
from hpcresume.checkpoint.rebuild import read_block, whole_tensor
from hpcresume.checkpoint.restore import Restored, load_newest, load_one
from hpcresume.checkpoint.run import open_run, run_id
from hpcresume.comm.choose import opened_ranks
from hpcresume.comm.ranks import Ranks
from hpcresume.errors import ConfigError, DamageWarning, NoGenerationError, StateError
from hpcresume.io.paths import RunPaths
from hpcresume.model import Generation, Loaded

__all__ = ["load", "ranks_for_one_call", "read_tensor"]


def ranks_for_one_call(comm: Any) -> AbstractContextManager[Ranks]:
    """Ranks for one call: `comm` is None or "auto", a backend's name, a communicator, or Ranks."""
    return opened_ranks("auto" if comm is None else comm, os.environ)


def load(
    run_or_generation: Path | str | Generation, into: Any = None, *, verify: str = "all", comm: Any = None
) -> Loaded:
    """Collective. Load the newest generation of a run that verifies, or one given generation (or its path).

    Every byte of the generation is compared with its digest by some rank before anything is returned, unless
    `verify="none"`. A run falls back to older generations along its lineage, with a `DamageWarning` for each one
    skipped. With `into`, a live state of the same structure, tensors and arrays are filled in place, all of them or
    none. Without it, tensors come back on the CPU; rank-local parts come back as this rank's own value when the
    world size is the saved one, and as `EveryRank` otherwise; slices as the whole global array.

    Raises:
        ConfigError: what was given is no path.
        NoGenerationError: nothing was ever committed, or there is no generation at the path.
        NoUsableGenerationError: something was, and none of it verifies.
        DamagedError: the given generation is damaged; tensor and offset are named.
        ModelChangedError: `into` has missing, extra or reshaped tensors, all named.
        WorldSizeError: `into` has rank-local parts of another world size.
    """
    if verify not in ("all", "none"):
        raise ConfigError(f"no verify {verify!r}", where="verify", hint="all or none")
    with ranks_for_one_call(comm) as ranks:
        with together(ranks, "look at the live state", StateError):
            slices = fit.find_slices(into)
        loaded = _loaded(run_or_generation, ranks, {"slices": slices, "check": verify == "all"})
        if into is None:
            return loaded
        with together(ranks, "compare with the live state", StateError):
            fit.differences(into, loaded.state, loaded.generation.name)
        with together(ranks, "fill the live state", StateError):
            filled = fit.fill(into, loaded.state)
        return Loaded(loaded.generation, filled)


def _loaded(place: object, ranks: Ranks, how: dict[str, Any]) -> Loaded:
    """Collective. What `place` means: a generation, the path of one, or the newest of a run."""
    if isinstance(place, Generation):
        return Loaded(*load_one(RunPaths(place.run), place.path, ranks, **how))
    with together(ranks, "check the arguments"):
        run, name = read_place(place)
    run = open_run(run.root, create=False, ranks=ranks)
    if name is not None:
        return _load_named(run, name, ranks, how)
    restored: Restored = load_newest(run, ranks, **how)
    if restored.generation is None:
        hint = "hr.save, or a session that has saved once, commits one"
        raise NoGenerationError("nothing was ever committed in this run", where=str(run.root), hint=hint)
    for each in restored.skipped:
        warnings.warn(f"{each.generation} is damaged: {each.reason}", DamageWarning, stacklevel=3)
    return Loaded(restored.generation, restored.state)


def _load_named(run: RunPaths, name: str, ranks: Ranks, how: dict[str, Any]) -> Loaded:
    with together(ranks, "look for the generation"):
        if ranks.rank == 0 and not (run.generations / name).is_dir():
            raise NoGenerationError(f"there is no generation {name}", where=str(run.root), hint="hpcresume ls RUN")
    return Loaded(*load_one(run, run.generations / name, ranks, identity=run_id(run, ranks), **how))


def read_tensor(generation: Generation, name: str, slice: Any = None) -> Any:
    """One tensor (or a part) of a generation, by its HDF5 name; every byte that is used is verified.

    `slice` is an int, a slice, or a tuple of them (any step that the library's own arrays allow); only the rows
    along the first axis that it touches are read. Returns a torch tensor or a numpy array, as it was saved. Not
    collective.

    Raises:
        NoGenerationError: the generation has no tensor of this name; near ones are proposed.
        DamagedError: bytes that were to be read do not match their digest.
        ConfigError: it is no generation, or the slice does not fit the shape.
    """
    _check_generation(generation)
    sealed = read_sealed(generation.path)
    for file in sealed.body.files:
        for index, entry in enumerate(file.tensors):
            if name == entry.name or name in entry.aliases:
                with FileReader(sealed, generation.path, file) as reader:
                    return _read_part(reader, index, name, slice)
    from difflib import get_close_matches

    near = get_close_matches(name, list(generation.tensors), n=3)
    hint = " or ".join(near) if near else "hpcresume inspect lists the names"
    raise NoGenerationError(f"there is no tensor {name!r}", where=generation.name, hint=hint)


def _check_generation(given: object) -> None:
    if not isinstance(given, Generation):
        hint = "hr.load(run).generation, or one of hr.Generations(run).list()"
        raise ConfigError(f"{given!r:.60} is no Generation", where="generation", hint=hint)


_BAD_SLICE = (IndexError, ValueError, TypeError, RuntimeError)
"""What numpy and torch say of a slice that does not fit."""


def _read_part(reader: FileReader, index: int, name: str, part: Any) -> Any:
    if part is None:
        return whole_tensor(reader, index)
    shape = reader.extents[index].shape
    parts = part if isinstance(part, tuple) else (part,)
    try:
        if not 0 < len(parts) <= len(shape):
            raise IndexError(f"{len(parts)} indices for {len(shape)} axes")
        rows, first = _rows(parts[0], shape[0])
        inside = [each if isinstance(each, builtins.slice) else operator.index(each) for each in parts[1:]]
    except _BAD_SLICE as error:
        raise _misfit(part, shape, name, error) from error
    block = read_block(reader, index, (rows.start,) + (0,) * (len(shape) - 1), (len(rows), *shape[1:]))
    cut = (first, *inside)
    try:
        return block[cut]
    except _BAD_SLICE as error:
        raise _misfit(part, shape, name, error) from error


def _misfit(part: Any, shape: tuple[int, ...], name: str, error: Exception) -> ConfigError:
    what = f"the slice {part!r} does not fit the shape {shape}: {error}"
    return ConfigError(what, where=name, hint="integers and slices, one for each axis at most")


def _rows(wanted: Any, length: int) -> tuple[range, Any]:
    """The consecutive rows that an index or slice of the first axis touches, and what picks it from those."""
    if isinstance(wanted, builtins.slice):
        touched = range(*wanted.indices(length))
        span = range(min(touched), max(touched) + 1) if touched else range(0)
        return span, builtins.slice(None, None, touched.step)
    row = range(length)[operator.index(wanted)]
    return range(row, row + 1), 0
