"""Attempts: claimed by an exclusive mkdir, so that two can never have the same number.

Owns claim.json and start.json. The claim is the fence: whoever holds an older number may commit no more.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hpcresume.checkpoint.digest import digest_bytes
from hpcresume.checkpoint.phases import together
from hpcresume.comm.ranks import Ranks
from hpcresume.comm.vote import agree_bytes
from hpcresume.errors import RunBusyError, RunDirectoryError
from hpcresume.io.durable import make_directory, remove_tree, write_durably
from hpcresume.io.paths import RunPaths, parse_generation_name
from hpcresume.model import Skipped

__all__ = [
    "Holder",
    "Starts",
    "claim",
    "mark_committed",
    "newest_attempt",
    "process_start",
    "read_holder",
    "read_starts",
    "record_start",
    "refuse_if_held",
]

CLAIM_SECONDS = 5.0
"""How long to wait for the claim in an attempt's directory that is there: a small file follows the mkdir."""


@dataclass(frozen=True)
class Holder:
    """Who runs an attempt: the Slurm job, if any, and the process of rank 0.

    `holds` is False for one that saves now and then (`hr.save`): what comes next in the same job, or outside any, may
    take over though the process lives, and is then the only one that may commit.
    """

    job_id: str | None
    restart: int
    host: str
    boot_id: str
    pid: int
    pid_start: str
    holds: bool = True

    @classmethod
    def here(cls, job_id: str | None, restart: int, *, holds: bool = True) -> Holder:
        """The calling process."""
        pid = os.getpid()
        return cls(job_id, restart, socket.gethostname(), _boot_id(), pid, process_start(pid) or "", holds)

    def same_process(self, other: Holder) -> bool:
        """Whether both are one process of one machine, now and not only by its number."""
        mine, others = ((h.host, h.boot_id, h.pid, h.pid_start) for h in (self, other))
        return mine == others

    def process_alive(self) -> bool | None:
        """Whether the process lives, or None when it ran on another machine or before the last boot."""
        if self.host != socket.gethostname() or self.boot_id != _boot_id():
            return None
        return process_start(self.pid) == self.pid_start


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def process_start(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot (proc(5), field 22 of stat); None when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    rest = text.rpartition(")")[2].split()
    return None if rest[0] == "Z" else rest[19]


def read_holder(run: RunPaths, attempt: int) -> Holder | None:
    """Who claimed an attempt, or None when the claim was never finished."""
    try:
        facts = json.loads(run.attempt(attempt).claim.read_bytes())
        return Holder(**{f.name: facts[f.name] for f in fields(Holder) if f.name in facts or f.name != "holds"})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def newest_attempt(run: RunPaths) -> int:
    """The number of the newest attempt or of the newest one that committed, 0 when there is neither."""
    names = [parse_generation_name(p.name) for p in run.generations.iterdir()] if run.generations.is_dir() else []
    return max([0, *run.attempt_numbers(), *(parsed[1] for parsed in names if parsed)])


def claim(run: RunPaths, *, holder: Holder, ranks: Ranks, alive: Callable[[Holder], bool]) -> int:
    """Collective. Claim the next attempt number.

    `alive(h)` tells whether an earlier holder still runs. The same Slurm job with a higher restart count
    takes over from itself without asking.

    Raises:
        RunBusyError: another live job holds the run.
        RunDirectoryError: the claim could not be written.
    """
    number = b""
    with together(ranks, "claim the attempt", RunDirectoryError):
        if ranks.rank == 0:
            number = str(_claim_locally(run, holder, alive)).encode()
    return int(agree_bytes(ranks, number))


def _claim_locally(run: RunPaths, holder: Holder, alive: Callable[[Holder], bool]) -> int:
    for _ in range(100):
        newest = newest_attempt(run)
        refuse_if_held(run, holder=holder, alive=alive, newest=newest)
        try:
            make_directory(run.attempt(newest + 1).root, exclusive=True)
        except FileExistsError:
            continue  # another job was quicker: look again, it may be alive
        facts = {**asdict(holder), "attempt": newest + 1, "time": time.time()}
        try:
            write_durably(run.attempt(newest + 1).claim, json.dumps(facts).encode() + b"\n")
        except OSError:
            with contextlib.suppress(OSError):
                remove_tree(run.attempt(newest + 1).root)  # who comes next would wait for the claim
            raise
        return newest + 1
    raise RunBusyError("other jobs keep claiming attempts of this run", where=str(run.root), hint="stop one of them")


def refuse_if_held(
    run: RunPaths, *, holder: Holder, alive: Callable[[Holder], bool], newest: int | None = None
) -> None:
    """Refuse when `holder` may not claim the next attempt now; as `claim`, of which it is a part. Rank 0 only.

    Raises:
        RunBusyError: another live job holds the run.
    """
    newest = newest_attempt(run) if newest is None else newest
    previous = _await_claim(run, newest) if newest else None
    if previous is None:
        return
    takes_over = holder.job_id is not None and previous.job_id == holder.job_id and holder.restart > previous.restart
    if takes_over or not alive(previous):
        return
    who = f"job {previous.job_id}" if previous.job_id else f"process {previous.pid} on {previous.host}"
    raise RunBusyError(
        f"{who} is still running attempt {newest} of this run",
        where=str(run.root),
        hint="wait for it, cancel it, or use another run directory",
    )


def _await_claim(run: RunPaths, attempt: int) -> Holder | None:
    """Whoever made the directory a moment ago may not have written into it yet, or has died in between."""
    paths = run.attempt(attempt)
    end = time.monotonic() + CLAIM_SECONDS
    while not paths.claim.exists() and paths.root.is_dir() and time.monotonic() < end:
        if time.time() - paths.root.stat().st_mtime > 60:
            break
        time.sleep(0.05)
    return read_holder(run, attempt)


def record_start(run: RunPaths, attempt: int, generation: str | None, skipped: Sequence[Skipped]) -> None:
    """Write durably which generation an attempt starts from and which ones it skipped. Rank 0 only."""
    facts: dict[str, Any] = {
        "generation": generation,
        "skipped": [asdict(s) for s in skipped],
        "time": time.time(),
    }
    write_durably(run.attempt(attempt).start, json.dumps({**facts, "digest": _digest(facts)}).encode() + b"\n")


def _digest(facts: Mapping[str, Any]) -> str:
    return digest_bytes(json.dumps(facts, sort_keys=True).encode()).hex()


@dataclass(frozen=True)
class Starts:
    """Where attempts began.

    Attributes:
        known: the generation that each attempt recorded as its start (None: it started from nothing).
        damaged: attempts whose record is there and cannot be trusted.
    """

    known: Mapping[int, str | None]
    damaged: frozenset[int]


def read_starts(run: RunPaths) -> Starts:
    """The recorded start of every attempt that has one."""
    known: dict[int, str | None] = {}
    damaged = set()
    for number in run.attempt_numbers():
        try:
            known[number] = _read_start(run.attempt(number).start.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            damaged.add(number)
    return Starts(known, frozenset(damaged))


def _read_start(data: bytes) -> str | None:
    facts = json.loads(data)
    if facts.pop("digest", None) not in (None, _digest(facts)):
        raise ValueError("the record does not match its digest")
    name = facts["generation"]
    if name is not None and parse_generation_name(name) is None:
        raise ValueError("the start is no generation")
    return None if name is None else str(name)


def mark_committed(run: RunPaths, attempt: int) -> None:
    """Leave the mark that this attempt has committed something. Rank 0 only, after a commit.

    Should it not come to be, the next commit tries again; until then only the loss of everything goes unnoticed.
    """
    paths = run.attempt(attempt)
    with contextlib.suppress(OSError):
        if paths.root.is_dir() and not paths.committed.exists():
            write_durably(paths.committed, b"")
