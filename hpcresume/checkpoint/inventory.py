"""What is to be saved: the state tree as all ranks see it, and which bytes each of them contributes.

Collective, but touches no file. Replicated leaves whose bytes differ between ranks are kept per rank, so that
nothing is lost and nothing is mixed (batch-norm statistics under data parallelism differ, for instance).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpcresume.checkpoint import arrays, layout, tree
from hpcresume.checkpoint.digest import DIGEST_BYTES, digest_bytes, digest_of_digests
from hpcresume.checkpoint.manifest import TensorEntry
from hpcresume.checkpoint.phases import together
from hpcresume.checkpoint.tree import Leaf
from hpcresume.comm.ranks import Ranks
from hpcresume.errors import RankStructureError, UntrackableError
from hpcresume.model import Emit, Event

__all__ = ["Inventory", "take_inventory"]


@dataclass(frozen=True)
class Inventory:
    """The plan's input, equal on all ranks but for `sources`.

    `entries` are the tensors with offsets still 0; `sources[i]` is this rank's array for entry i: the whole
    tensor when it is replicated, this rank's part otherwise, absent when it has none.
    """

    structure: Any
    leaves: list[Any]
    rank_parts: list[Any]
    entries: list[TensorEntry]
    sources: Mapping[int, Any]


class _Builder:
    """Collects entries and sources while the leaves are walked in order."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.entries: list[TensorEntry] = []
        self.sources: dict[int, Any] = {}

    def add(self, entry: TensorEntry, source: Any = None) -> int:
        self.entries.append(entry)
        if source is not None:
            self.sources[len(self.entries) - 1] = source
        return len(self.entries) - 1


def take_inventory(state: Any, ranks: Ranks, emit: Emit, *, compare_replicas: bool = True) -> Inventory:
    """Collective. Flatten the state on every rank and agree on what it is.

    Raises:
        UntrackableError: a value that cannot be saved, with its path (and rank).
        RankStructureError: the trees differ between ranks in more than their values.
        SliceError: slices of a global array do not tile it.
    """
    with together(ranks, "take the state apart"):
        structure, leaves = tree.flatten(state)
        aliases = _aliases(leaves)
    _agree_on_structure(structure, leaves, aliases, ranks)
    local = {i for i, leaf in enumerate(leaves) if leaf.kind == "local"}
    if compare_replicas and ranks.size > 1:
        local |= _diverged(leaves, aliases, ranks, emit)
    builder = _Builder(ranks.rank)
    documents = _global_leaves(leaves, aliases, local, builder, ranks)
    parts = _local_leaves(leaves, sorted(local), builder, ranks)
    return Inventory(structure, documents, parts, builder.entries, builder.sources)


def _aliases(leaves: Sequence[Leaf]) -> dict[int, int]:
    """Leaves that are the very elements of an earlier one (tied weights) → that earlier one."""
    first: dict[Any, int] = {}
    result = {}
    for i, leaf in enumerate(leaves):
        key = arrays.identity(leaf.value) if leaf.kind == "array" else None
        if key is not None and first.setdefault(key, i) != i:
            result[i] = first[key]
    return result


def _facts(leaf: Leaf) -> list[Any]:
    if leaf.kind == "array":
        library, dtype, shape = arrays.describe(leaf.value)
        return ["array", library, dtype, list(shape)]
    if leaf.kind == "sliced":
        library, dtype, _ = arrays.describe(leaf.value.array)
        return ["sliced", library, dtype, [int(n) for n in leaf.value.shape]]
    return [leaf.kind]


def _agree_on_structure(structure: Any, leaves: Sequence[Leaf], aliases: dict[int, int], ranks: Ranks) -> None:
    if ranks.size == 1:
        return
    facts = {
        tree.path_name(leaf.path): [tree.path_text(leaf.path), _tie(aliases.get(i), leaves), *_facts(leaf)]
        for i, leaf in enumerate(leaves)
    }
    document = json.dumps([structure, facts]).encode()
    digests = ranks.allgather(digest_bytes(document))
    if len(set(digests)) == 1:
        return
    every = [json.loads(text) for text in ranks.allgather(json.dumps(facts).encode())]
    odd = next(rank for rank, digest in enumerate(digests) if digest != digests[0])
    raise _structure_error(every[0], every[odd], odd)


