"""What a generation holds, read from its manifest alone: facts, tensors, plain values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hpcresume.checkpoint.generations import lineage_names, read_sealed
from hpcresume.checkpoint.manifest import Manifest
from hpcresume.checkpoint.tree import Key, decode_plain, path_text
from hpcresume.errors import DamagedError, NoGenerationError
from hpcresume.model import Generation, Skipped, TensorInfo
from hpcresume.ops.targets import Target, typed

__all__ = ["Contents", "PlainValue", "as_json", "read_contents"]


@dataclass(frozen=True)
class PlainValue:
    """A value that is no tensor: its path in the state, its rank (None: all ranks share it), the value."""

    path: str
    rank: int | None
    value: Any


@dataclass(frozen=True)
class Contents:
    """The facts of a generation; `environment` is that of the program that wrote it.

    `skipped` are newer generations of the lineage whose manifests are no good, where the newest was asked for.
    """

    generation: Generation
    run_id: str
    format_version: int
    environment: dict[str, str]
    tensors: tuple[TensorInfo, ...]
    values: tuple[PlainValue, ...]
    skipped: tuple[Skipped, ...] = ()


def read_contents(target: Target) -> Contents:
    """Read the generation that was named, or the newest one of the run.

    Raises:
        NoGenerationError: nothing was ever committed.
        CheckpointError: the manifest is damaged, or none is whole.
        FormatVersionError: another format version wrote it.
    """
    with typed(target.run):
        name = target.generation or _newest(target)
        skipped = () if target.generation else _passed_over(target, name)
    path = target.run.generations / name
    sealed = read_sealed(path)
    generation = sealed.generation(target.run.root, path)
    return Contents(
        generation=generation,
        run_id=sealed.body.run_id,
        format_version=sealed.body.format_version,
        environment=dict(sealed.body.environment),
        tensors=tuple(sorted(generation.tensors.values(), key=lambda info: info.name)),
        values=tuple(_values(sealed.body, name)),
        skipped=skipped,
    )


def _newest(target: Target) -> str:
    newest = target.generations.newest()
    if newest is None:
        raise NoGenerationError(
            "nothing was ever committed in this run",
            where=str(target.run.root),
            hint="hpcresume ls shows a generation as soon as there is one",
        )
    return newest.name


def _passed_over(target: Target, name: str) -> tuple[Skipped, ...]:
    chain = lineage_names(target.run)
    newer = chain[: chain.index(name)]
    return tuple(bad for bad in reversed(target.generations.damaged()) if bad.generation in newer)


def _values(body: Manifest, name: str) -> Iterator[PlainValue]:
    try:
        for index, path in _leaves(body.structure, ()):
            document = body.leaves[index]
            if "value" in document:
                yield PlainValue(path_text(path), None, decode_plain(document["value"]))
            elif "local" in document:
                yield from _local_values(body, index, path)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(
            f"the state in the manifest cannot be put together: {error!r}", where=name, generation=name
        ) from error


def _local_values(body: Manifest, index: int, path: tuple[Key, ...]) -> Iterator[PlainValue]:
    for rank, part in enumerate(body.rank_parts):
        document = part[str(index)]
        for inner, below in _leaves(document["structure"], path):
            leaf = document["leaves"][inner]
            if "value" in leaf:
                yield PlainValue(path_text(below), rank, decode_plain(leaf["value"]))


def _leaves(structure: Any, path: tuple[Key, ...]) -> Iterator[tuple[int, tuple[Key, ...]]]:
    """Leaf numbers with their paths, in order; the shape of `structure` is told in checkpoint/tree.py."""
    if isinstance(structure, int):
        yield structure, path
        return
    ((kind, children),) = structure.items()
    keyed = kind in ("dict", "odict")
    for number, child in enumerate(children):
        key, below = (decode_plain(child[0]), child[1]) if keyed else (number, child)
        yield from _leaves(below, (*path, key))


def as_json(contents: Contents) -> dict[str, Any]:
    """The object that `hpcresume inspect --json` prints; its keys are documented in the verb's help.

    Values that JSON has no word for (NaN, infinities, bytes, complex numbers) are given as Python writes them.
    """
    generation = contents.generation
    return {
        "run": str(generation.run),
        "name": generation.name,
        "path": str(generation.path),
        "step": generation.step,
        "attempt": generation.attempt,
        "parent": generation.parent,
        "created": generation.created,
        "world_size": generation.world_size,
        "bytes": generation.nbytes,
        "read_back": generation.read_back,
        "write_path": generation.write_path,
        "root": generation.root,
        "run_id": contents.run_id,
        "format_version": contents.format_version,
        "environment": contents.environment,
        "skipped": [{"name": each.generation, "reason": each.reason} for each in contents.skipped],
        "tensors": [
            {
                "name": info.name,
                "dtype": info.dtype,
                "shape": list(info.shape),
                "scope": info.scope,
                "bytes": info.nbytes,
                "digest": info.digest,
                "file": info.file,
                "offset": info.offset,
            }
            for info in contents.tensors
        ],
        "values": [
            {"path": value.path, "rank": value.rank, "value": _json_value(value.value)} for value in contents.values
        ],
    }


def _json_value(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    finite = isinstance(value, float) and value - value == 0
    return value if finite else repr(value)
