"""The manifest: everything about a generation that is not tensor bytes, sealed by a digest of itself.

The file is one line of JSON, `{"manifest":BODY,"digest":"xxh3-128:HEX"}` and a newline; the digest is taken over
the bytes of BODY as they stand, so that no byte of the file can change unnoticed. Described in docs/FORMAT.md.
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from hpcresume.checkpoint import layout
from hpcresume.checkpoint.digest import ALGORITHM, DIGEST_BYTES, Binding, digest_bytes, digest_of_digests
from hpcresume.errors import DamagedError, FormatVersionError, SliceError
from hpcresume.io.paths import generation_name
from hpcresume.model import FORMAT_VERSION, Generation, TensorInfo

__all__ = [
    "MANIFEST_NAME",
    "MISPLACED",
    "FileEntry",
    "Manifest",
    "Sealed",
    "TensorEntry",
    "decode",
    "encode",
    "tensor_digest",
]

MANIFEST_NAME = "manifest.json"
MISPLACED = "; the entry is a copy, and removing it is enough"
"""How the reason ends when a directory has been put among the generations that is none of them."""
_DATA_FILE = re.compile(r"state(\.\d{3})?\.h5")
_IMPOSSIBLE = (ValueError, TypeError, ArithmeticError, AttributeError, LookupError)
"""What arithmetic on numbers from a bad manifest raises."""
_HEAD = b'{"manifest":'
_MIDDLE = f',"digest":"{ALGORITHM}:'.encode()
_TAIL = b'"}\n'


class TensorEntry(msgspec.Struct, frozen=True):
    """One dataset. Fields as in `layout.Extent`; `aliases` are further names (hard links) of the same bytes."""

    name: str
    library: str
    dtype: str
    shape: list[int]
    scope: str
    offset: int
    digest: str = ""
    owner: int = 0
    blocks: list[tuple[list[int], list[int]]] = []
    aliases: list[str] = []

    def extent(self) -> layout.Extent:
        """The bytes of the dataset."""
        blocks = tuple(layout.Block(tuple(start), tuple(shape)) for start, shape in self.blocks)
        return layout.Extent(self.scope, self.library, self.dtype, tuple(self.shape), self.offset, self.owner, blocks)


class FileEntry(msgspec.Struct, frozen=True):
    """One data file: `units` holds the digests of its units in canonical order, hexadecimal, one string."""

    name: str
    size: int
    unit_bytes: int
    units: str
    tensors: list[TensorEntry]


class Manifest(msgspec.Struct, frozen=True):
    """The body. `structure`, `leaves` and `rank_parts` hold the state tree, see docs/FORMAT.md."""

    format_version: int
    run_id: str
    step: int
    attempt: int
    parent: str | None
    world_size: int
    created: str
    write_path: str
    read_back: str
    environment: dict[str, str]
    files: list[FileEntry]
    structure: Any
    leaves: list[Any]
    rank_parts: list[Any]

    def units(self, file: FileEntry) -> list[layout.Unit]:
        """The units of a file, computed from the layout.

        Raises:
            DamagedError: the layout is impossible (overlaps, a tensor outside the file, a digest missing).
        """
        count = len(file.units) // (2 * DIGEST_BYTES)
        extents = [entry.extent() for entry in file.tensors]
        try:
            for entry, extent in zip(file.tensors, extents, strict=True):
                layout.check_extent(entry.name, extent, file.size, self.world_size)
            tiles = layout.tiles(extents, file.size, self.world_size, file.unit_bytes)
            units = list(itertools.islice(tiles, count + 1))
        except (*_IMPOSSIBLE, SliceError) as error:
            raise DamagedError(f"the layout in the manifest is impossible: {error}", where=file.name) from error
        if len(units) != count or len(file.units) % (2 * DIGEST_BYTES):
            raise DamagedError(f"the manifest has not one digest for each unit, but {count}", where=file.name)
        return units

    def binding(self, file: FileEntry) -> Binding:
        """What the digests of a file's units are bound to."""
        return Binding(self.run_id, self.step, self.attempt, file.name)


