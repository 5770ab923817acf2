"""`hpcresume doctor --probe`: a job of half a minute that maps which signal reaches whom, and looks at its nodes.

Submits it, waits for it, reads what it left, and removes that. Nobody's other job is touched.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcresume.errors import SlurmError
from hpcresume.ops.doctor.finding import VERDICTS, Finding, unknown
from hpcresume.ops.doctor.signal_map import PROBE_LEAD, Advice, Row, advice, map_findings, parse_heard, rows_of
from hpcresume.ops.doctor.storage import nearest_folder, scratch
from hpcresume.ops.doctor.subject import Subject
from hpcresume.ops.doctor.timing import lead_for
from hpcresume.slurm.commands import execute
from hpcresume.slurm.orders import cancel, give
from hpcresume.slurm.queue import ask_queue, said
from hpcresume.slurm.submission import partition

__all__ = ["PROBE_ANSWERS", "Asked", "Pending", "Probed", "as_json", "probe"]

SCRIPT = """\
#!/bin/bash
# A probe of hpcresume doctor: notes which signals reach this shell, and lets probe_driver do the rest.
folder=$1 python=$2 way=$3 gap=$4
for each in CONT USR1 USR2 TERM INT HUP; do
    trap "date '+%s.%N $each' >> '$folder/heard-batch'" $each
