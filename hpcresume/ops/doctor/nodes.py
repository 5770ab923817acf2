"""The nodes of a job, or two processes of this machine: do they see each other's files, and are they alike?

Starts `node_program` on each and plays ping-pong with it through files that are renamed into place.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcresume.ops.doctor.finding import Finding, bad, ok, unknown, warn
from hpcresume.ops.doctor.node_program import POLL

__all__ = ["NodeSeen", "Survey", "node_findings", "step_words", "survey"]

_LAUNCHER = re.compile(r"srun: (error: .*(task|Exited)|Job step|Force|launch)|slurmstepd")

ROUNDS = 6
START_SECONDS = 60.0
"""How long the nodes may take to start a Python."""
ROUND_SECONDS = 65.0
"""How long an answer may take: attributes are cached for up to 60 s by NFS (nfs(5), acdirmax)."""
QUICK = 2.0
"""Seconds there and back that are nothing to speak of."""
SKEW_WARNS, SKEW_BAD = 1.0, 10.0
"""Seconds: the deadline of a job is told by one clock and kept by another; policy.deadline keeps 2 s for leaving."""


@dataclass(frozen=True)
class NodeSeen:
    """One node, or the other process.

    Attributes:
        host: its name.
        facts: as `node_program.facts` gives them.
        seconds: the longest way there and back of a file.
        skew: seconds by which its clock is ahead of ours, `error` at most more or less.
        error: half of the quickest way there and back.
    """

    host: str
    facts: Mapping[str, Any]
    seconds: float | None = None
    skew: float = 0.0
    error: float = 0.0


@dataclass(frozen=True)
class Survey:
    """Those that answered, and why others did not."""

    nodes: tuple[NodeSeen, ...] = ()
    problem: str = ""


@dataclass
class _Asked:
    facts: dict[str, Any]
    trips: list[tuple[float, float]] = field(default_factory=list)
    """(seconds there and back, its clock minus the middle of ours)."""


def step_words(count: int) -> tuple[str, ...]:
    """An srun that starts one process on each of `count` nodes, beside whatever else runs in the job."""
    # Kill-on-bad-exit: a node that cannot see the folder at all ends the step at once, and nobody waits for it.
    return (
        "srun",
        "--mpi=none",
        "--overlap",
        "--kill-on-bad-exit=1",
        f"--nodes={count}",
        f"--ntasks={count}",
        "--ntasks-per-node=1",
    )


def survey(folder: Path, start: Sequence[str], count: int) -> Survey:
    """Ask `count` processes that `start` (an argument list, empty for one right here) begins.

    Args:
        folder: an empty one that all are to see.
        start: what stands before the program.
        count: how many will answer.

    Raises:
        OSError: the folder cannot be written to.
    """
    limit = START_SECONDS + ROUND_SECONDS + 10
    words = [*start, sys.executable, "-m", "hpcresume.ops.doctor.node_program", str(folder), "0", f"{limit:g}"]
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                                       env=_environment(bool(start)))  # fmt: skip
        except OSError as error:
            return Survey(problem=f"{words[0]}: {error.strerror}")
        try:
            asked = _gather(folder, process, count)
            missing = _play(folder, process, asked) if len(asked) == count else []
        finally:
            (folder / "stop").touch()
            _end(process)
        said.seek(0)
        words_of_it = _last_words(said.read(8000).decode(errors="replace"))
    problem = ""
    if len(asked) < count:
        problem = f"{len(asked)} of {count} answered{f': {words_of_it}' if words_of_it else ''}"
    elif missing:
        problem = f"{', '.join(missing)} did not see a new file within {ROUND_SECONDS:g} s"
    return Survey(tuple(_seen(each, missing) for each in asked.values()), problem)


def _last_words(text: str) -> str:
    """The last line that says why, which is not srun's that a task has ended."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [
        line for line in lines if not re.match(r"srun: (error: .*(task|Exited)|Job step|Force|launch)|slurmstepd", line)
    ]
    return "".join(c if c.isprintable() else "?" for c in (telling or lines or [""])[-1])[:200]


def _environment(by_srun: bool) -> dict[str, str]:
    """A process of our own is not node 3 of a job only because we are."""
    return {k: v for k, v in os.environ.items() if by_srun or k != "SLURM_NODEID"}


def _gather(folder: Path, process: subprocess.Popen[bytes], count: int) -> dict[str, _Asked]:
    until = time.monotonic() + START_SECONDS
    found: dict[str, _Asked] = {}
    while len(found) < count and time.monotonic() < until:
        over = process.poll() is not None
        for path in folder.glob("facts-*.json"):
            name = path.name.removeprefix("facts-").removesuffix(".json")
            seen = _answer(path) if name not in found else None
            if seen:
                found[name] = _Asked(seen)
        if over and len(found) < count:
            break
        time.sleep(0.02)
    return found


