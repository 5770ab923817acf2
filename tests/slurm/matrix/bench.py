"""Runs cells: as many at once as there are nodes, each on nodes and in partitions of its own."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hpcresume.testing.minislurm import MiniSlurm
from tests.slurm.matrix import ways
from tests.slurm.matrix.events import EVENTS, Event
from tests.slurm.matrix.table import Outcome
from tests.slurm.matrix.training import QUICK
from tests.slurm.matrix.trial import Trial

__all__ = ["Bench", "Found"]


@dataclass(frozen=True)
class Found:
    """What a cell has shown: its outcome, or what kept it from one; Slurm's words; its seconds."""

    outcome: Outcome | None
    trouble: str
    words: str
    neighbour: str
    seconds: float


class Bench:
    """Clusters on which cells run.

    Args:
        base: a folder for everything.
        at_once: how many cells of two nodes run at the same time.
        accounting: whether the clusters have it.
        root: another Slurm than the installed one.
    """

    def __init__(self, base: Path, *, at_once: int, accounting: bool = False, root: Path | None = None) -> None:
        self.base, self.at_once, self.accounting, self.root = base, at_once, accounting, root
        self.results = base / "cells"
        self.results.mkdir()
        self._number = itertools.count()
        self._partitions = threading.Lock()

    def run(self, cells: Iterable[tuple[str, str]], wanted: Callable[[str, str], Outcome],
            say: Callable[[str], None] = print) -> dict[tuple[str, str], Found]:  # fmt: skip
        """Run them, those with the same cluster side by side; what each has shown."""
        cells = list(cells)
        found: dict[tuple[str, str], Found] = {}
        for user_signal in (True, False):
            chosen = [cell for cell in cells if EVENTS[cell[1]].user_signal is user_signal]
            if chosen:
                with self._cluster(user_signal) as cluster:
                    found |= self._run_on(cluster, chosen, wanted, say)
        return found

    @contextlib.contextmanager
    def _cluster(self, user_signal: bool) -> Iterator[MiniSlurm]:
        place = self.base / ("s" if user_signal else "t")
        with MiniSlurm(place, nodes=2 * self.at_once, user_signal=user_signal, accounting=self.accounting,
                       root=self.root) as cluster:  # fmt: skip
            yield cluster

    def _run_on(self, cluster: MiniSlurm, cells: list[tuple[str, str]], wanted: Callable[[str, str], Outcome],
                say: Callable[[str], None]) -> dict[tuple[str, str], Found]:  # fmt: skip
        nodes = _Nodes(cluster.names)
        # The long ones first; those that disturb the whole cluster when all others are over.
        order = sorted(cells, key=lambda cell: -EVENTS[cell[1]].seconds)
        together = [cell for cell in order if not EVENTS[cell[1]].alone]
        found: dict[tuple[str, str], Found] = {}

        def one(cell: tuple[str, str]) -> None:
            event = EVENTS[cell[1]]
            with nodes.some(event.nodes) as mine:
                found[cell] = self._cell(cluster, mine, cell[0], event, wanted(*cell))
            result = found[cell]
            right = result.outcome == wanted(*cell)
            shown = "" if right else f" {result.outcome or result.trouble}"
            lost = _lost(result.outcome)
            say(f"{'right' if right else 'WRONG'} {cell[0]}:{cell[1]} {result.seconds:.0f} s{lost}{shown}")

        with ThreadPoolExecutor(self.at_once) as pool:
            list(pool.map(one, together))
        for cell in order:
            if EVENTS[cell[1]].alone:
                one(cell)
        return found

    def _cell(self, cluster: MiniSlurm, nodes: tuple[str, ...], way: str, event: Event, wanted: Outcome) -> Found:
        number, began = next(self._number), time.monotonic()
        out = self.results / f"{way}-{event.name}"
        out.mkdir()
        # A controller that is started again knows the partitions of its configuration only.
        low, high = ("low", "high") if event.alone else (f"low{number}", f"high{number}")
        signal: str | None = event.signal
        if way not in ways.LAUNCH and event.name != "preempt-batch":
            signal = None
        order = ways.Order(way, out, low, signal, event.limit, event.options)
        trial = Trial(cluster, nodes, order, high)
        outcome, trouble, neighbour = None, "", ""
        try:
            if not event.alone:
                self._make_partitions(cluster, nodes, low, high, event.grace)
            trial.submit(event.prepare)
            trial.wait_for_step(QUICK)
            event.meet(trial)
            trial.wait_until_over(event.seconds)
            outcome = trial.outcome(wanted)
            neighbour = trial.neighbour()
        except Exception:
            trouble = traceback.format_exc()
        finally:
            with contextlib.suppress(Exception):
                trial.clear()
                self._drop_partitions(cluster, trial, low, high)
        return Found(outcome, trouble, trial.words, neighbour, time.monotonic() - began)

    def _make_partitions(self, cluster: MiniSlurm, nodes: tuple[str, ...], low: str, high: str, grace: int) -> None:
        with self._partitions:
            for name, more in ((low, ("PriorityTier=1", "PreemptMode=REQUEUE", f"GraceTime={grace}")),
                               (high, ("PriorityTier=10", "PreemptMode=OFF"))):  # fmt: skip
                place = (f"PartitionName={name}", f"Nodes={','.join(nodes)}", "State=UP")
                cluster.command("scontrol", "create", *place, *more)

    def _drop_partitions(self, cluster: MiniSlurm, trial: Trial, low: str, high: str) -> None:
        left = ["squeue", "--noheader", "--format=%i", f"--partition={low},{high}"]
        trial.wait(lambda: not cluster.command(*left).strip(), "empty partition", 60)
        for name in () if low == "low" else (low, high):
            cluster.command("scontrol", "delete", f"PartitionName={name}", check=False)


def _lost(found: Outcome | None) -> str:
    if found is None or not found.lost_seen:
        return ""
    return f", lost {found.lost_seen} (at most {found.lost})"


class _Nodes:
    """Hands out nodes."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._free = list(names)
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def some(self, count: int) -> Iterator[tuple[str, ...]]:
        """So many, for the block."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._free) >= count)
            mine, self._free = tuple(self._free[:count]), self._free[count:]
        try:
            yield mine
        finally:
            with self._changed:
                self._free = sorted([*self._free, *mine], key=lambda name: int(name[1:]))
                self._changed.notify_all()