@dataclass(frozen=True)
class Sealed:
    """A manifest as read from disk, with its root digest (hexadecimal)."""

    body: Manifest
    root: str

    def check_run(self, run_id: str, name: str) -> None:
        """Refuse a generation that was copied here from another run.

        Raises:
            DamagedError: the run ids differ.
        """
        if self.body.run_id != run_id:
            what, hint = f"the generation belongs to another run{MISPLACED}", f"remove {name}: it was copied here"
            raise DamagedError(what, where=name, hint=hint, generation=name)

    def generation(self, run: Path, path: Path) -> Generation:
        """The public value for this manifest."""
        body = self.body
        return Generation(
            run=run,
            step=body.step,
            attempt=body.attempt,
            path=path,
            world_size=body.world_size,
            tensors={name: info for file in body.files for name, info in _infos(file)},
            parent=body.parent,
            created=body.created,
            root=self.root,
            nbytes=sum(file.size for file in body.files),
            write_path=body.write_path,
            read_back=body.read_back,
        )


def _infos(file: FileEntry) -> list[tuple[str, TensorInfo]]:
    infos = []
    for entry in file.tensors:
        extent = entry.extent()
        for name in (entry.name, *entry.aliases):
            info = TensorInfo(
                name,
                entry.dtype,
                extent.shape,
                entry.scope,
                file.name,
                entry.offset,
                extent.nbytes,
                entry.digest,
            )
            infos.append((name, info))
    return infos


def tensor_digest(units: list[bytes]) -> str:
    """A tensor's digest (hexadecimal): over the digests of its units in canonical order."""
    return f"{ALGORITHM}:{digest_of_digests(units).hex()}"


def encode(manifest: Manifest) -> bytes:
    """The bytes of the manifest's file."""
    body = json.dumps(msgspec.to_builtins(manifest), allow_nan=False, separators=(",", ":")).encode("ascii")
    return _HEAD + body + _MIDDLE + digest_bytes(body).hex().encode() + _TAIL


def decode(data: bytes, name: str) -> Sealed:
    """Read the manifest of generation `name` from the bytes of its file.

    Raises:
        DamagedError: a byte is wrong or missing, or the manifest belongs to another generation.
        FormatVersionError: it was written by another format version.
    """
    tail_length = len(_MIDDLE) + 2 * DIGEST_BYTES + len(_TAIL)
    body, tail = data[len(_HEAD) : -tail_length], data[-tail_length:]
    root = digest_bytes(body).hex()
    if data[: len(_HEAD)] != _HEAD or tail != _MIDDLE + root.encode() + _TAIL:
        raise DamagedError(
            "the manifest does not match its own digest", where=f"{name}/{MANIFEST_NAME}", generation=name
        )
    try:
        plain = json.loads(body)
        if isinstance(plain, dict) and plain.get("format_version") != FORMAT_VERSION:
            version = plain.get("format_version")
            raise FormatVersionError(
                f"format version {version!r}; this hpcresume reads version {FORMAT_VERSION}",
                where=name,
                hint="use the version of hpcresume that wrote it",
            )
        manifest = msgspec.convert(plain, Manifest)
        _check_plausible(manifest)
    except (*_IMPOSSIBLE, RecursionError, msgspec.ValidationError) as error:
        raise DamagedError(f"the manifest cannot be decoded: {error}", where=name, generation=name) from error
    if generation_name(manifest.step, manifest.attempt) != name:
        raise DamagedError(
            f"the manifest belongs to step {manifest.step} of attempt {manifest.attempt}{MISPLACED}",
            where=name,
            hint=f"remove {name}: it is a copy under another name, and nothing else is wrong",
            generation=name,
        )
    return Sealed(manifest, root)


def _check_plausible(manifest: Manifest) -> None:
    """What everybody who lists generations relies on; the layout is checked by those who read bytes.

    Raises:
        ValueError, TypeError: the manifest contradicts itself.
    """
    if manifest.world_size < 1 or len(manifest.rank_parts) not in (0, manifest.world_size):
        raise ValueError(f"{len(manifest.rank_parts)} rank-local parts of {manifest.world_size} ranks")
    if len(manifest.files) != 1 or not _DATA_FILE.fullmatch(manifest.files[0].name):
        raise ValueError("there must be one data file, named state.h5")
    for file in manifest.files:
        for entry in file.tensors:
            extent = entry.extent()
            if min(extent.shape, default=0) < 0 or not 0 <= extent.offset <= file.size - extent.nbytes:
                raise ValueError(f"{entry.name} leaves the file")