def _play(folder: Path, process: subprocess.Popen[bytes], asked: Mapping[str, _Asked]) -> list[str]:
    """Some rounds; gives the hosts that did not answer one of them."""
    for number in range(ROUNDS):
        text, sent, began = f"{os.getpid()} {number}", time.time(), time.monotonic()
        scratch = folder / f".ping-{number}"
        scratch.write_text(text)
        scratch.rename(folder / f"ping-{number}")
        waiting = dict(asked)
        while waiting and time.monotonic() - began < ROUND_SECONDS and process.poll() is None:
            for name in list(waiting):
                answer = _answer(folder / f"pong-{number}-{name}")
                if answer is not None and answer.get("heard") == text:
                    seconds = time.monotonic() - began
                    waiting.pop(name).trips.append((seconds, float(answer["time"]) - (sent + seconds / 2)))
            time.sleep(POLL)
        if waiting:
            return [str(each.facts.get("host")) for each in waiting.values()]
    return []


def _answer(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        return None  # seen before it was whole: looked at again
    return value if isinstance(value, dict) else None


def _seen(each: _Asked, missing: Sequence[str]) -> NodeSeen:
    host = str(each.facts.get("host"))
    if not each.trips:
        return NodeSeen(host, each.facts)
    quickest = min(each.trips)
    longest = None if host in missing else max(seconds for seconds, _ in each.trips)
    return NodeSeen(host, each.facts, longest, quickest[1], quickest[0] / 2)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def node_findings(found: Survey, ours: Mapping[str, Any], *, in_job: bool) -> Iterator[Finding]:
    """What the answers mean.

    Args:
        found: the answers.
        ours: the facts of this process.
        in_job: were those the nodes of a job, and not processes of this machine?
    """
    who = "another node" if in_job else "another process"
    elsewhere = [node for node in found.nodes if node.host != ours.get("host")] or list(found.nodes)
    if found.problem:
        hint = "the shared filesystem of the cluster; squeue --steps shows whether srun could start anything"
        verdict = bad if found.nodes else unknown
        yield verdict("folder", "seen by others", f"{who}: {found.problem}", hint)
    else:
        yield _visibility(who, max((node.seconds or 0.0 for node in elsewhere), default=0.0), len(found.nodes), in_job)
    if in_job and found.nodes:
        yield _clocks(found.nodes)
        yield _alike(found.nodes, ours)


def _visibility(who: str, seconds: float, count: int, in_job: bool) -> Finding:
    name, nodes = "seen by others", f" ({count} nodes)" if in_job else ""
    if seconds <= QUICK:
        return ok("folder", name, f"{who} sees a renamed file, whole, at once: {seconds:.3f} s there and back{nodes}")
    what = f"{who} sees a renamed file late: {seconds:.1f} s there and back{nodes}"
    return warn("folder", name, what, "mount options actimeo=1 or noac; a parallel filesystem where there is one")


def _clocks(nodes: Sequence[NodeSeen]) -> Finding:
    skews = [(node.skew, node.error, node.host) for node in nodes]
    lowest, highest = min(skews), max(skews)
    apart, error = highest[0] - lowest[0], highest[1] + lowest[1]
    if len(nodes) < 2:
        return unknown("nodes", "clocks", "one node alone: there is no other clock to compare with", "two nodes")
    text = f"the clocks of {len(nodes)} nodes are {apart:.3f} s apart (± {error:.3f} s)"
    if apart - error <= SKEW_WARNS:
        return ok("nodes", "clocks", text)
    far = highest[2] if abs(highest[0]) >= abs(lowest[0]) else lowest[2]
    verdict = bad if apart - error > SKEW_BAD else warn
    return verdict("nodes", "clocks", f"{text}: {far} is off, and deadlines are kept by these clocks",
                   f"tell the administrators: chrony or ntpd on {far}; #SBATCH --exclude={far} until then")  # fmt: skip


def _alike(nodes: Sequence[NodeSeen], ours: Mapping[str, Any]) -> Finding:
    expected = _environment_of(ours)
    different = []
    for node in nodes:
        theirs = _environment_of(node.facts)
        for key in sorted({k for k in (*expected, *theirs) if expected.get(k) != theirs.get(k)}):
            different.append(
                f"{node.host} has {key} {theirs.get(key) or 'not at all'}, here {expected.get(key) or 'none'}"
            )
    if not different:
        listed = ", ".join(f"{name} {value}" for name, value in expected.items() if value)
        return ok("environment", "alike on all nodes", f"on all {len(nodes)} nodes: {listed}")
    return bad("environment", "alike on all nodes", "; ".join(different[:5]),
               "one environment on the shared filesystem, activated in the batch script")  # fmt: skip


def _environment_of(facts: Mapping[str, Any]) -> dict[str, str | None]:
    return {"Python": facts.get("python"), **dict(facts.get("versions") or {})}
