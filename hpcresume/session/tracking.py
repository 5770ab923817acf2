"""Everything a session tracks, as one state tree, and back into the live objects.

Owns names and the order of restoring. Makes no vote: it raises locally, and the caller votes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hpcresume.checkpoint import arrays, fit, tree
from hpcresume.errors import (
    ModelChangedError,
    RestoreMismatchError,
    TrackingClosedError,
    UsageError,
    WorldSizeError,
)
from hpcresume.model import EveryRank, GlobalSlice, RankLocal
from hpcresume.session import rng
from hpcresume.session.adapters import Adapter, adapt
from hpcresume.session.streams import Batches

__all__ = ["Tracked"]


class Tracked:
    """The tracked objects, values and streams of one session.

    Attributes:
        closed: no more tracking; restoring has begun.
    """

    def __init__(self) -> None:
        self.closed = False
        self._objects: dict[str, Adapter] = {}
        self._values: dict[str, Any] = {}
        self._streams: dict[str, Batches] = {}

    def add(self, objects: Mapping[str, Any]) -> None:
        """Track objects under their names.

        Raises:
            TrackingClosedError: restoring has begun.
            UsageError: a name is taken.
            UntrackableError: an object of a kind that cannot be tracked.
        """
        self._check_open(", ".join(objects))
        for name in objects:
            self._check_free(name)
        adapted = {name: adapt(name, value) for name, value in objects.items()}
        for name, adapter in adapted.items():
            if adapter is None:
                self.set_value(name, objects[name])
            elif adapter.kind.endswith("container"):
                tree.flatten(adapter.capture(), (name,))
                self._objects[name] = adapter
            else:
                self._objects[name] = adapter

    def add_stream(self, stream: Batches) -> None:
        """Track the position of a stream. Raises as `add` does."""
        self._check_open(stream.name)
        if stream.name in self._streams:
            raise UsageError("there are batches of this name already", where=stream.name, hint="pass name=")
        self._streams[stream.name] = stream

    def free_stream_name(self) -> str:
        """`batches`, `batches-2`, `batches-3` …"""
        count = len(self._streams) + 1
        return "batches" if count == 1 else f"batches-{count}"

    def set_value(self, name: str, value: Any) -> None:
        """Set a tracked plain value.

        Raises:
            UsageError: the name is that of a tracked object.
            UntrackableError: the value is no plain one.
        """
        if name in self._objects:
            raise UsageError("this name is that of a tracked object", where=name, hint="another name")
        tree.flatten(value, (name,))
        wrapped = isinstance(self._values.get(name), RankLocal) and not isinstance(value, RankLocal)
        self._values[name] = RankLocal(value) if wrapped else value

    def value(self, name: str) -> Any:
        """A tracked plain value.

        Raises:
            UsageError: there is none of this name.
        """
        if name not in self._values:
            listed = ", ".join(map(repr, self._values)) or "there are none"
            raise UsageError(f"no value {name!r} is tracked", where="session", hint=listed)
        found = self._values[name]
        return found.value if isinstance(found, RankLocal) else found

    def describe(self) -> dict[str, Any]:
        """What is tracked, for comparing between ranks."""
        return {
            "objects": {name: adapter.kind for name, adapter in self._objects.items()},
            "values": sorted(self._values),
            "streams": {name: stream.describe() for name, stream in sorted(self._streams.items())},
        }

    def state(self, step: int, total_steps: int) -> dict[str, Any]:
        """The state tree as it is now, whatever the order of tracking; tensors in it are the live ones."""
        return {
            "objects": {name: adapter.capture() for name, adapter in sorted(self._objects.items())},
            "values": dict(sorted(self._values.items())),
            "streams": {name: stream.capture() for name, stream in sorted(self._streams.items())},
            "rng": RankLocal(rng.capture()),
            "session": {"step": step, "total_steps": total_steps},
        }

    def slices(self) -> dict[str, GlobalSlice]:
        """The blocks of global arrays that this rank wants, by tensor name."""
        found = {name: adapter.capture() for name, adapter in self._objects.items()}
        return fit.find_slices({"objects": found})

    def restore(self, state: Mapping[str, Any], generation: str) -> None:
        """Put a loaded state into the objects, but for the generators: those come last of all.

        Raises:
            ModelChangedError: names, structure or shapes differ; all of them are named.
            WorldSizeError: rank-local state of another world size.
            SampleCountError: a data set changed its length.
            ConfigError: the order of samples changed.
            RestoreMismatchError: an object took its state and then reports another one.
        """
        _refuse_foreign(state, generation)
        for part in ("objects", "values", "streams"):
            _refuse_other_world(state[part], (part,), generation)
        self._check_names(state, generation)
        expected = {name: adapter.expected() for name, adapter in self._objects.items()}
        known = {name: value for name, value in expected.items() if value is not None}
        fit.differences(known, {name: state["objects"][name] for name in known}, generation)
        for name, stream in self._streams.items():
            stream.check(state["streams"][name])
        self._put_back(state)

    def close(self) -> None:
        """Let go of what runs in the background."""
        for stream in self._streams.values():
            stream.close()

    def _put_back(self, state: Mapping[str, Any]) -> None:
        for name, adapter in self._objects.items():
            adapter.restore(state["objects"][name])
        for name, adapter in self._objects.items():
            _compare_bits(name, adapter.capture(), state["objects"][name])
        for name, stream in self._streams.items():
            stream.restore(state["streams"][name])
        for name, value in state["values"].items():
            self.set_value(name, value)

    def _check_names(self, state: Mapping[str, Any], generation: str) -> None:
        """A value may come and go; an object or a stream whose past is missing would silently start anew."""
        problems = []
        for part, ours in (("objects", self._objects), ("streams", self._streams)):
            missing = [name for name in ours if name not in state[part]]
            extra = [name for name in state[part] if name not in ours]
            problems += [f"{name!r} is tracked now and not in the generation" for name in missing]
            problems += [f"{name!r} is in the generation and not tracked now" for name in extra]
        if problems:
            more = f" and {len(problems) - 20} more" if len(problems) > 20 else ""
            raise ModelChangedError(
                "; ".join(problems[:20]) + more,
                where=generation,
                hint="track the same objects under the same names, or start a new run",
            )

    def _check_open(self, names: str) -> None:
        if self.closed:
            raise TrackingClosedError(
                "tracking has to be done before the loop over s.steps begins, which restores",
                where=names,
                hint="move s.track and s.batches above the loop",
            )

    def _check_free(self, name: str) -> None:
        if name in self._objects or name in self._values:
            raise UsageError("this name is tracked already", where=name, hint="another name")


def _refuse_foreign(state: Any, generation: str) -> None:
    """`hr.save` takes any tree; a session can only go on with one of its own."""
    if isinstance(state, dict) and state.keys() >= {"objects", "values", "streams", "rng", "session"}:
        return
    raise ModelChangedError(
        "this generation was not written by a session, so no training can go on with it",
        where=generation,
        hint="read it with hr.load, and let the session have a run directory of its own",
    )


def _refuse_other_world(value: Any, path: tuple[tree.Key, ...], generation: str) -> None:
    if isinstance(value, EveryRank):
        raise WorldSizeError(
            f"rank-local state was saved by {len(value)} ranks, which are not as many as now",
            where=f"{generation}: {tree.path_text(path)}",
            hint=f"run on {len(value)} ranks; global state alone can move to another number",
        )
    for key, child in _children(value):
        _refuse_other_world(child, (*path, key), generation)


def _children(value: Any) -> Iterator[tuple[tree.Key, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list | tuple):
        yield from enumerate(value)


def _compare_bits(name: str, now: Any, saved: Any) -> None:
    """What the object reports must be what it was given, dtypes included: some optimizers cast silently.

    Raises:
        RestoreMismatchError: names the first path that differs.
    """
    ours = {leaf.path: leaf.value for leaf in _leaves(now, name)}
    theirs = {leaf.path: leaf.value for leaf in _leaves(saved, name)}
    for path in [*theirs, *(path for path in ours if path not in theirs)]:
        if path not in ours or path not in theirs:
            how = "is gone" if path not in ours else "appeared"
        elif _bits(ours[path]) != _bits(theirs[path]):
            how = f"was saved as {_text(theirs[path])} and is now {_text(ours[path])}"
        else:
            continue
        raise RestoreMismatchError(
            f"after load_state_dict {tree.path_text(path)} {how}",
            where=name,
            hint="make load_state_dict keep values and dtypes exactly",
        )


def _leaves(value: Any, name: str) -> list[tree.Leaf]:
    unwrapped = value.value if isinstance(value, RankLocal) else value
    return tree.flatten(unwrapped, (name,))[1]


def _bits(value: Any) -> Any:
    value = value.array if isinstance(value, GlobalSlice) else value
    if arrays.is_array(value):
        library, dtype, shape = arrays.describe(value)
        return library, dtype, shape, arrays.as_bytes(value).tobytes()
    return tree.encode_plain(value)


def _text(value: Any) -> str:
    value = value.array if isinstance(value, GlobalSlice) else value
    if arrays.is_array(value):
        library, dtype, shape = arrays.describe(value)
        return f"a {library} {dtype} of shape {shape}"
    return repr(value)[:60]