done
echo "$(date +%s.%N) START ${SLURMD_NODENAME:-$(uname -n)}" >> "$folder/heard-batch"
"$python" -m hpcresume.ops.doctor.probe_driver "$folder" "$way" "$gap" &
until [ -e "$folder/done" ] || [ "$SECONDS" -gt 300 ]; do sleep 0.1; done
"""
LOOK_EVERY = 1.0
GAP = 2.5
"""Seconds between two signals, within which every process has noted what reached it."""
PROBE_ANSWERS = frozenset({("mpi", "ranks by srun"), ("mpi", "ranks by mpiexec"), ("folder", "filesystem"),
                           ("folder", "seen by others"), ("environment", "alike on all nodes")})  # fmt: skip
"""What a job can tell and this machine cannot: with a probe it is said once, from there."""
_TAME = re.compile(r"[^'\\\x00-\x1f]*")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """What the probe is to be.

    Attributes:
        nodes: how many, fewer where the partition has fewer.
        full: wait for the warnings before a time limit too.
        partition, account, options: for sbatch.
        wait: seconds until the queue is given up.
        gap: seconds between two signals.
    """

    nodes: int = 2
    full: bool = False
    partition: str | None = None
    account: str | None = None
    options: tuple[str, ...] = ()
    wait: float = 1800.0
    gap: float = GAP


@dataclass(frozen=True)
class Probed:
    """What it told."""

    job_ids: tuple[str, ...]
    findings: tuple[Finding, ...]
    rows: tuple[Row, ...]
    advice: Advice
    lead: int


@dataclass
class _Job:
    id: str
    folder: Path
    way: str
    over: bool = False


@dataclass(frozen=True)
class Pending:
    """A probe that was submitted, and waits or runs."""

    jobs: tuple[_Job, ...]
    wait: float
    lead: int

    def result(self, say: Say) -> Probed:
        """Wait for it, and read what it left.

        Raises:
            SlurmError: Slurm cannot be asked, or it was not over in time.
        """
        _await(self.jobs, self.wait, say)
        return _read(self.jobs, self.lead)


@contextlib.contextmanager
def probe(subject: Subject, asked: Asked, say: Say) -> Iterator[Pending]:
    """Submit it; at the end of the block its jobs are cancelled if they still are, and what they left is removed.

    Raises:
        RunDirectoryError: no folder can be made that the job could write to.
        SlurmError: Slurm refuses it.
    """
    parent = nearest_folder(subject.path)
    if not _TAME.fullmatch(str(parent)):
        raise SlurmError("the folder's name cannot stand in a script", where=str(parent), hint="another folder")
    with scratch(parent) as folder:
        jobs = _submit_all(folder, asked)
        try:
            for job in jobs:
                say(f"job {job.id} is submitted ({job.way})")
            yield Pending(tuple(jobs), asked.wait, lead_for(subject.measured))
        finally:
            for job in jobs:
                if not job.over:
                    _cancel(job.id)


def _submit_all(folder: Path, asked: Asked) -> list[_Job]:
    ways: list[tuple[str, tuple[str, ...]]] = [("signals", ())]
    if asked.full:
        ways += [("limit of the batch shell", (f"--signal=B:USR1@{PROBE_LEAD}",)),
                 ("limit of the ranks", (f"--signal=USR1@{PROBE_LEAD}",))]  # fmt: skip
    nodes, jobs = _nodes(asked), []
    try:
        for number, (way, signals) in enumerate(ways):
            place = folder / f"job{number}"
            place.mkdir(mode=0o700)
            jobs.append(_Job(_submit(place, way, signals, nodes, asked), place, way))
    except SlurmError:
        for job in jobs:
            _cancel(job.id)
        raise
    return jobs


def _nodes(asked: Asked) -> int:
    """Two, if it may."""
    found = partition(asked.partition)
    most = [n for n in (found.nodes, found.max_nodes) if n is not None] if found is not None else []
    return max(1, min([asked.nodes, *most]))


def _submit(folder: Path, way: str, signals: Sequence[str], nodes: int, asked: Asked) -> str:
    script = folder / "probe.sh"
    script.write_text(SCRIPT)
    log = str(folder / "log").replace("%", "%%")  # %j and its like mean something (sbatch(1), FILENAME PATTERN)
    options = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--job-name=hpcresume-probe",
               f"--time={2 if way.startswith('limit') else 10}", "--no-requeue", f"--output={log}", *signals,
               *([f"--partition={asked.partition}"] if asked.partition else []),
               *([f"--account={asked.account}"] if asked.account else []), *asked.options]  # fmt: skip
    words = [
        "sbatch",
        "--parsable",
        *options,
        str(script),
        str(folder),
        sys.executable,
        way.partition(" ")[0],
        f"{asked.gap:g}",
    ]
    answer = execute(words, 60.0)
    number = answer.out.strip().partition(";")[0]
    if answer.code != 0 or not number.isdecimal():
        hint = "--account, --partition, --nodes 1, or --option for what sbatch wants here"
        raise SlurmError(f"sbatch refused the probe: {said(answer)}", where="sbatch", hint=hint)
    return number


def _await(jobs: Sequence[_Job], seconds: float, say: Say) -> None:
    until, told = time.monotonic() + seconds, ""
    while not all(job.over for job in jobs):
        queue = ask_queue([job.id for job in jobs])
        for job in jobs:
            seen = queue.get(job.id)
            job.over = seen is None or seen.over
        words = ", ".join(f"{each.id} {each.state.lower()}{f' ({each.reason})' if each.waiting and each.reason else ''}"
                          for each in queue.values() if not each.over)  # fmt: skip
        if words and words != told:
            say(told := words)
        if time.monotonic() > until:
            waiting = ", ".join(job.id for job in jobs if not job.over)
            hint = "--wait longer, or --partition with free nodes"
            raise SlurmError(
                f"the probe is not over after {seconds:g} s and was cancelled", where=f"job {waiting}", hint=hint
            )
        time.sleep(LOOK_EVERY)


def _cancel(job_id: str) -> None:
    try:
        give(cancel(job_id))
    except SlurmError:
        return  # it is over, or nobody answers


def _read(jobs: Sequence[_Job], lead: int) -> Probed:
    findings: list[Finding] = []
    events: list[Mapping[str, Any]] = []
    rows: list[Row] = []
    for job in jobs:
        own = list(_events(job))
        findings += _findings(job)
        rows += _rows(job, own)
        events += own
        if not own:
            findings.append(_nothing(job))
    found = advice(rows, lead)
    findings += map_findings(events, rows, found)
    return Probed(tuple(job.id for job in jobs), tuple(findings), tuple(rows), found, lead)


def _events(job: _Job) -> Iterator[Mapping[str, Any]]:
    for line in _text(job.folder / "events.jsonl").splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            event = {"event": f"time {job.way}"} if value.get("event") == "limit" else {}
            yield {**value, **event}


def _rows(job: _Job, events: Sequence[Mapping[str, Any]]) -> tuple[Row, ...]:
    skews = _skews(job)
    heard = [parse_heard(path.name.removeprefix("heard-"), _text(path), skews) for path in job.folder.glob("heard-*")]
    host = next((each.host for each in heard if each.name == "batch"), "")
    return rows_of(events, heard, host)


def _skews(job: _Job) -> dict[str, float]:
    """Seconds by which each node's clock is ahead of the batch node's; none where that was not measured."""
    try:
        value = json.loads(_text(job.folder / "skews.json") or "{}")
    except ValueError:
        return {}
    return {str(k): float(v) for k, v in value.items() if isinstance(v, int | float)} if isinstance(value, dict) else {}


def _findings(job: _Job) -> list[Finding]:
    try:
        values = json.loads(_text(job.folder / "findings.json") or "[]")
        found = [Finding(str(v["area"]), str(v["check"]), str(v["verdict"]), str(v["what"]), str(v["try"] or ""))
                 for v in values]  # fmt: skip
    except (ValueError, TypeError, KeyError):
        return []
    return [each for each in found if each.verdict in VERDICTS]


def _nothing(job: _Job) -> Finding:
    lines = _text(job.folder / "log").strip().splitlines()
    last = f": {lines[-1][:200]}" if lines else " and no log"
    hint = "can the nodes see this folder and this Python? hpcresume doctor FOLDER, with one that is shared"
    return unknown("signals", "probe", f"job {job.id} ({job.way}) is over and left nothing{last}", hint)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def as_json(probed: Probed) -> dict[str, Any]:
    """The `probe` of `hpcresume doctor --json`."""
    return {
        "job_ids": list(probed.job_ids),
        "signals": [{"event": row.event, "launcher": row.launcher, "reached": dict(row.reached),
                     "launcher_survived": row.survived, "seconds_early": row.early} for row in probed.rows],
        "signal_line": probed.advice.signal_line or None,
        "wrapper": probed.advice.wrapper or None,
        "lead": probed.lead,
    }  # fmt: skip
