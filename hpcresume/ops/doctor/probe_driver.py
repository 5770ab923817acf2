"""Inside the probe's job: looks at the nodes, then sends the signals and leaves what was heard.

`python -m hpcresume.ops.doctor.probe_driver FOLDER WAY GAP`, WAY being signals, or limit (waits for the warning before
the time limit), GAP the seconds between two signals. Runs in the background of the batch script, and hears as its
child. Leaves FOLDER/findings.json and FOLDER/events.jsonl; a file done tells the batch script that this is all.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hpcresume.errors import HpcresumeError
from hpcresume.io.mpiexec import find_mpiexec
from hpcresume.launch.starter import Start, plan_start, rank_shim
from hpcresume.ops.doctor.examination import job_part
from hpcresume.ops.doctor.finding import as_json
from hpcresume.ops.doctor.witness_program import Witness
from hpcresume.slurm.commands import execute, show_job
from hpcresume.slurm.environment import SlurmEnvironment
from hpcresume.slurm.queue import said

__all__ = ["main"]

SETTLE = 2.5
"""Seconds within which every process has noted what reached it."""
START_SECONDS = 45.0
LEAVE_SECONDS = 10.0
LIMIT_SECONDS = 280.0
"""How long the warning before a limit of two minutes is waited for."""

WAYS: dict[str, tuple[str, ...] | None] = {
    "scancel -s USR1": (),
    "scancel -b -s USR1": ("--batch",),
    "scancel --full -s USR1": ("--full",),
    "kill -USR1 of the launcher": None,
}
"""Each way to send USR1, and the options of scancel that it is."""
WITNESS = (sys.executable, "-m", "hpcresume.ops.doctor.witness_program")


def main(folder: Path, way: str, gap: float) -> int:
    """Do what this job is for."""
    slurm = SlurmEnvironment.from_environ(os.environ)
    Witness(folder, "batch.child")
    try:
        if way == "limit":
            _await_limit(folder, slurm)
        else:
            meeting = folder / "nodes"
            meeting.mkdir(mode=0o700, exist_ok=True)
            found, skews = job_part(meeting, slurm)
            _write(folder / "findings.json", [as_json(each) for each in found])
            _write(folder / "skews.json", skews)
            for launcher in ("srun", "mpiexec"):
                _signals(folder, launcher, slurm, gap)
    finally:
        (folder / "done").touch()
    return 0


def _write(path: Path, value: object) -> None:
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(json.dumps(value))
    scratch.rename(path)


def _note(folder: Path, **fields: Any) -> None:
    with (folder / "events.jsonl").open("a") as file:
        file.write(json.dumps(fields) + "\n")


def _signals(folder: Path, launcher: str, slurm: SlurmEnvironment, gap: float) -> None:
    """Ranks by this launcher; each way to send USR1, one after the other. A launcher that dies of one starts again."""
    count, process = max(slurm.nnodes or 1, 1), None
    try:
        start = _start(folder, launcher, count, slurm)
        for name in WAYS:
            if process is None or process.poll() is not None:
                process, problem = _bring_up(folder, launcher, start, 2 * count, gap)
                if problem:
                    _note(folder, launcher=launcher, problem=problem)
                    return
            began = time.time()
            words = _send(name, str(slurm.job_id), process)
            time.sleep(gap)
            _note(folder, launcher=launcher, event=name, at=began, until=time.time(), words=words,
                  survived=process.poll() is None)  # fmt: skip
    except (HpcresumeError, OSError) as error:
        _note(folder, launcher=launcher, problem=error.what if isinstance(error, HpcresumeError) else str(error))
    finally:
        (folder / f"leave-{launcher}").touch()
        if process is not None:
            _end(process)


def _bring_up(
    folder: Path, launcher: str, start: Start, wanted: int, gap: float
) -> tuple[subprocess.Popen[bytes], str]:
    """A launcher whose ranks and children are up; or what went wrong, twice.

    A signal that was sent before may still be under way on a busy machine, and ends a launcher as it starts.
    """
    for last in (False, True):
        before, process = _starts(folder, launcher), _launch(folder, launcher, start)
        problem = _await_ranks(folder, launcher, before + wanted, process)
        if not problem or last:
            break
        _end(process)
        time.sleep(gap)
    return process, problem


def _launch(folder: Path, launcher: str, start: Start) -> subprocess.Popen[bytes]:
    with (folder / f"{launcher}.log").open("ab") as log:
        return subprocess.Popen(start.arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                env={**os.environ, **start.environ})  # fmt: skip


def _start(folder: Path, launcher: str, count: int, slurm: SlurmEnvironment) -> Start:
    command = (*WITNESS, str(folder), f"{launcher}-rank")
    # One rank a node, or both could be on the first one: mpiexec of Open MPI fills it, others go by Slurm's own tasks.
    by_node = ("--map-by", "node") if launcher == "mpiexec" and find_mpiexec().open_mpi else ()
    options = ("--overlap", f"--nodes={count}") if launcher == "srun" else by_node
    start = plan_start(command, ranks=count, starter=launcher, options=options, slurm=slurm, shared={})
    # What stands before a rank blocks USR1 until its session is armed; a witness is to hear it.
    words, shim = start.arguments, rank_shim()
    at = next(i for i in range(len(words)) if words[i : i + len(shim)] == shim)
    return Start(start.kind, (*words[:at], *words[at + len(shim) :]), start.environ)


def _await_ranks(folder: Path, launcher: str, wanted: int, process: subprocess.Popen[bytes]) -> str:
    """Until every rank and its child are up; what went wrong, "" when nothing did."""
    until = time.monotonic() + START_SECONDS
    while (up := _starts(folder, launcher)) < wanted:
        if process.poll() is not None or time.monotonic() > until:
            log = (folder / f"{launcher}.log").read_text(errors="replace")
            lines = [line for line in log.splitlines() if any(c.isalnum() for c in line)]
            last = f": {lines[-1][:200]}" if lines else ""
            when = f"within {START_SECONDS:g} s" if process.poll() is None else "before it ended"
            return f"{up} of {wanted} ranks and children came up {when}{last}"
        time.sleep(0.05)
    time.sleep(0.5)
    return ""


def _starts(folder: Path, launcher: str) -> int:
    return sum(path.read_text().count(" START ") for path in folder.glob(f"heard-{launcher}-rank*"))


def _send(way: str, job_id: str, process: subprocess.Popen[bytes]) -> str:
    """Send USR1 this way; the words of what failed, "" when it was done."""
    options = WAYS[way]
    if options is None:
        return _kill(process)
    answer = execute(["scancel", *options, "--signal=USR1", job_id], 15.0)
    # With --full the command itself is told as well, and ends by it: its order was given by then.
    return "" if answer.code in (0, -int(signal.SIGUSR1)) else said(answer)


def _kill(process: subprocess.Popen[bytes]) -> str:
    try:
        os.kill(process.pid, signal.SIGUSR1)
    except OSError as error:
        return str(error.strerror)
    return ""


def _await_limit(folder: Path, slurm: SlurmEnvironment) -> None:
    """Ranks by srun, until somebody is warned."""
    count, process = max(slurm.nnodes or 1, 1), None
    try:
        process = _launch(folder, "srun", _start(folder, "srun", count, slurm))
        problem = _await_ranks(folder, "srun", 2 * count, process)
        if problem:
            _note(folder, launcher="srun", problem=problem)
            return
        end = show_job(str(slurm.job_id)).end  # SLURM_JOB_END_TIME came after 22.05
        _note(folder, launcher="srun", event="limit", at=time.time(), words="", survived=True, end=end)
        until = time.monotonic() + LIMIT_SECONDS
        while time.monotonic() < until and not _anybody_heard(folder):
            time.sleep(0.2)
        time.sleep(SETTLE)
    except (HpcresumeError, OSError) as error:
        _note(folder, launcher="srun", problem=error.what if isinstance(error, HpcresumeError) else str(error))
    finally:
        (folder / "leave-srun").touch()
        if process is not None:
            _end(process)


def _anybody_heard(folder: Path) -> bool:
    return any(" USR1" in path.read_text(errors="replace") for path in folder.glob("heard-*"))


def _end(process: subprocess.Popen[bytes]) -> None:
    for end in (None, process.terminate, process.kill):
        if end is not None:
            end()
        try:
            process.wait(LEAVE_SECONDS)
            return
        except subprocess.TimeoutExpired:
            continue


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
