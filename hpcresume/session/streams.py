"""`s.batches`: an endless stream of batches whose position is part of the state.

Owns the position, counted in samples handed out over all ranks. Knows no vote and no file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Final

from hpcresume.errors import ConfigError, NonFiniteError, SampleCountError
from hpcresume.policy.samples import SampleOrder
from hpcresume.session.fetching import FetchOptions, Numbered, fetch_batches

__all__ = ["Batches", "check_dataset", "check_stream_options", "refuse_options"]

_REFUSED: Final = {
    "drop_last": "nothing is dropped: a batch that reaches the end of an epoch goes on with the next one",
    "persistent_workers": "leave it out: the stream never ends, and neither do its workers",
    "sampler": "leave it out: the order is the session's, so that it can be resumed",
    "batch_sampler": "leave it out: the order is the session's, so that it can be resumed",
    "generator": "pass seed=; the order depends on it alone",
    "in_order": "leave it out: batches always come in order",
}


def refuse_options(options: dict[str, object]) -> None:
    """Explain what DataLoader takes and a resumable stream cannot.

    Raises:
        ConfigError: there is any option in `options`.
    """
    for name in options:
        hint = _REFUSED.get(name, "see help(hpcresume.Session.batches)")
        raise ConfigError(f"batches takes no option {name}", where="batches", hint=hint)


def check_dataset(dataset: Any) -> int:
    """Length of a map-style data set.

    Raises:
        ConfigError: it has no length or no items by index, or it is empty.
    """
    hint = "pass a data set with __len__ and __getitem__; draw from a stream yourself and track its position"
    try:
        n = len(dataset)
    except (TypeError, NotImplementedError):
        raise ConfigError(f"{type(dataset).__name__} has no length", where="batches", hint=hint) from None
    if not hasattr(dataset, "__getitem__"):
        raise ConfigError(f"{type(dataset).__name__} has no items by index", where="batches", hint=hint)
    if n <= 0:
        raise ConfigError("the data set is empty", where="batches", hint="check its path")
    return n


def check_stream_options(batch_size: object, seed: object, num_workers: object) -> None:
    """Refuse numbers that cannot be meant.

    Raises:
        ConfigError: names the option.
    """
    for name, value, least, most in (
        ("batch_size", batch_size, 1, math.inf),
        ("seed", seed, 0, 2**64 - 1),
        ("num_workers", num_workers, 0, math.inf),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            kind = NonFiniteError if isinstance(value, float) and not math.isfinite(value) else ConfigError
            raise kind(f"{name}={value!r} is no whole number from {least}", where="batches", hint=f"{name}={least}")


class Batches(Iterator[Any]):
    """An endless iterator over this rank's part of each global batch.

    Global batch b is the next world_size × batch_size samples of the order; rank r takes the contiguous part
    [r × batch_size, (r + 1) × batch_size) of it. Only what `next` has handed out counts, not what workers
    have prefetched. Every rank has to take as many batches in a step as every other.

    Attributes:
        name: what it is called in the state.
        position: samples handed out so far, over all ranks and all epochs.
    """

    def __init__(
        self,
        name: str,
        dataset: Any,
        order: SampleOrder,
        *,
        batch_size: int,
        rank: int,
        world_size: int,
        gate: Callable[[str], None],
        options: FetchOptions,
    ) -> None:
        self.name = name
        self.position = 0
        self._dataset = dataset
        self._order = order
        self._batch_size = batch_size
        self._rank = rank
        self._world_size = world_size
        self._gate = gate
        self._options = options
        self._source: Iterator[Any] | None = None

    def __next__(self) -> Any:
        """The next batch, collated.

        Raises:
            UsageError: outside the loop over `steps`, where the position is not known or does not count.
        """
        self._gate(f"next() of the batches {self.name!r}")
        if self._source is None:
            self._source = fetch_batches(self._dataset, self._order.seed, self._shares(), self._options)
        batch = next(self._source)
        self.position += self._world_size * self._batch_size
        return batch

    @property
    def epoch(self) -> int:
        """The epoch of the next sample."""
        return self.position // self._order.n

    def capture(self) -> dict[str, Any]:
        """The position and what gives it its meaning; the same on every rank."""
        order = self._order
        return {"position": self.position, "n": order.n, "seed": order.seed, "shuffle": order.shuffle}

    def describe(self) -> dict[str, Any]:
        """What has to be the same on every rank, so that together they take each sample once."""
        order = self._order
        return {"n": order.n, "seed": order.seed, "shuffle": order.shuffle, "batch_size": self._batch_size}

    def check(self, saved: dict[str, Any]) -> None:
        """Refuse a position in another order.

        Raises:
            SampleCountError: the data set has another length.
            ConfigError: another seed, or shuffled where it was not.
        """
        now = self.capture()
        where = f"batches {self.name!r}"
        if saved["n"] != now["n"]:
            raise SampleCountError(
                f"the data set had {saved['n']} samples and has {now['n']} now",
                where=where,
                hint="use the same data set, or start a new run",
            )
        for key in ("seed", "shuffle"):
            if saved[key] != now[key]:
                what = f"the order was made with {key}={saved[key]} and would be with {key}={now[key]} now"
                raise ConfigError(what, where=where, hint=f"pass {key}={saved[key]}, or start a new run")

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on at a saved position, whatever the world size was."""
        self.position = saved["position"]

    def close(self) -> None:
        """Let the workers end."""
        self._source = None

    def _shares(self) -> Iterator[Numbered]:
        """This rank's samples of one global batch after the other, from the position on."""
        start = self.position + self._rank * self._batch_size
        while True:
            yield list(self._order.items(start, self._batch_size))
            start += self._world_size * self._batch_size
