"""Check and read a generation with nothing but h5py and xxhash: python read_without_hpcresume.py GENERATION

A second, independent reading of docs/FORMAT.md. Exits 1 and names the offset when a byte is wrong.
"""

import json
import math
import pathlib
import sys

import h5py
import numpy as np
import xxhash

MAX_UNIT = 4 << 20
SIZES = {"bool": 1, "bfloat16": 2, "complex32": 4, "float4_e2m1fn_x2": 1}


def item_size(dtype):
    if dtype.startswith("float8"):
        return 1
    return SIZES.get(dtype) or np.dtype(dtype).itemsize


def pieces(offset, length, size):
    return [[(offset + at, min(size, length - at))] for at in range(0, length, size)]


def block_units(tensor, start, shape, item):
    """Runs of one rank's block of a global array, grouped into units of at most 4 MiB."""
    if math.prod(shape) == 0:
        return []
    total, cut = tensor["shape"], len(shape)
    while cut and shape[cut - 1] == total[cut - 1]:
        cut -= 1
    cut = max(cut - 1, 0)
    run = math.prod(shape[cut:]) * item
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape[:cut]], indexing="ij"), -1).reshape(-1, cut)
    stride = [math.prod(total[axis + 1 :]) * item for axis in range(len(total))]
    first = tensor["offset"] + sum(s * n for s, n in zip(start, stride, strict=True))
    places = [first + int(sum(i * n for i, n in zip(row, stride, strict=False))) for row in index] or [first]
    inner = shape[cut - 1] if cut else 1
    units = []
    for begin in range(0, len(places), inner):
        row = places[begin : begin + inner]
        if inner == 1 or row[1] - row[0] == run:
            units += pieces(row[0], run * inner, MAX_UNIT)
        elif run >= MAX_UNIT:
            units += [piece for place in row for piece in pieces(place, run, MAX_UNIT)]
        else:
            group = MAX_UNIT // run
            units += [[(place, run) for place in row[i : i + group]] for i in range(0, inner, group)]
    return units


def units_of(file):
    """Every unit of a file in canonical order, each a list of (offset, length)."""
    units, extents = [], []
    for tensor in file["tensors"]:
        item = item_size(tensor["dtype"])
        nbytes = math.prod(tensor["shape"]) * item
        extents.append((tensor["offset"], nbytes))
        if tensor["scope"] == "sliced":
            for start, shape in tensor["blocks"]:
                units += block_units(tensor, start, shape, item)
        elif tensor["scope"] == "per-rank":
            row = nbytes // tensor["shape"][0]
            for rank in range(tensor["shape"][0]):
                units += pieces(tensor["offset"] + rank * row, row, MAX_UNIT)
        else:
            size = file["unit_bytes"] if tensor["scope"] == "replicated" else MAX_UNIT
            units += pieces(tensor["offset"], nbytes, size)
    position = 0
    for offset, length in [*sorted(e for e in extents if e[1]), (file["size"], 0)]:
        units += pieces(position, offset - position, MAX_UNIT)
        position = offset + length
    return units


def main(generation):
    text = (generation / "manifest.json").read_bytes()
    body, digest = text[len(b'{"manifest":') :].rsplit(b',"digest":"xxh3-128:', 1)
    assert digest == xxhash.xxh3_128_hexdigest(body).encode() + b'"}\n', "the manifest is damaged"
    manifest = json.loads(body)
    for file in manifest["files"]:
        data = (generation / file["name"]).read_bytes()
        units = units_of(file)
        assert len(data) == file["size"] and len(file["units"]) == 32 * len(units), "bytes or digests are missing"
        for number, unit in enumerate(units):
            place = [manifest["run_id"], manifest["step"], manifest["attempt"], file["name"], unit[0][0]]
            seed = xxhash.xxh3_64_intdigest("\0".join(map(str, place)).encode())
            content = b"".join(data[offset : offset + length] for offset, length in unit)
            if xxhash.xxh3_128_hexdigest(content, seed=seed) != file["units"][32 * number : 32 * number + 32]:
                sys.exit(f"{file['name']}: bytes from {unit[0][0]} do not match their digest")
        with h5py.File(generation / file["name"]) as hdf5:
            hdf5.visititems(lambda name, item: print(name, getattr(item, "dtype", ""), getattr(item, "shape", "")))
    print(f"{generation.name}: every byte matches")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