def _tie(first: int | None, leaves: Sequence[Leaf]) -> str:
    return "" if first is None else tree.path_text(leaves[first].path)


def _structure_error(zero: dict[str, list[Any]], other: dict[str, list[Any]], rank: int) -> RankStructureError:
    name = next((n for n in dict.fromkeys([*zero, *other]) if zero.get(n) != other.get(n)), None)
    hint = "wrap what belongs to one rank in hr.RankLocal(...)"
    if name is None:
        what = f"ranks 0 and {rank} have the same values in other containers, or keys in another order"
        return RankStructureError(what, where=f"rank {rank}", hint=hint)
    path = (zero.get(name) or other[name])[0]
    what = f"rank 0 has {_fact_text(zero.get(name))}, rank {rank} has {_fact_text(other.get(name))}"
    return RankStructureError(what, where=f"rank {rank}: {path}", hint=hint)


def _fact_text(facts: list[Any] | None) -> str:
    if facts is None:
        return "nothing"
    _, tied, kind, *more = facts
    text = f"a {more[0]} {more[1]} of shape {tuple(more[2])}" if more else f"a {kind} value"
    return f"{text}, the same memory as {tied}" if tied else text


def _leaf_digest(leaf: Leaf) -> bytes:
    if leaf.kind == "array":
        return digest_bytes(arrays.as_bytes(leaf.value))
    if leaf.kind == "plain":
        return digest_bytes(json.dumps(tree.encode_plain(leaf.value)).encode())
    return b"\0" * DIGEST_BYTES


def _diverged(leaves: Sequence[Leaf], aliases: dict[int, int], ranks: Ranks, emit: Emit) -> set[int]:
    with together(ranks, "read the state"):
        mine = [b"\0" * DIGEST_BYTES if i in aliases else _leaf_digest(leaf) for i, leaf in enumerate(leaves)]
    if len(set(ranks.allgather(digest_of_digests(mine)))) == 1:
        return set()
    everyone = ranks.allgather(b"".join(mine))
    found = {
        i for i in range(len(leaves)) if len({text[i * DIGEST_BYTES : (i + 1) * DIGEST_BYTES] for text in everyone}) > 1
    }
    found |= {alias for alias, first in aliases.items() if first in found}
    paths = [tree.path_text(leaves[i].path) for i in sorted(found)]
    emit(Event("replicas-differ", {"count": len(paths), "paths": paths[:20], "kept": "per rank"}))
    return found


def _global_leaves(
    leaves: Sequence[Leaf], aliases: dict[int, int], local: set[int], builder: _Builder, ranks: Ranks
) -> list[Any]:
    names: dict[int, list[str]] = {}
    for alias, first in aliases.items():
        names.setdefault(first, []).append(tree.path_name(leaves[alias].path))
    documents: list[Any] = []
    for i, leaf in enumerate(leaves):
        if i in local:
            documents.append({"local": True})
        elif leaf.kind == "plain":
            documents.append({"value": tree.encode_plain(leaf.value)})
        elif i in aliases:
            documents.append(documents[aliases[i]])
        elif leaf.kind == "array":
            entry = _entry(tree.path_name(leaf.path), leaf.value, "replicated", aliases=names.get(i, []))
            documents.append({"tensor": builder.add(entry, leaf.value)})
        else:
            documents.append({"tensor": _add_sliced(leaf, builder, ranks)})
    return documents


def _entry(name: str, value: Any, scope: str, **more: Any) -> TensorEntry:
    library, dtype, shape = arrays.describe(value)
    return TensorEntry(name=name, library=library, dtype=dtype, shape=list(shape), scope=scope, offset=0, **more)


