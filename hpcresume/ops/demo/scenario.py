"""Runs the demo: three attempts that are warned, killed and damaged, then the reference, then the judgement."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hpcresume.checkpoint.attempts import read_holder
from hpcresume.checkpoint.generations import Generations, committed_names
from hpcresume.config.timetable import AtStep, EmulatedJob, Preemption, RankKill
from hpcresume.emulate.job import AttemptEnd, emulate
from hpcresume.errors import PeerFailureError
from hpcresume.io.durable import make_directory
from hpcresume.io.paths import RunPaths
from hpcresume.model import Event
from hpcresume.observe.curve import Point, read_curve
from hpcresume.observe.follow import RunFollower
from hpcresume.observe.history import RunHistory, read_history
from hpcresume.observe.narrate import Line
from hpcresume.ops.demo.compare import Comparison, compare_finals, compare_logged, compare_traces, merge
from hpcresume.ops.demo.damage import Damage, damage_newest
from hpcresume.ops.demo.narrate import narrate_deed
from hpcresume.ops.demo.options import DemoOptions, timetable
from hpcresume.ops.demo.plot import Picture, draw
from hpcresume.ops.demo.reference import run_reference
from hpcresume.ops.demo.traces import Trace, read_trace
from hpcresume.ops.demo.verdict import Report, scenario_differences, title
from hpcresume.ops.demo.views import View, Watching
from hpcresume.ops.resources import example_path

__all__ = ["judge", "run_demo"]

GRACE = 20.0
"""Seconds between warning and kill of the emulated preemption: plenty for a save of some MiB."""
KILL_WAIT = 1.0
"""Seconds from TERM to KILL for the peers of the rank that was killed; Slurm's own default is 30."""
ATTEMPTS = 3


def run_demo(options: DemoOptions, view: View) -> Report:
    """Run everything; the plot is drawn, the folder removed unless it is to be kept or something differs.

    Raises:
        PeerFailureError: a training failed for a reason that is no part of the demo.
        HpcresumeError: the emulator or the checkpoints failed.
    """
    began = time.time()
    with _folder(options) as folder:
        view.open()
        try:
            between = _interrupted(options, folder, view)
            middle = time.time()
            _reference(options, folder, view)
        finally:
            view.close()
        report = _report(options, folder, between, began)
        _plot(options, folder, report, (began, middle))
        if report.identical and options.keep is None:
            shutil.rmtree(folder)
            report = replace(report, kept=None)
    return report


@contextmanager
def _folder(options: DemoOptions) -> Iterator[Path]:
    """Where everything lies. What a failed demo leaves is kept, and said so."""
    if options.keep is not None:
        folder = options.keep.absolute()
        make_directory(folder)
    else:
        folder = Path(tempfile.mkdtemp(prefix="hpcresume-demo-"))
    try:
        yield folder
    except KeyboardInterrupt:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _training(options: DemoOptions, program: str, out: Path) -> list[str]:
    # One thread a rank: more than there are cores cost time, and another number of them in one of the two
    # trainings would add numbers up in another order.
    return [
        "env",
        "OMP_NUM_THREADS=1",
        sys.executable,
        str(example_path(f"gpt/{program}")),
        "--steps",
        str(options.steps),
        "--seed",
        str(options.seed),
        "--out",
        str(out),
    ]


class _Between:
    """What the demo does while the job is in the queue: damages once, and times the verification that follows."""

    def __init__(self, run: RunPaths, seed: int, view: View) -> None:
        self._run = run
        self._seed = seed
        self._view = view
        self.damage: Damage | None = None
        self.verify_seconds: dict[int, float] = {}

    def __call__(self, end: AttemptEnd) -> None:
        """Called after an attempt that comes back."""
        if any(entry.startswith("--kill-rank") for entry in end.fired):
            self.damage = damage_newest(self._run.root, self._seed)
            made = self.damage
            text = f"one bit flipped on disk: {made.generation}, {made.tensor}, byte {made.offset}"
            self._view.note(Line(time.time(), text, "bad"))
        seconds = _time_verifying(self._run)
        if seconds is not None:
            self.verify_seconds[end.number + 1] = seconds


def _time_verifying(run: RunPaths) -> float | None:
    """Seconds to verify the newest generation that verifies: the one that the next attempt will start from."""
    generations = Generations(run.root)
    for generation in generations.lineage():
        start = time.perf_counter()
        if generations.verify(generation).ok:
            return time.perf_counter() - start
    return None


