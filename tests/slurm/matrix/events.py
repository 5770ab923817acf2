"""The events: how a job must be submitted for each, what is done to it, and how it is known that it happened."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hpcresume.errors import SlurmError
from hpcresume.slurm.job_text import parse_time
from tests.slurm.matrix.trial import Trial

__all__ = ["EVENTS", "Event"]

GRACE = 15
LEFT = 4.0
"""Seconds without a step, each of which takes one, after which a start has left."""


@dataclass(frozen=True)
class Event:
    """Something that happens to a running training.

    Attributes:
        name: short, for tests and the table.
        words: for people.
        meet: does it, and asserts that it happened.
        signal: `--signal` of the job; of submitit's ways where it is theirs, the word "own".
        user_signal: whether the cluster sends that signal when it preempts.
        grace: GraceTime of the partition.
        limit: the job's time limit in minutes.
        options: further options of the job.
        prepare: files for the training.
        nodes: how many nodes the partition has.
        alone: disturbs the whole cluster.
        seconds: until the job must be over.
    """

    name: str
    words: str
    meet: Callable[[Trial], None]
    signal: str = "B:USR1@20"
    user_signal: bool = True
    grace: int = GRACE
    limit: int = 10
    options: Mapping[str, str] = field(default_factory=dict)
    prepare: tuple[str, ...] = ()
    nodes: int = 2
    alone: bool = False
    seconds: float = 150


def _preempt(trial: Trial) -> None:
    nodes = ",".join(trial.job_nodes())
    count = nodes.count(",") + 1
    job = trial.ask("sbatch", "--parsable", f"--partition={trial.high}", f"--nodelist={nodes}", f"--nodes={count}",
                    "--exclusive", "--output=/dev/null", "--wrap=sleep 1").strip()  # fmt: skip
    trial.listen_for_the_end()
    over = ["squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}"]
    trial.wait(lambda: trial.ask(*over).strip() == "COMPLETED", "end of the job that preempts", 90)


def _limit(trial: Trial) -> None:
    trial.told = parse_time(trial.facts()["EndTime"])
    assert trial.told is not None
    trial.wait(lambda: trial.facts()["Restarts"] == "1", "a second start", 200)
    # Slurm warns up to 60 s early: a short second start might be warned before it trains.
    trial.ask("scontrol", "update", f"JobId={trial.job}", "TimeLimit=10")


def _signal(*options: str, step: str = "") -> Callable[[Trial], None]:
    def meet(trial: Trial) -> None:
        try:
            trial.ask("scancel", *options, "--signal=USR1", trial.job + step)
        except SlurmError as error:  # scancel tries again when the step dies of the signal, and then finds it gone
            trial.words = error.what

    return meet


def _requeue(trial: Trial) -> None:
    trial.ask("scontrol", "requeue", trial.job)


def _requeue_saving(trial: Trial) -> None:
    """The save of step 60; a folder is there while it goes on."""
    until = time.monotonic() + 90
    while not list((trial.run / "generations").glob(".g000000000060-*")):
        assert time.monotonic() < until, "no save"
        time.sleep(0.002)
    trial.ask("scontrol", "requeue", trial.job)
    staging = list((trial.run / "generations").glob(".g000000000060-*"))
    assert staging, "the save was over before the requeue"


def _power_off(which: int) -> Callable[[Trial], None]:
    def meet(trial: Trial) -> None:
        nodes = trial.job_nodes()
        node = nodes[min(which, len(nodes) - 1)]
        trial.power_off(node)
        trial.wait(lambda: trial.facts()["Restarts"] == "1" or trial.facts()["JobState"] != "RUNNING", "end", 60)
        trial.wait(lambda: "down" in trial.ask("sinfo", "-hN", f"-n{node}", "-o%T"), "notice of Slurm's", 60)
        trial.mend()

    return meet


def _split_brain(trial: Trial) -> None:
    nodes = trial.job_nodes()
    trial.lose_slurmd(*nodes)
    trial.wait(lambda: trial.attempts() > 1, "a second attempt", 90)
    trial.wait(lambda: trial.silence_of_first() > LEFT, "end of the older start", 60)  # before `hurry` speeds it up
    trial.wait(lambda: trial.attempts() > 1, "a second attempt", 90)


def _restart_controller(trial: Trial) -> None:
    trial.cluster.stop_controller()
    time.sleep(2)
    trial.cluster.start_controller()
    before = trial.attempts(), trial.facts()["JobState"]
    assert before == (1, "RUNNING"), before
    trial.hurry()


def _drain(trial: Trial) -> None:
    node = trial.job_nodes()[-1]
    trial.ask("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=maintenance")
    assert "drain" in trial.ask("sinfo", "-hN", f"-n{node}", "-o%T")
    time.sleep(2)
    trial.hurry()


def _hold_and_release(trial: Trial) -> None:
    trial.ask("scontrol", "hold", trial.job)
    trial.ask("scontrol", "requeue", trial.job)
    trial.wait(lambda: _is_held(trial.facts()), "hold", 60)
    time.sleep(7)  # longer than a requeued job waits here
    assert trial.attempts() == 1
    trial.ask("scontrol", "release", trial.job)


def _is_held(facts: dict[str, str]) -> bool:
    """By its user, or by root where that is the user."""
    return facts["JobState"] == "PENDING" and facts["Reason"] in ("JobHeldUser", "JobHeldAdmin")


def _cancel(trial: Trial) -> None:
    trial.ask("scancel", trial.job)


def _fault(name: str) -> Callable[[Trial], None]:
    def meet(trial: Trial) -> None:
        fault = trial.results(trial.run) / name
        fault.touch()
        trial.wait(fault.with_name(f"{name}-happened").exists, "fault", 30)

    return meet


EVENTS = {event.name: event for event in (
    Event("preempt-batch", "preempted, `--signal=B:USR1@…`", _preempt),
    Event("preempt-ranks", "preempted, `--signal=USR1@…`", _preempt, signal="USR1@20"),
    Event("preempt-term", "preempted, no user signal on the cluster (TERM only)", _preempt, user_signal=False),
    Event("preempt-at-once", "preempted, GraceTime=0", _preempt, grace=0),
    Event("time-limit", "time limit", _limit, limit=2, seconds=240),
    Event("signal", "`scancel -s USR1 JOB`", _signal()),
    Event("signal-batch", "`scancel -b -s USR1 JOB`", _signal("--batch")),
    Event("signal-full", "`scancel --full -s USR1 JOB`", _signal("--full")),
    Event("signal-step", "`scancel -s USR1 JOB.0`", _signal(step=".0")),
    Event("requeue", "`scontrol requeue`", _requeue),
    Event("requeue-saving", "`scontrol requeue` in the midst of a save", _requeue_saving, prepare=("ballast",),
          seconds=240),
    Event("node-off", "a node loses power, not the batch script's", _power_off(1)),
    Event("batch-node-off", "the batch script's node loses power", _power_off(0)),
    Event("split-brain", "slurmd killed, ranks left alive", _split_brain, nodes=4),
    Event("controller", "slurmctld restarted", _restart_controller, alone=True),
    Event("drain", "node drained", _drain),
    Event("no-requeue", "preempted, job with `--no-requeue`", _preempt, options={"no-requeue": ""}),
    Event("hold", "held, requeued, released", _hold_and_release),
    Event("cancel", "`scancel`", _cancel),
    Event("memory", "out of memory", _fault("memory")),
    Event("crash", "an exception in the training", _fault("crash")),
    Event("exit-0", "the training exits 0 before it is done", _fault("exit-0")),
)}  # fmt: skip
