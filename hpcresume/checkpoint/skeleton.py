"""The HDF5 skeleton: every dataset laid out, none filled. The only module that imports h5py.

Contiguous layout, allocated early, never filled, so that `get_offset` gives each dataset's place and any
writer may fill it after the file is closed (HDF5 reference: H5Dget_offset, H5Pset_alloc_time, H5Pset_fill_time).
It is laid out in memory, so libhdf5 never meets the disk.
Library bounds are fixed at 1.10, so that tools of that age (Debian's h5dump) read what newer ones wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5f, h5fd, h5p, h5s, h5t

from hpcresume.checkpoint.image import SparseImage
from hpcresume.checkpoint.layout import Extent

__all__ = ["create_skeleton", "hdf5_type"]

_ALIGN_FROM = 64 << 10
_ALIGN_TO = 4096
"""Datasets of 64 KiB and more begin on a page, as direct and collective I/O like it."""

_FLOATS = {
    "bfloat16": (2, 15, 7, 8, 0, 7, 127),
    "float8_e4m3fn": (1, 7, 3, 4, 0, 3, 7),
    "float8_e4m3fnuz": (1, 7, 3, 4, 0, 3, 8),
    "float8_e5m2": (1, 7, 2, 5, 0, 2, 15),
    "float8_e5m2fnuz": (1, 7, 2, 5, 0, 2, 16),
}
"""Size, sign position, exponent position and size, mantissa position and size, exponent bias."""


def _float_type(label: str) -> Any:
    size, sign, exponent_at, exponent_bits, mantissa_at, mantissa_bits, bias = _FLOATS[label]
    kind = h5t.IEEE_F32LE.copy()
    kind.set_fields(sign, exponent_at, exponent_bits, mantissa_at, mantissa_bits)
    kind.set_size(size)
    kind.set_precision(size * 8)
    kind.set_ebias(bias)
    return kind


def _complex_type(part: Any, size: int) -> Any:
    kind = h5t.create(h5t.COMPOUND, 2 * size)
    kind.insert(b"r", 0, part)
    kind.insert(b"i", size, part)
    return kind


def hdf5_type(library: str, label: str) -> Any:
    """The HDF5 type of a dtype. Types that HDF5 cannot express (float8_e8m0fnu, packed float4) are plain bytes."""
    if library == "torch" and label in _FLOATS:
        return _float_type(label)
    if library == "torch" and label == "complex32":
        return _complex_type(h5t.IEEE_F16LE, 2)
    if library == "torch" and label in ("float8_e8m0fnu", "float4_e2m1fn_x2"):
        return h5t.STD_U8LE
    return h5t.py_create(np.dtype(label), logical=True)


def _access_list(image: SparseImage) -> Any:
    fapl = h5p.create(h5p.FILE_ACCESS)
    fapl.set_libver_bounds(h5f.LIBVER_V110, h5f.LIBVER_V110)
    fapl.set_alignment(_ALIGN_FROM, _ALIGN_TO)
    fapl.set_fileobj_driver(h5fd.fileobj_driver, image)
    return fapl


def _creation_list() -> Any:
    dcpl = h5p.create(h5p.DATASET_CREATE)
    dcpl.set_layout(h5d.CONTIGUOUS)
    dcpl.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    dcpl.set_fill_time(h5d.FILL_TIME_NEVER)
    dcpl.set_obj_track_times(False)
    return dcpl


def create_skeleton(
    datasets: Sequence[tuple[str, Extent, Sequence[str]]], attributes: Mapping[str, str | int]
) -> tuple[SparseImage, list[int]]:
    """Lay out the datasets (name, extent, aliases) in a new file in memory; return it and each one's byte offset.

    The offset of an empty dataset is 0.

    Raises:
        ValueError, RuntimeError, OSError: libhdf5 refuses a name or shape.
    """
    image = SparseImage()
    links = h5p.create(h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    links.set_char_encoding(h5t.CSET_UTF8)
    creation = _creation_list()
    times = h5p.create(h5p.FILE_CREATE)
    times.set_obj_track_times(False)  # equal content gives equal bytes
    # Closed by the high-level object, which closes every identifier: only then does libhdf5 write the rest.
    with h5py.File(h5f.create(b"skeleton", h5f.ACC_TRUNC, fcpl=times, fapl=_access_list(image))) as root:
        types = {key: hdf5_type(*key) for key in {(e.library, e.dtype) for _, e, _ in datasets}}
        offsets = []
        for name, extent, aliases in datasets:
            space = h5s.create_simple(extent.shape) if extent.shape else h5s.create(h5s.SCALAR)
            kind = types[extent.library, extent.dtype]
            dataset = h5d.create(root.id, name.encode(), kind, space, creation, links)
            for alias in aliases:
                root.id.links.create_hard(alias.encode(), root.id, name.encode(), lcpl=links)
            offsets.append(dataset.get_offset() or 0)
        for key, value in attributes.items():
            root.attrs[key] = value
    return image, offsets