def _interrupted(options: DemoOptions, folder: Path, view: View) -> _Between:
    """The job: warned once, killed once, damaged once, started three times."""
    plan = timetable(options)
    run = RunPaths(folder / "run")
    command = [
        *_training(options, "train.py", folder / "trace"),
        *("--run", str(run.root), "--every", f"{plan.every} steps"),
    ]
    job = EmulatedJob(
        command=tuple(command),
        nodes=options.nodes,
        tasks_per_node=options.ranks // options.nodes,
        timetable=(Preemption(AtStep(plan.warned)), RankKill(AtStep(plan.killed), plan.victim)),
        grace=GRACE,
        kill_wait=KILL_WAIT,
        requeue_delay=0.5,
        max_attempts=ATTEMPTS + 1,
        keep_logs=folder / "logs",
        job_name="hpcresume-demo",
    )
    between = _Between(run, options.seed, view)
    follower = RunFollower(run)

    def look() -> None:
        for update in follower.poll():
            view.update(update)

    def tell(event: Event) -> None:
        line = narrate_deed(event, time.time())
        if line is not None:
            view.note(line)

    with Watching(look):
        emulate(job, emit=tell, between_attempts=between)
    if not run.done.exists():
        raise _unfinished(run, folder / "logs")
    return between


def _unfinished(run: RunPaths, logs: Path) -> PeerFailureError:
    attempts = read_history(run).attempts
    evidence = attempts[-1].evidence if attempts else ()
    why = evidence[0] if evidence else "it left no word"
    what = f"the interrupted training did not finish after {len(attempts)} attempts: {why}"
    return PeerFailureError(what, where=str(logs), hint="read the newest log")


def _reference(options: DemoOptions, folder: Path, view: View) -> None:
    view.note(Line(time.time(), "now the same training without interruption, as a plain loop without hpcresume"))
    out = folder / "reference"
    run_reference(_training(options, "plain.py", out), ranks=options.ranks, folder=out, show=view.reference)


def judge(options: DemoOptions, folder: Path) -> Comparison:
    """Compare what the two trainings left in `folder`, everything with everything."""
    run = RunPaths(folder / "run")
    return _compare(options, folder, run, read_history(run))


def _report(options: DemoOptions, folder: Path, between: _Between, began: float) -> Report:
    run = RunPaths(folder / "run")
    history = read_history(run)
    promised = Comparison(scenario_differences(history, between.damage))
    comparison = merge(promised, judge(options, folder))
    return Report(
        steps=options.steps,
        ranks=options.ranks,
        nodes=options.nodes,
        comparison=comparison,
        history=history,
        generations=tuple(committed_names(run)),
        damage=between.damage,
        seconds=time.time() - began,
        verify_seconds=between.verify_seconds,
        plot=options.plot_path,
        kept=folder,
    )


def _compare(options: DemoOptions, folder: Path, run: RunPaths, history: RunHistory) -> Comparison:
    restarts = {a.attempt: _restart(run, a.attempt) for a in history.attempts}

    def owner(step: int) -> int | None:
        """The loop counts from 0; a step is owned under the number it has when it is finished."""
        attempt = history.owner(step + 1)
        return None if attempt is None else restarts[attempt]

    ours, reference = read_trace(folder / "trace"), read_trace(folder / "reference")
    traces = compare_traces(ours, reference, ranks=options.ranks, steps=options.steps, owner=owner)
    finals = compare_finals(folder / "trace", folder / "reference", ranks=options.ranks)
    logged = compare_logged(read_curve(run, history).kept, reference, steps=options.steps)
    return merge(merge(traces, logged), finals)


def _restart(run: RunPaths, attempt: int) -> int:
    """Slurm's restart count of an attempt, under which its traces are named."""
    holder = read_holder(run, attempt)
    return attempt - 1 if holder is None else holder.restart


def _plot(options: DemoOptions, folder: Path, report: Report, began: tuple[float, float]) -> None:
    picture = Picture(
        attempts=report.history.attempts,
        curve=read_curve(RunPaths(folder / "run"), report.history),
        reference=_reference_points(read_trace(folder / "reference"), options.steps),
        verdict=title(report),
        identical=report.identical,
        began=began[0],
        reference_began=began[1],
    )
    draw(picture, options.plot_path)


def _reference_points(trace: Trace, steps: int) -> list[Point]:
    found = ((step, trace.steps.get((0, 0, step))) for step in range(steps))
    return [Point(step + 1, record.t, record.value, 0) for step, record in found if record is not None]