def _add_sliced(leaf: Leaf, builder: _Builder, ranks: Ranks) -> int:
    library, dtype, shape = arrays.describe(leaf.value.array)
    mine = [[int(n) for n in leaf.value.start], list(shape)]
    blocks = [json.loads(text) for text in ranks.allgather(json.dumps(mine).encode())]
    name = tree.path_name(leaf.path)
    whole = [int(n) for n in leaf.value.shape]
    layout.check_blocks(name, whole, [layout.Block(tuple(start), tuple(size)) for start, size in blocks])
    entry = TensorEntry(
        name=name, library=library, dtype=dtype, shape=whole, scope="sliced", offset=0,
        blocks=[(start, size) for start, size in blocks],
    )  # fmt: skip
    return builder.add(entry, leaf.value.array)


def _take_part(leaf: Leaf) -> tuple[dict[str, Any], dict[str, Any]]:
    """One rank's rank-local subtree: its document, and its arrays by name."""
    value = leaf.value
    structure, leaves = tree.flatten(value, leaf.path)
    documents: list[Any] = []
    found: dict[str, Any] = {}
    for each in leaves:
        if each.kind == "plain":
            documents.append({"value": tree.encode_plain(each.value)})
        elif each.kind == "array":
            library, dtype, shape = arrays.describe(each.value)
            name = tree.path_name(each.path)
            found[name] = each.value
            documents.append({"array": [name, library, dtype, list(shape)]})
        else:
            raise UntrackableError(f"a {each.kind} value inside a rank-local one", where=tree.path_text(each.path))
    return {"structure": structure, "leaves": documents}, found


def _local_leaves(leaves: Sequence[Leaf], local: Sequence[int], builder: _Builder, ranks: Ranks) -> list[Any]:
    if not local:
        return []
    mine: dict[str, Any] = {}
    found: dict[str, Any] = {}
    with together(ranks, "take the rank-local state apart"):
        for i in local:
            mine[str(i)], part_arrays = _take_part(leaves[i])
            found.update(part_arrays)
    parts = [json.loads(text) for text in ranks.allgather(json.dumps(mine).encode())]
    indices = _place(parts, found, builder, ranks)
    for rank, part in enumerate(parts):
        for document in part.values():
            document["leaves"] = [
                {"tensor": indices[leaf["array"][0], rank]} if "array" in leaf else leaf for leaf in document["leaves"]
            ]
    return parts


def _place(
    parts: Sequence[Any], found: Mapping[str, Any], builder: _Builder, ranks: Ranks
) -> dict[tuple[str, int], int]:
    """One stacked dataset where all ranks have the same kind of array, else one dataset a rank."""
    by_name: dict[str, dict[int, list[Any]]] = {}
    for rank, part in enumerate(parts):
        for document in part.values():
            for leaf in document["leaves"]:
                if "array" in leaf:
                    by_name.setdefault(leaf["array"][0], {})[rank] = leaf["array"][1:]
    indices = {}
    for name, kinds in by_name.items():
        library, dtype, shape = next(iter(kinds.values()))
        same = len(kinds) == ranks.size and all(kind == [library, dtype, shape] for kind in kinds.values())
        if same:
            entry = TensorEntry(
                name=name,
                library=library,
                dtype=dtype,
                shape=[ranks.size, *shape],
                scope="per-rank",
                offset=0,
            )
            index = builder.add(entry, found[name])
            indices.update({(name, rank): index for rank in kinds})
            continue
        for rank, (library, dtype, shape) in kinds.items():
            entry = TensorEntry(
                name=f"@rank{rank:05d}/{name}", library=library, dtype=dtype, shape=shape, scope="one-rank", offset=0,
                owner=rank,
            )  # fmt: skip
            indices[name, rank] = builder.add(entry, found[name] if rank == ranks.rank else None)
    return indices
