"""A preempted job whose requeue Slurm does not take from us stays until Slurm ends it, and not longer than it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hpcresume.launch.comeback import Carried, carry_out
from hpcresume.launch.last_wait import LATE, LOOK_EVERY, PATIENCE, await_slurm
from hpcresume.model import Cause
from hpcresume.slurm.commands import Answer
from tests.launch.test_comeback import BACK, Bench

MISSING = Answer(None, "", "FileNotFoundError: [Errno 2] No such file or directory: 'scontrol'")
REFUSED = Answer(1, "", "Access/permission denied for job\n")
PREEMPTED = replace(BACK, barren=0)


class Wait:
    """The wait for the end of a job whose requeue is not taken; the end comes when `ends_at` is there."""

    def __init__(self, bench: Bench, grace: float | None, ends_at: float | None, *, known: bool = True) -> None:
        self.bench = bench
        self.ends_at = None if ends_at is None else bench.slurm.now + ends_at
        if grace is not None:
            bench.slurm.preempt(bench.job, grace)
        evidence = bench.evidence() if known else replace(bench.evidence(), job=())
        self.case = bench.case(Cause.PREEMPTED, PREEMPTED, evidence)
        self.begun = bench.slurm.now

    def waits(self, seconds: float) -> bool:
        """As `await_ending` does: until then, or until the end has come."""
        until = self.bench.slurm.now + seconds
        if self.ends_at is not None and self.ends_at <= until:
            self.bench.slurm.now = max(self.bench.slurm.now, self.ends_at)
            return True
        self.bench.slurm.now = until
        return False

    def out(self) -> Carried:
        first = carry_out(self.case, self.bench.hands())
        assert first == Carried(awaits_end=True)
        return await_slurm(self.case, self.bench.hands(), self.waits)

    @property
    def lasted(self) -> float:
        return self.bench.slurm.now - self.begun


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Bench(tmp_path)


def only(verb: str, answer: Answer) -> Callable[[object], Answer | None]:
    return lambda words: answer if list(words)[:2] == ["scontrol", verb] else None  # type: ignore[call-overload]


def test_it_stays_through_a_grace_of_two_hours_and_slurm_ends_it(bench: Bench):
    wait = Wait(bench, grace=7200, ends_at=7230)
    bench.slurm.fault = only("requeue", MISSING)
    assert wait.out() == Carried(awaits_end=True)
    assert wait.lasted == pytest.approx(7230)
    until = [line["until"] for line in bench.recorded if line["event"] == "awaits-end"]
    assert until == [wait.begun + 7200 + LATE], "what the other tasks go by is said once"


def test_where_nobody_can_be_asked_at_all_it_stays_half_an_hour(bench: Bench):
    wait = Wait(bench, grace=None, ends_at=None, known=False)
    bench.slurm.fault = lambda words: MISSING
    assert wait.out() == Carried()
    assert PATIENCE <= wait.lasted <= PATIENCE + LOOK_EVERY


def test_an_end_that_does_not_come_is_waited_for_no_longer_than_it_may_be_late(bench: Bench):
    wait = Wait(bench, grace=60, ends_at=None)
    bench.slurm.fault = lambda words: only("requeue", MISSING)(words) if wait.lasted < 60 else None
    assert wait.out() == Carried(back=True), "Slurm has not done it, so it is asked to, once more"
    assert 60 + LATE <= wait.lasted <= 60 + LATE + LOOK_EVERY
    assert bench.job.restarts == 1


def test_a_preemption_that_was_a_guess_is_given_up_as_soon_as_slurm_says_that_there_is_none(bench: Bench):
    wait = Wait(bench, grace=None, ends_at=None, known=False)
    bench.slurm.fault = lambda words: MISSING if wait.lasted < 100 else None
    assert wait.out() == Carried(back=True)
    assert 100 <= wait.lasted <= 100 + LOOK_EVERY


def test_slurm_may_say_later_until_when_it_waits(bench: Bench):
    wait = Wait(bench, grace=3600, ends_at=None, known=False)
    bench.slurm.fault = lambda words: MISSING if wait.lasted < 100 else only("requeue", MISSING)(words)
    assert wait.out() == Carried()
    assert 3600 + LATE <= wait.lasted <= 3600 + LATE + LOOK_EVERY


def test_a_start_that_slurm_began_meanwhile_is_left_alone(bench: Bench):
    wait = Wait(bench, grace=60, ends_at=None)

    def fault(words: object) -> Answer | None:
        if wait.lasted > 90 and not bench.job.restarts:  # its node was cut off: Slurm has ended it and started it again
            bench.slurm.end_grace(bench.job)
            bench.comes_back()
        return only("requeue", MISSING)(words)

    bench.slurm.fault = fault
    assert wait.out() == Carried()
    assert (bench.job.state, bench.job.restarts) == ("RUNNING", 1)


def test_a_job_that_cannot_go_on_as_another_one_waits_for_slurm_where_its_requeue_is_refused(bench: Bench):
    """submitit's jobs, and any where the site lets no user requeue: leaving in the grace was the end of them."""
    bench.job.script = "#!/bin/bash\nsrun python -u -m submitit.core._submit /jobs\n"
    wait = Wait(bench, grace=600, ends_at=610)
    bench.slurm.fault = only("requeue", REFUSED)
    assert wait.out() == Carried(awaits_end=True)
    assert len(bench.slurm.jobs) == 1


def test_on_a_guess_nothing_is_waited_for_that_was_refused(bench: Bench):
    unasked = replace(bench.evidence(), job=())
    bench.slurm.fault = lambda words: Answer(1, "", "scontrol: fatal: Could not establish a configuration source\n")
    assert bench.ends(Cause.PREEMPTED, PREEMPTED, unasked) == Carried()


def test_a_job_that_may_not_be_requeued_at_all_waits_for_nothing(tmp_path: Path):
    bench = Bench(tmp_path, requeue=False)
    bench.slurm.preempt(bench.job, 600)
    assert bench.ends(Cause.PREEMPTED, PREEMPTED) == Carried()
