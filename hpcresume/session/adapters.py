"""How each kind of tracked object gives its state and takes it back. One class a kind, chosen by `adapt`.

Knows no rank, no file and no vote.
"""

from __future__ import annotations

import sys
from typing import Any, Protocol

from hpcresume.checkpoint import arrays, fit
from hpcresume.errors import HpcresumeError, ModelChangedError, UntrackableError
from hpcresume.model import GlobalSlice, RankLocal

__all__ = ["Adapter", "adapt"]


class Adapter(Protocol):
    """One tracked object."""

    kind: str

    def capture(self) -> Any:
        """Its state, as a state tree."""

    def expected(self) -> Any:
        """A tree of the structure and shapes that a saved state must have, or None when anything fits."""

    def restore(self, saved: Any) -> None:
        """Take the state back, in place."""


def adapt(name: str, value: Any) -> Adapter | None:
    """The adapter for `value`, or None when it is a plain value that has no identity to restore in place.

    Raises:
        UntrackableError: it is of no kind that can be tracked.
    """
    if isinstance(value, RankLocal):
        inner = adapt(name, value.value)
        return None if inner is None else _OfOneRank(inner)
    if callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None)):
        return _Module(name, value) if _is_module(value) else _Stateful(name, value)
    if isinstance(value, GlobalSlice) or arrays.is_array(value):
        return _InPlace(value)
    if isinstance(value, dict | list):
        return _Container(value)
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | tuple):
        return None
    if _is_numpy_scalar(value):
        return None
    raise UntrackableError(
        f"an object of type {type(value).__qualname__} cannot be tracked",
        where=name,
        hint="track an object with state_dict and load_state_dict, a tensor, an array, a dict, a list, "
        "or a plain value",
    )


def _is_module(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def _is_numpy_scalar(value: Any) -> bool:
    import numpy as np

    return isinstance(value, np.generic)


class _Stateful:
    """Anything with `state_dict` and `load_state_dict`: optimizers, schedulers, scalers, your own.

    Its structure is not compared beforehand: a fresh optimizer has no moments yet and gets them on loading.
    """

    kind = "stateful"

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value

    def capture(self) -> Any:
        return self.value.state_dict()

    def expected(self) -> Any:
        return None

    def restore(self, saved: Any) -> None:
        try:
            self.value.load_state_dict(saved)
        except HpcresumeError:
            raise
        except Exception as error:  # whatever a user's class raises: it did not take its state
            raise ModelChangedError(
                f"{type(self.value).__name__}.load_state_dict refused: {type(error).__name__}: {error}",
                where=self.name,
                hint="build it as it was when the generation was saved",
            ) from error


class _Module(_Stateful):
    """A torch module: names and shapes are compared before anything is loaded."""

    kind = "module"

    def expected(self) -> Any:
        return self.value.state_dict()


class _InPlace:
    """A tensor, an array, or this rank's block of a global array."""

    kind = "array"

    def __init__(self, value: Any) -> None:
        self.value = value
        if isinstance(value, GlobalSlice):
            self.kind = "slice"

    def capture(self) -> Any:
        return self.value

    def expected(self) -> Any:
        return self.value

    def restore(self, saved: Any) -> None:
        fit.fill(self.value, saved)


class _Container:
    """A dict or list: filled in place, and so are its tensors and arrays where the saved ones fit them."""

    kind = "container"

    def __init__(self, value: Any) -> None:
        self.value = value

    def capture(self) -> Any:
        return self.value

    def expected(self) -> Any:
        return None

    def restore(self, saved: Any) -> None:
        _put(self.value, saved)


class _OfOneRank:
    """Whatever belongs to this rank alone."""

    def __init__(self, inner: Adapter) -> None:
        self.inner = inner
        self.kind = f"rank-local {inner.kind}"

    def capture(self) -> Any:
        return RankLocal(self.inner.capture())

    def expected(self) -> Any:
        return self.inner.expected()

    def restore(self, saved: Any) -> None:
        self.inner.restore(saved)


def _put(target: Any, saved: Any) -> Any:
    """`saved`, but through the objects that are in `target` already wherever they can hold it."""
    if isinstance(target, dict) and isinstance(saved, dict):
        merged = {key: _put(target.get(key), value) for key, value in saved.items()}
        target.clear()
        target.update(merged)
        return target
    if isinstance(target, list) and isinstance(saved, list):
        target[:] = [_put(target[i] if i < len(target) else None, value) for i, value in enumerate(saved)]
        return target
    if isinstance(target, GlobalSlice) or _holds(target, saved):
        return fit.fill(target, saved)
    return RankLocal(_put(target.value, saved)) if isinstance(target, RankLocal) else saved


def _holds(target: Any, saved: Any) -> bool:
    if not (arrays.is_array(target) and arrays.is_array(saved)):
        return False
    return bool(arrays.describe(target)[1:] == arrays.describe(saved)[1:])
