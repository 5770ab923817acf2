"""Which nodes the next attempt stays away from. Pure.

A node that was lost under a run is suspect for a while. It is excluded only while it still exists (Slurm refuses a
list with an unknown name as a whole), never more than a few at a time, and never so many that the job could no longer
start: nobody is awake to take an exclusion back while the job waits, so one more node may be lost meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Exclusion", "NodeFacts", "Suspect", "add_lost", "add_suspects", "choose_excluded"]

SPARE = 1
"""Nodes beyond those that the job needs that must be left."""
SHARE = 4
"""At most one in so many of the nodes that fit the job is excluded, but one always may be."""


@dataclass(frozen=True)
class Exclusion:
    """How long a lost node is suspect (seconds), and how many are excluded at once at the most; 0 excludes none."""

    seconds: float = 12 * 3600.0
    most: int = 4


@dataclass(frozen=True)
class Suspect:
    """A node that was lost under this run: when last (seconds since the epoch), and how often."""

    node: str
    at: float
    times: int = 1


@dataclass(frozen=True)
class NodeFacts:
    """A node of the job's partition. `kind` is what it offers, as one text; `up` that jobs can run on it."""

    name: str
    kind: str
    up: bool


def add_suspects(known: Sequence[Suspect], nodes: Iterable[str], now: float, rules: Exclusion) -> tuple[Suspect, ...]:
    """The suspects with these nodes added or renewed, those forgotten whose time is over; the newest last."""
    fresh = {each.node: each for each in known if _fresh(each, now, rules)}
    for node in nodes:
        before = fresh.pop(node, None)
        fresh[node] = Suspect(node, now, before.times + 1 if before else 1)
    return tuple(sorted(fresh.values(), key=lambda each: each.at))


def add_lost(known: Sequence[Suspect], lost: Iterable[tuple[str, float]], rules: Exclusion) -> tuple[Suspect, ...]:
    """The suspects with nodes that were lost, each with when that was. A loss that is known since then is not counted
    again, for several may come upon it.
    """
    suspects = tuple(known)
    for node, at in lost:
        if not any(each.node == node and each.at >= at for each in suspects):
            suspects = add_suspects(suspects, [node], at, rules)
    return suspects


def choose_excluded(
    suspects: Sequence[Suspect],
    now: float,
    rules: Exclusion,
    *,
    cluster: Sequence[NodeFacts],
    job_nodes: Iterable[str],
    needed: int,
    by_user: Iterable[str] = (),
    required: Iterable[str] = (),
) -> tuple[str, ...]:
    """Which suspects to exclude beside what the user excludes himself, in the order of their names.

    Args:
        suspects: the nodes that were lost.
        now: seconds since the epoch.
        rules: how long, and how many.
        cluster: the nodes of the job's partition; empty when Slurm could not be asked, and then none is excluded.
        job_nodes: those that the job had. Nodes that offer the same are the ones that surely fit it again.
        needed: how many nodes the job must have.
        by_user: nodes that the user excludes himself.
        required: nodes that the user asked for by name.
    """
    theirs, asked = set(by_user), set(required)
    facts = {each.name: each for each in cluster}
    kinds = {facts[name].kind for name in job_nodes if name in facts}
    alike = {each.name for each in cluster if each.kind in kinds and each.name not in theirs}
    fit = {each.name for each in cluster if each.up and each.name in alike}
    most = min(rules.most, max(1, len(alike) // SHARE))
    chosen: list[str] = []
    for each in sorted(suspects, key=lambda suspect: (suspect.at, suspect.times), reverse=True):
        if len(chosen) >= most:
            break
        if not _fresh(each, now, rules) or each.node not in facts or each.node in theirs | asked:
            continue
        if len(fit - {*chosen, each.node}) >= needed + SPARE:
            chosen.append(each.node)
    return tuple(sorted(chosen))


def _fresh(suspect: Suspect, now: float, rules: Exclusion) -> bool:
    # A clock that was set back makes a suspect of tomorrow: it is forgotten like an old one.
    return -rules.seconds < now - suspect.at < rules.seconds
