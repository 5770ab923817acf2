"""Two jobs of one run: the one that does not get it steps back, and nothing of it is held against the run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcresume.launch.options import LaunchOptions, Outcome
from hpcresume.launch.other_hands import step_aside, was_refused
from hpcresume.model import EXIT_HOLD, Decision
from hpcresume.policy.cause import ChildExit, Evidence, SessionDecision, SignalReceived
from hpcresume.policy.fallback import Fallback
from hpcresume.slurm.commands import Answer
from hpcresume.slurm.sibling_list import GUARD, Sibling, note_waiting
from hpcresume.testing.fake_slurm import FakeJob
from tests.launch.test_comeback import Bench


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Bench(tmp_path)


def claims(bench: Bench, job: FakeJob, number: int = 1) -> None:
    attempt = bench.run.attempt(number)
    attempt.root.mkdir(exist_ok=True)
    attempt.claim.write_text(json.dumps({"job_id": job.id, "restart": job.restarts}))


def refused(bench: Bench, job: FakeJob, **options: object) -> Outcome | None:
    """The ranks of `job` have ended, since the run was claimed by another one."""
    given = LaunchOptions(("train",), run=bench.root, **options)  # type: ignore[arg-type]
    return step_aside(given, bench.environment(job), bench.run, bench.hands(job), refused=True)


def sibling(bench: Bench, why: str = "fallback") -> FakeJob:
    """A job that this run's first one has submitted, and that runs now beside it."""
    job = bench.slurm.submit("#!/bin/sh\n", options=[f"--export=ALL,HPCRESUME_BEHIND={why}:{bench.job.id}"])
    assert job in bench.slurm.start_due()
    return job


def untouched(bench: Bench) -> bool:
    """Neither the budgets nor the attempts know of it."""
    return not (bench.root / "launch/barren-starts.jsonl").exists() and len(bench.run.attempt_numbers()) == 1


def test_a_fallback_that_starts_beside_its_job_steps_back_at_once(bench: Bench):
    """It waited three minutes for that job's death, lost the claim, and was requeued as for a failing filesystem."""
    bench.ends(fallback=Fallback("high", after_waiting=0))
    (twin,) = (job for job in bench.slurm.jobs.values() if job is not bench.job)
    bench.comes_back()
    assert twin.running
    claims(bench, bench.job)
    before = bench.slurm.now
    out = bench.admitted(twin).refused
    assert out is not None
    assert (out.exit_code, out.requeued, out.held) == (0, False, False)
    assert f"job {bench.job.id} is at work on {bench.root} (attempt 1): nothing to start" in out.reason
    assert bench.slurm.now == before
    assert bench.job.running
    assert untouched(bench)


@pytest.mark.parametrize("why", ["fallback", "guard", "resubmitted"])
def test_a_job_that_loses_the_claim_to_another_one_ends_well_and_counts_nowhere(bench: Bench, why: str):
    twin = sibling(bench, why)
    claims(bench, bench.job)
    out = refused(bench, twin)
    assert out is not None
    assert (out.exit_code, out.decision, out.requeued) == (0, "come-back", False)
    assert twin.running
    assert untouched(bench)


def test_its_own_guard_goes_with_it_and_that_of_the_job_at_work_stays(bench: Bench):
    twin = sibling(bench)
    claims(bench, bench.job)
    guards = []
    for job in (bench.job, twin):
        guard = bench.slurm.submit("#!/bin/sh\n", depends=("afternotok", job.id))
        note_waiting(bench.root, Sibling(guard.id, GUARD, job.id))
        guards.append(guard)
    assert refused(bench, twin) is not None
    assert [guard.state for guard in guards] == ["PENDING", "CANCELLED"]


def test_the_users_own_job_that_slurm_starts_again_waits_behind_the_one_at_work(bench: Bench):
    """A fallback has begun in the same moment. Were this job to end, the queue would no longer show the run by it."""
    twin = sibling(bench)
    bench.slurm.requeue(bench.job)
    bench.comes_back()
    claims(bench, twin)
    out = bench.admitted().refused
    assert out is not None
    assert (out.exit_code, out.requeued) == (75, True)
    bench.slurm.gone(bench.job)
    bench.slurm.advance(9000)
    assert bench.slurm.start_due() == []
    assert bench.job.depends == ("afterany", twin.id)
    bench.slurm.finish(twin, 0)
    assert bench.slurm.start_due() == [bench.job]
    assert bench.admitted().refused is None, "and goes on where nothing was finished"
    assert untouched(bench)


def test_a_job_that_goes_on_waits_behind_one_that_is_long_in_ending(bench: Bench):
    """Slurm may show a job as COMPLETING for many minutes, while a process of it hangs in a filesystem."""
    again = sibling(bench, "resubmitted")
    claims(bench, bench.job)
    bench.slurm.cancel(bench.job)
    out = refused(bench, again)
    assert out is not None
    assert out.requeued
    bench.slurm.gone(again)
    bench.slurm.advance(9000)
    assert bench.slurm.start_due() == []
    bench.slurm.gone(bench.job)
    assert bench.slurm.start_due() == [again]


def test_a_job_that_a_person_submitted_twice_ends_with_its_code_and_takes_no_guard_with_it(bench: Bench):
    claims(bench, bench.job)
    guard = bench.slurm.submit("#!/bin/sh\n", depends=("afternotok", bench.job.id))
    note_waiting(bench.root, Sibling(guard.id, GUARD, bench.job.id))
    second = bench.slurm.submit("#!/bin/sh\n")
    bench.slurm.start_due()
    out = refused(bench, second)
    assert out is not None
    assert (out.exit_code, out.held, out.requeued) == (73, False, False)
    assert guard.state == "PENDING"
    assert untouched(bench)


def test_what_is_not_another_jobs_doing_goes_its_usual_way(bench: Bench):
    twin = sibling(bench)
    assert refused(bench, twin) is None, "nobody has claimed anything"
    claims(bench, twin)
    assert refused(bench, twin) is None, "it was this very job"
    claims(bench, bench.job)
    bench.slurm.fault = lambda words: Answer(1, "", "Unable to contact slurm controller (connect failure)\n")
    assert refused(bench, twin) is None, "nobody can say so"
    bench.slurm.fault = None
    bench.slurm.finish(bench.job, 1)
    assert refused(bench, twin) is None, "it is over"


def test_who_wants_no_requeue_is_not_requeued(bench: Bench):
    twin = sibling(bench)
    bench.slurm.requeue(bench.job)
    bench.comes_back()
    claims(bench, twin)
    assert refused(bench, bench.job, requeue=False) is None


@pytest.mark.parametrize(
    ("evidence", "was"),
    [
        (Evidence(child=ChildExit(73)), True),
        (Evidence(child=ChildExit(0), decision=SessionDecision(Decision.HOLD, exit_code=73)), True),
        (Evidence(child=ChildExit(73), claimed=True), False),
        (Evidence(child=ChildExit(EXIT_HOLD)), False),
        (Evidence(child=ChildExit(73), child_at=2.0, signals=(SignalReceived(15, 1.0),)), False),
    ],
)
def test_what_a_refusal_looks_like(evidence: Evidence, was: bool):
    assert was_refused(evidence) is was
