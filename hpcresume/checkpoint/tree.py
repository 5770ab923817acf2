"""The state tree: taking a nested state apart into leaves and putting it together again.

Knows which Python values may be saved and how plain ones become typed JSON. Knows no file and no rank.
Anything that is not listed in `flatten` is refused with its path, so nothing is ever saved by guess.
"""

from __future__ import annotations

import base64
import math
import re
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcresume.checkpoint import arrays
from hpcresume.errors import DamagedError, UntrackableError
from hpcresume.model import GlobalSlice, RankLocal

__all__ = ["Key", "Leaf", "decode_plain", "encode_plain", "flatten", "path_name", "path_text", "unflatten"]

Key = str | int
MAX_DEPTH = 100
"""Deeper trees are refused: no optimizer or model nests so far, and a cycle would never end."""

_MAPPINGS: dict[type[dict[Any, Any]], str] = {dict: "dict", OrderedDict: "odict", Counter: "counter"}
"""Counter is what torch's MultiStepLR keeps its milestones in."""
_MAKERS = {name: make for make, name in _MAPPINGS.items()}

_INTEGER_LIKE = re.compile(r"-?[0-9]+")
_UNSAFE = re.compile(r"[%/\x00]|^@")
_JSON_SAFE_INT = 1 << 53
_DECIMAL_KEYS = 10**30
_MAX_KEY_BYTES = 1 << 15
"""HDF5 keeps the name of a link in one message of its header, of at most 64 KiB (file format, IV.A.2.g)."""
_UNDECODABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)
"""What decoding something that we have not written can raise (numpy's dtype parser even SyntaxError)."""


@dataclass(frozen=True)
class Leaf:
    """One value of the tree: `kind` is plain, array, sliced or local; `path` leads to it from the root."""

    path: tuple[Key, ...]
    kind: str
    value: Any

    @property
    def nbytes(self) -> int:
        """Bytes of bulk data: of the array or slice, of all that are in a rank-local value."""
        if self.kind == "local":
            return sum(leaf.nbytes for leaf in flatten(self.value)[1])
        array = self.value.array if self.kind == "sliced" else self.value
        return int(array.nbytes) if self.kind in ("array", "sliced") else 0


def path_text(path: Iterable[Key]) -> str:
    """A path as a person writes it in Python: `optimizer['state'][0]`."""
    parts = list(path)
    if not parts:
        return "the root of the state"
    first = parts[0] if isinstance(parts[0], str) else _key_text(parts[0])
    return first + "".join(f"[{_key_text(key)}]" for key in parts[1:])


def _key_text(key: Key) -> str:
    """As `repr`, also of integers so long that Python refuses to write them (sys.set_int_max_str_digits)."""
    return hex(key) if isinstance(key, int) and abs(key) > _DECIMAL_KEYS else repr(key)


def _escape(key: Key) -> str:
    if isinstance(key, int):
        return str(key) if abs(key) <= _DECIMAL_KEYS else f"%i{hex(key)}"
    if key in ("", ".", ".."):
        return "%" + "".join(f"{ord(c):02X}" for c in key)
    if _INTEGER_LIKE.fullmatch(key):
        return f"%{ord(key[0]):02X}{key[1:]}"
    escaped = _UNSAFE.sub(lambda m: f"%{ord(m[0]):02X}", key)
    return "".join(c if not 0xD800 <= ord(c) <= 0xDFFF else f"%{ord(c):04X}" for c in escaped)


def path_name(path: Iterable[Key]) -> str:
    """The HDF5 name of a leaf: keys joined by `/`, unsafe characters percent-encoded, one name per path."""
    return "/".join(_escape(key) for key in path) or "@value"


def _float_bits(value: float) -> str:
    return struct.pack(">d", value).hex()


def encode_plain(value: Any) -> Any:
    """Typed JSON of a plain value; exact for every float, NaN payloads and infinities included.

    Raises:
        TypeError: the value is of no plain type.
    """
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if abs(value) < _JSON_SAFE_INT else {"int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"float": _float_bits(value)}
    if kind is complex:
        return {"complex": [_float_bits(value.real), _float_bits(value.imag)]}
    if kind is bytes:
        return {"bytes": base64.b64encode(value).decode("ascii")}
    if isinstance(value, np.generic) and value.dtype.kind in "biufc":
        return {"numpy": [value.dtype.str, value.tobytes().hex()]}
    raise TypeError(kind.__name__)


def _decode_float(bits: str) -> float:
    return float(struct.unpack(">d", bytes.fromhex(bits))[0])


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda text: int(text, 16),
    "float": _decode_float,
    "complex": lambda pair: complex(_decode_float(pair[0]), _decode_float(pair[1])),
    "bytes": lambda text: base64.b64decode(text, validate=True),
    "numpy": lambda pair: np.frombuffer(bytes.fromhex(pair[1]), dtype=arrays.numpy_dtype(pair[0]))[0],
}


