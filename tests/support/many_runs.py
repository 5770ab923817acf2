"""Run directories as sessions and supervisors leave them, many and quickly: for what reads them."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path

from hpcresume.io.paths import RunPaths, generation_name

__all__ = ["make_run", "make_runs"]


def make_runs(folder: Path, count: int, *, attempts: int = 3, first_job: int = 1000) -> list[Path]:
    """`count` runs of `attempts` attempts each: every third is done, the others have a job (`first_job` and up)."""
    return [
        make_run(folder / f"run-{index:04d}", attempts, job=first_job + index, done=index % 3 == 0)
        for index in range(count)
    ]


def make_run(root: Path, attempts: int = 1, *, job: int | None = None, done: bool = False, hold: str = "") -> Path:
    """A run whose attempts each worked 100 steps, saved at 90 and were preempted; `hold`: the last one is held."""
    run = RunPaths(root)
    for folder in (run.attempts, run.generations):
        folder.mkdir(parents=True)
    run.run_json.write_text(json.dumps({"format_version": 1, "run_id": "0" * 32}))
    begun = time.time() - 1000.0 * attempts
    for number in range(1, attempts + 1):
        _attempt(run, number, begun + 1000.0 * number, job, last=number == attempts, done=done, hold=hold)
    if done:
        run.done.write_text(json.dumps({"attempt": attempts, "step": 90 * attempts + 10}))
    return root


def _attempt(run: RunPaths, number: int, t: float, job: int | None, *, last: bool, done: bool, hold: str) -> None:
    paths, start = run.attempt(number), 90 * (number - 1)
    paths.root.mkdir()
    made, before = generation_name(start + 90, number), generation_name(start, number - 1) if number > 1 else None
    (run.generations / made).mkdir()
    holder = {"job_id": None if job is None else str(job), "restart": number - 1, "host": "n1", "boot_id": "b",
              "pid": 1, "pid_start": "1", "holds": True, "attempt": number, "time": t}  # fmt: skip
    paths.claim.write_text(json.dumps(holder))
    paths.start.write_text(json.dumps({"generation": before, "skipped": []}))
    paths.progress.write_bytes(struct.pack("<q", start + 100))
    begun = {"event": "restored", "generation": before, "step": start} if before else {"event": "fresh-start"}
    events = [{"event": "claimed", "world_size": 8, **holder}, {**begun, "total_steps": 5000}]
    events += [{"event": "save-begin", "step": start + step} for step in range(80)]
    events += [{"event": "saved", "generation": made, "step": start + 90, "seconds": 1.0, "bytes": 1000}]
    _lines(paths.ledger, events, t)
    _lines(paths.metrics, [{"step": start + 1 + step, "values": {"loss": 1.0}} for step in range(100)], t)
    if last and not done and not hold:
        return
    cause, decision = ("done", "done") if last and done else ("crash", "hold") if last else ("preempted", "come-back")
    _lines(paths.supervisor, [
        {"event": "started", "kind": "srun", "job_id": holder["job_id"], "restart": number - 1, "host": "n1"},
        {"event": "cause", "cause": cause, "evidence": ["for a test"]},
        {"event": "decision", "decision": decision, "reason": hold if last and hold else "for a test"},
        {"event": "ended", "cause": cause, "exit_code": 0},
    ], t + 900)  # fmt: skip


def _lines(path: Path, values: list[dict], t: float) -> None:
    path.write_text("".join(json.dumps({"t": t + i, "mono": 0.0, **value}) + "\n" for i, value in enumerate(values)))
