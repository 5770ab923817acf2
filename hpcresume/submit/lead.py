"""A job's time: how long before the end it is warned, whether its least is enough, whether a maintenance is ahead."""

from __future__ import annotations

import glob
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hpcresume.config.durations import format_seconds, parse_duration
from hpcresume.config.job_spec import JobSpec
from hpcresume.config.slurm_options import parse_time_limit
from hpcresume.errors import ConfigError
from hpcresume.io.paths import RunPaths
from hpcresume.io.timings import read_timings
from hpcresume.policy.lead import Lead, Timings, needed, needed_lead
from hpcresume.slurm.maintenance import Maintenance, maintenance_in_the_way
from hpcresume.submit.check import Check

__all__ = ["lead_checks", "maintenance_checks", "warning_lead"]

UNMEASURED = 300.0
"""Seconds of `warning_lead: auto` before the run has saved for the first time; at most a quarter of the time limit."""


def warning_lead(spec: JobSpec) -> int:
    """Whole seconds for `--signal`, at least 1."""
    if spec.requeue.warning_lead != "auto":
        return max(1, round(parse_duration(spec.requeue.warning_lead)))
    lead = _measured(spec)
    if lead is not None:
        return max(1, math.ceil(lead.seconds))
    shortest = _shortest(spec)
    return max(1, math.floor(UNMEASURED if shortest is None else min(UNMEASURED, shortest / 4)))


def lead_checks(spec: JobSpec) -> Iterator[Check]:
    """What the run's own measures say of the warning and of the shortest time that the job makes do with."""
    lead, seconds = _measured(spec), warning_lead(spec)
    if spec.requeue.warning_lead == "auto":
        why = lead.why if lead is not None else "this run has not measured a save yet"
        yield Check("warning", "ok", f"{format_seconds(seconds)} before the end: {why}")
    elif lead is not None and seconds < lead.seconds:
        what = f"the warning comes {format_seconds(seconds)} before the end, and this run needs {lead.seconds:.0f} s"
        yield Check("warning", "noted", f"{what}: {lead.why}; the supervisor's own clock makes up for it",
                    "requeue.warning_lead: auto")  # fmt: skip
    need, least = needed(_timings(spec)), _limit(spec.resources.time_min)
    if need is not None and least is not None and least < need:
        what = f"a start with no more than time_min would have {format_seconds(least)}, and this run needs {need:.0f} s"
        yield Check("time_min", "noted", f"{what} to begin, work a step and save it",
                    f"resources.time_min: {format_seconds(math.ceil(need / 60) * 60 * 2)}")  # fmt: skip


def maintenance_checks(
    spec: JobSpec,
    partition: str,
    now: Callable[[], float] = time.time,
    look: Callable[[str, int, float | None, float], Maintenance | None] = maintenance_in_the_way,
) -> Iterator[Check]:
    """A maintenance that the job would have to wait for, though it could start before it with `time_min`."""
    if spec.resources.reservation is not None:
        return
    moment, want = now(), spec.resources
    seconds = _limit(want.time_min) if want.time_min is not None else _limit(want.time)
    if want.time is None:
        return  # the limit is the partition's
    found = look(partition, want.nodes, seconds, moment)
    if found is None:
        return
    left = found.start - moment
    begins = f"begins in {format_seconds(left)}" if left > 0 else "is going on"
    over = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.end))
    what = f"the maintenance {found.name} {begins}: the job waits until it is over, {over}"
    fits = math.floor(left / 2 / 60)
    yield Check("maintenance", "noted", what, f"resources.time_min: {fits}min" if fits >= 5 else "wait")


def _measured(spec: JobSpec) -> Lead | None:
    return needed_lead(_timings(spec), _shortest(spec))


def _timings(spec: JobSpec) -> Timings:
    """What the run has measured; of an array the first of its tasks that has measured anything."""
    root = Path(spec.run_directory)
    found = read_timings(RunPaths(root))
    if found.saves or spec.resources.array is None:
        return found
    tasks = sorted(root.parent.glob(f"{glob.escape(root.name)}-*"))
    return next((each for each in (read_timings(RunPaths(task)) for task in tasks) if each.saves), found)


def _shortest(spec: JobSpec) -> float | None:
    """The shortest time that Slurm may give the job, None when there is no limit in its description."""
    least = _limit(spec.resources.time_min)
    return least if least is not None else _limit(spec.resources.time)


def _limit(text: str | None) -> float | None:
    try:
        return None if text is None else parse_time_limit(text)
    except ConfigError:
        return None