def decode_plain(node: Any) -> Any:
    """The inverse of `encode_plain`.

    Raises:
        DamagedError: the node was not written by `encode_plain`.
    """
    if not isinstance(node, dict):
        return node
    try:
        ((kind, content),) = node.items()
        return _DECODERS[kind](content)
    except _UNDECODABLE as error:
        raise DamagedError(f"a plain value cannot be decoded: {node!r:.80}") from error


def _refuse(path: tuple[Key, ...], what: str) -> UntrackableError:
    return UntrackableError(
        what,
        where=path_text(path),
        hint="save tensors, numpy arrays, None, bool, int, float, complex, str, bytes, and dict, list or tuple of them",
    )


class _Flattener:
    def __init__(self) -> None:
        self.leaves: list[Leaf] = []

    def leaf(self, path: tuple[Key, ...], kind: str, value: Any) -> int:
        self.leaves.append(Leaf(path, kind, value))
        return len(self.leaves) - 1

    def node(self, value: Any, path: tuple[Key, ...]) -> Any:
        if len(path) > MAX_DEPTH:
            raise _refuse(path[:3], f"the state is nested deeper than {MAX_DEPTH} levels, or contains itself")
        kind = type(value)
        if kind in _MAPPINGS:
            return {_MAPPINGS[kind]: [self.item(k, v, path) for k, v in value.items()]}
        if kind is list or kind is tuple:
            return {kind.__name__: [self.node(v, (*path, i)) for i, v in enumerate(value)]}
        if kind is RankLocal:
            return self.leaf(path, "local", value.value)
        if kind is GlobalSlice:
            self.check_array(value.array, path)
            self.check_slice(value, path)
            return self.leaf(path, "sliced", value)
        if arrays.is_array(value):
            self.check_array(value, path)
            return self.leaf(path, "array", value)
        try:
            encode_plain(value)
        except TypeError:
            raise _refuse(path, f"a value of type {_type_name(value)} cannot be saved") from None
        return self.leaf(path, "plain", value)

    def item(self, key: Any, value: Any, path: tuple[Key, ...]) -> list[Any]:
        if type(key) is not str and type(key) is not int:
            raise _refuse(path, f"a key of type {_type_name(key)} cannot be saved: {key!r:.60}")
        if len(_escape(key)) > _MAX_KEY_BYTES:
            raise _refuse(path, f"a key of {len(_escape(key))} characters is too long for a name in the file")
        return [encode_plain(key), self.node(value, (*path, key))]

    def check_array(self, value: Any, path: tuple[Key, ...]) -> None:
        problem = arrays.refusal(value)
        if problem:
            raise _refuse(path, problem)

    def check_slice(self, value: GlobalSlice, path: tuple[Key, ...]) -> None:
        given: dict[str, Any] = {"shape": value.shape, "start": value.start}
        for what, numbers in given.items():
            if not isinstance(numbers, Sequence) or not all(isinstance(n, int | np.integer) for n in numbers):
                raise _refuse(path, f"the {what} of a GlobalSlice is a tuple of whole numbers, not {numbers!r:.60}")


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def flatten(state: Any, prefix: tuple[Key, ...] = ()) -> tuple[Any, list[Leaf]]:
    """Take a state apart: a JSON structure whose integers are indices into the list of leaves.

    Raises:
        UntrackableError: a value or key of a kind that is refused, with its path.
    """
    flattener = _Flattener()
    structure = flattener.node(state, prefix)
    return structure, flattener.leaves


def unflatten(structure: Any, leaf: Callable[[int], Any], depth: int = 0) -> Any:
    """Put a state together again; `leaf(i)` gives the value of leaf i, and may raise what it likes.

    Raises:
        DamagedError: the structure was not written by `flatten`.
    """
    if type(structure) is int and structure >= 0:
        return leaf(structure)
    kind, keys, children = _container(structure, depth)
    values = [unflatten(child, leaf, depth + 1) for child in children]
    if kind == "list":
        return values
    if kind == "tuple":
        return tuple(values)
    pairs = zip(keys, values, strict=True)
    return _MAKERS[kind](dict(pairs))


def _container(node: Any, depth: int) -> tuple[str, list[Key], list[Any]]:
    """Kind, keys and children of an inner node."""
    try:
        ((kind, children),) = node.items()
        if kind not in ("list", "tuple", *_MAKERS) or type(children) is not list or depth > MAX_DEPTH:
            raise ValueError(kind)
        if kind in ("list", "tuple"):
            return kind, [], children
        keys = [decode_plain(key) for key, _ in children]
        if not all(type(key) in (str, int) for key in keys):
            raise TypeError("a key is neither str nor int")
        return kind, keys, [child for _, child in children]
    except _UNDECODABLE as error:
        raise DamagedError(f"the structure of the state cannot be decoded: {node!r:.80}") from error
