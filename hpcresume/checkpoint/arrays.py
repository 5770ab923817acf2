"""Torch tensors and numpy arrays as flat bytes, and back. The only module of checkpoint/ that imports torch.

torch is imported only when a torch tensor is to be made; a tensor can reach us only when the caller has
imported torch, so recognising one needs no import.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcresume.errors import ConfigError

__all__ = [
    "FlatBytes",
    "as_bytes",
    "copy_into",
    "describe",
    "identity",
    "is_array",
    "item_size",
    "new_array",
    "numpy_dtype",
    "refusal",
    "unwritable",
]

Bytes = npt.NDArray[np.uint8]

_TORCH_DTYPES = frozenset(
    {
        "bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64",
        "float16", "bfloat16", "float32", "float64", "complex32", "complex64", "complex128",
        "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
        "float4_e2m1fn_x2",
    }
)  # fmt: skip
"""Every dtype whose elements are whole bytes. Quantized dtypes carry scales that are not in the bytes."""


def _torch() -> Any:
    return sys.modules.get("torch")


def _is_tensor(value: Any) -> bool:
    torch = _torch()
    return torch is not None and isinstance(value, torch.Tensor)


_NUMPY_LABEL = re.compile(r"bool|(u?int|float|complex)[0-9]+|longdouble|clongdouble|[<>|][biufc][0-9]+")
"""What `dtype.name` and `dtype.str` give for the kinds that are saved."""
_PLAIN_TENSORS = frozenset({"Tensor", "Parameter", "Buffer"})


def is_array(value: Any) -> bool:
    """True for torch tensors and numpy arrays (subclasses too: `refusal` says which are refused)."""
    return isinstance(value, np.ndarray) or _is_tensor(value)


def refusal(value: Any) -> str:
    """Why this array cannot be saved, or "" when it can."""
    if not is_array(value):
        return f"a {type(value).__name__} is no tensor or array"
    return _tensor_refusal(value) if _is_tensor(value) else _numpy_refusal(value)


def _tensor_refusal(value: Any) -> str:
    torch = _torch()
    if type(value).__module__.partition(".")[0] != "torch" or type(value).__name__ not in _PLAIN_TENSORS:
        return f"a tensor of class {type(value).__name__} cannot be saved"
    if value.layout is not torch.strided:
        return f"a tensor of layout {value.layout} cannot be saved"
    if value.device.type == "meta":
        return "a tensor on the meta device has no data"
    if value.is_nested:
        return "a nested tensor cannot be saved"
    if value.is_quantized or _torch_label(value.dtype) not in _TORCH_DTYPES:
        return f"a tensor of dtype {value.dtype} cannot be saved"
    return ""


def _numpy_refusal(value: npt.NDArray[Any]) -> str:
    if type(value) is not np.ndarray:
        return f"an array of class {type(value).__name__} cannot be saved"
    if value.dtype.kind not in "biufc" or value.dtype.fields is not None:
        return f"an array of dtype {value.dtype} cannot be saved"
    return ""


def _torch_label(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def describe(value: Any) -> tuple[str, str, tuple[int, ...]]:
    """Library (torch or numpy), dtype label and shape of an array."""
    if _is_tensor(value):
        return "torch", _torch_label(value.dtype), tuple(value.shape)
    dtype = value.dtype
    return "numpy", dtype.name if dtype.isnative else dtype.str, tuple(value.shape)


def numpy_dtype(label: Any) -> np.dtype[Any]:
    """The dtype of this name, of the kinds that are saved.

    Raises:
        TypeError: no such dtype; numpy's grammar of structured ones is not even tried.
    """
    dtype = np.dtype(label) if isinstance(label, str) and _NUMPY_LABEL.fullmatch(label) else None
    if dtype is None or dtype.kind not in "biufc":
        raise TypeError(f"no numpy dtype {label!r:.60}")
    return dtype


@functools.lru_cache(maxsize=256)
def item_size(library: str, label: str) -> int:
    """Bytes of one element.

    Raises:
        TypeError: no such dtype.
    """
    if library == "torch":
        sizes = {"bool": 1, "bfloat16": 2, "complex32": 4, "float4_e2m1fn_x2": 1}
        if label not in _TORCH_DTYPES:
            raise TypeError(f"no torch dtype {label!r}")
        if label in sizes:
            return sizes[label]
        return 1 if label.startswith("float8") else np.dtype(label).itemsize
    if library != "numpy":
        raise TypeError(f"no library of arrays {library!r:.60}")
    return numpy_dtype(label).itemsize


def identity(value: Any) -> tuple[Any, ...] | None:
    """A key equal for two names of the very same elements (tied weights); None when it cannot be told."""
    if not _is_tensor(value):
        interface = value.__array_interface__
        return ("numpy", interface["data"][0], value.shape, value.strides, value.dtype.str) if value.size else None
    if value.numel() == 0:
        return None
    flags = (value.is_conj(), value.is_neg())
    return (
        "torch",
        value.data_ptr(),
        tuple(value.shape),
        value.stride(),
        str(value.dtype),
        str(value.device),
        flags,
    )


def as_bytes(value: Any) -> Bytes:
    """The elements in C order as a flat uint8 array; a view where the memory allows, else a copy on the host."""
    if _is_tensor(value):
        torch = _torch()
        if value.numel() == 0:  # may have strides that `view` refuses
            return np.empty(0, dtype=np.uint8)
        tensor = value.detach().resolve_conj().resolve_neg().contiguous().cpu()
        result: Bytes = tensor.reshape(-1).view(torch.uint8).numpy()
        return result
    return np.ascontiguousarray(value).reshape(-1).view(np.uint8)


def new_array(library: str, label: str, shape: tuple[int, ...], data: Bytes) -> Any:
    """An array of the given kind that owns `data` (flat bytes, C order). Torch tensors lie on the CPU.

    Raises:
        ConfigError: torch is not installed, or too old to know the dtype.
        TypeError: no such dtype.
        ValueError: `data` has the wrong length.
    """
    if library == "numpy":
        return data.view(numpy_dtype(label)).reshape(shape)
    try:
        import torch
    except ImportError as error:
        raise ConfigError("the state holds torch tensors and torch cannot be imported", hint="install torch") from error
    dtype = getattr(torch, label, None)
    if not isinstance(dtype, torch.dtype):
        raise ConfigError(f"torch {torch.__version__} knows no dtype {label!r:.60}", hint="install a newer torch")
    if data.size == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.from_numpy(data).view(dtype).reshape(shape)


def unwritable(value: Any) -> str:
    """Why this array cannot be filled in place, or "" when it can."""
    problem = refusal(value)
    if problem:
        return problem
    tensor = _is_tensor(value)
    if not tensor and not value.flags.writeable:
        return "it is read-only"
    if tensor and value.is_inference() and not _torch().is_inference_mode_enabled():
        return "it was made in inference mode"
    strides = value.stride() if tensor else [stride // value.itemsize for stride in value.strides]
    if 0 not in value.shape and _share_memory(value.shape, strides):
        return "its elements share memory, as expand() leaves them"
    return ""


def _share_memory(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether two indices may lie in the same place. Never False when they do; arrays as anybody makes them are told
    exactly (each axis steps over all that the shorter steps reach).
    """
    reach = 0
    for stride, size in sorted((abs(stride), size) for stride, size in zip(strides, shape, strict=True) if size > 1):
        if stride <= reach:
            return True
        reach += stride * (size - 1)
    return False


def copy_into(target: Any, source: Any) -> None:
    """Copy `source` bit for bit into `target`, of equal dtype and shape, wherever `target` lies."""
    if _is_tensor(target):
        torch = _torch()
        with torch.no_grad():
            target.copy_(source if _is_tensor(source) else torch.from_numpy(source))
        return
    np.copyto(target, source if not _is_tensor(source) else source.numpy(), casting="no")


class FlatBytes:
    """Bytes of one array by position, without copying more of it to the host than is asked for.

    A contiguous tensor on an accelerator is moved piece by piece; a non-contiguous one is packed once.
    """

    def __init__(self, value: Any) -> None:
        if _is_tensor(value):
            self._flat = value.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
            self._item = self._flat.element_size()
        else:
            self._flat = np.ascontiguousarray(value).reshape(-1)
            self._item = self._flat.itemsize

    def read(self, start: int, length: int) -> Bytes:
        """Bytes [start, start + length) in C order."""
        first, last = start // self._item, -(-(start + length) // self._item)
        packed = as_bytes(self._flat[first:last])
        skip = start - first * self._item
        return packed[skip : skip + length]
