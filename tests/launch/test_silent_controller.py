"""A controller that is silent when a job ends: no guard is sent away for it, and no older answer taken for its word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from hpcresume.launch.comeback import Carried, carry_out
from hpcresume.launch.ending import conclude
from hpcresume.launch.options import LaunchOptions
from hpcresume.launch.rendezvous import Claimed
from hpcresume.launch.siblings import needless
from hpcresume.model import Cause, Decision
from hpcresume.policy.cause import ChildExit, Evidence, SessionDecision, SignalReceived
from hpcresume.policy.fallback import Fallback
from hpcresume.slurm.commands import Answer
from hpcresume.slurm.sibling_list import GUARD, Sibling, read_siblings
from hpcresume.testing.fake_slurm import FakeJob
from tests.launch.test_comeback import Bench

SILENT = Answer(1, "", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n")
TERM, SECONDS = 15, 1000.0


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A job, and the guard that is left where the cluster forbids requeues."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    bench = Bench(tmp_path)
    bench.slurm.job_requeue, bench.job.requeue = False, False
    assert bench.admitted().refused is None
    return bench


def be_silent(bench: Bench, silent: bool = True) -> None:
    bench.slurm.fault = (lambda _words: SILENT) if silent else None


def goes_on_by_its_guard(bench: Bench) -> bool:
    """The job is over by now. Does the one behind it start, and find that it is needed?"""
    be_silent(bench, silent=False)
    bench.slurm.advance(300)
    (guard,) = bench.slurm.start_due()
    return needless(bench.environment(guard), bench.run, bench.hands(guard)) == ""


@pytest.mark.parametrize("hurry", [True, False], ids=["to be killed soon", "with time to ask"])
def test_where_nobody_says_whose_wish_it_is_not_to_be_requeued_the_guard_goes_on(bench: Bench, hurry, capsys):
    signals = (SignalReceived(TERM, bench.slurm.now),) if hurry else ()
    evidence = bench.evidence(signals=signals, child_at=bench.slurm.now + 5)
    be_silent(bench)
    assert bench.ends(Cause.WALLTIME if hurry else Cause.CRASH, evidence=evidence) == Carried()
    assert "with --no-requeue" not in capsys.readouterr().err
    bench.slurm.finish(bench.job, 75)
    assert goes_on_by_its_guard(bench)


def test_a_job_that_its_user_does_not_want_requeued_sends_its_guard_away(bench: Bench):
    bench.slurm.job_requeue = True
    assert bench.ends() == Carried()
    assert [job.state for job in bench.slurm.jobs.values()] == ["RUNNING", "CANCELLED"]


@pytest.mark.parametrize("saved", [True, False], ids=["saved", "died"])
def test_an_old_answer_does_not_say_that_a_person_ended_the_job(bench: Bench, saved):
    """Slurm was asked when the attempt began. What it planned then says nothing of the TERM."""
    (facts,) = bench.evidence().job
    facts = replace(facts, asked_at=bench.slurm.now - SECONDS, start=bench.slurm.now - SECONDS)
    decision = SessionDecision(Decision.COME_BACK, "warned", 5) if saved else None
    evidence = Evidence(
        claimed=True, decision=decision, child=ChildExit(75 if saved else 143), child_at=bench.slurm.now + 5,
        signals=(SignalReceived(TERM, bench.slurm.now),), job=(facts,),
    )  # fmt: skip
    be_silent(bench)
    options = LaunchOptions(("train",), run=bench.root)
    case = conclude(options, bench.environment(), Claimed(bench.run, 1), evidence, lambda *_, **__: None)
    assert case.ending.cause is (Cause.PREEMPTED if saved else Cause.UNKNOWN)
    assert "Slurm could not be asked" in case.ending.evidence[0]
    assert carry_out(case, bench.hands()) == Carried()
    assert read_siblings(bench.root).ended == frozenset()
    bench.slurm.end_grace(bench.job)
    bench.slurm.gone(bench.job)
    assert goes_on_by_its_guard(bench)


@pytest.mark.parametrize(
    ("age", "cause"), [(SECONDS, Cause.PREEMPTED), (-1.0, Cause.OPERATOR)], ids=["before", "after"]
)
def test_a_warning_is_a_persons_only_when_slurm_says_since_that_it_plans_no_end(bench: Bench, age, cause):
    (facts,) = bench.evidence().job
    facts = replace(facts, asked_at=bench.slurm.now - age, requeueable=True)
    evidence = Evidence(
        claimed=True, decision=SessionDecision(Decision.COME_BACK, "warned", 5), child=ChildExit(75),
        child_at=bench.slurm.now + 5, signals=(SignalReceived(10, bench.slurm.now),), job=(facts,),
    )  # fmt: skip
    be_silent(bench)
    options = LaunchOptions(("train",), run=bench.root)
    case = conclude(options, bench.environment(), Claimed(bench.run, 1), evidence, lambda *_, **__: None)
    assert case.ending.cause is cause
    gone = Answer(None, "", "FileNotFoundError: scontrol")
    bench.slurm.fault = lambda _words: gone
    assert carry_out(case, bench.hands()).awaits_end is (cause is Cause.PREEMPTED), "Slurm starts it again by itself"


def test_a_guard_that_is_there_no_more_is_left_anew(bench: Bench):
    """Its owner may have cancelled it, or it has begun, found nothing to do, and could not say so."""
    (first,) = read_siblings(bench.root).waiting
    bench.slurm.cancel(bench.slurm.jobs[first.job_id])
    assert bench.admitted().refused is None
    second = read_siblings(bench.root).waiting[-1]
    assert (second.why, second.of, second.job_id != first.job_id) == (GUARD, bench.job.id, True)
    assert bench.admitted().refused is None
    assert read_siblings(bench.root).waiting[-1] == second


def test_a_job_that_is_submitted_again_moves_to_the_fallback_as_one_that_is_requeued_does(bench: Bench):
    number = bench.ends(fallback=Fallback("high", 1, after_failures=1)).resubmitted
    again = bench.slurm.jobs[str(number)]
    assert (again.partition, again.needs) == ("high", (1, 2))


def test_beside_a_job_that_is_submitted_again_one_waits_that_asks_for_less(bench: Bench):
    number = bench.ends(guard=False, fallback=Fallback("high", 1, after_waiting=3600)).resubmitted
    (twin,) = (job for job in waiting(bench) if job.id != number)
    assert (twin.partition, twin.needs, twin.begin) == ("high", (1, 2), bench.slurm.now + 3600)
    assert Sibling(twin.id, "fallback", str(number)) in read_siblings(bench.root).waiting
    bench.slurm.finish(bench.job, 75)
    bench.slurm.jobs[str(number)].begin = bench.slurm.now + 90000
    bench.slurm.advance(4000)
    assert bench.slurm.start_due() == [twin]
    assert bench.admitted(twin).refused is None
    assert bench.slurm.jobs[str(number)].state == "CANCELLED"


def test_with_the_kill_near_nothing_is_asked_that_can_be_done_without(bench: Bench):
    asked: list[Sequence[str]] = []

    def listen(words: Sequence[str]) -> None:
        asked.append(words)

    evidence = bench.evidence(signals=(SignalReceived(TERM, bench.slurm.now),), child_at=bench.slurm.now + 5)
    bench.slurm.fault = listen
    assert bench.ends(Cause.WALLTIME, evidence=evidence).resubmitted is not None
    before = [words[:4] for words in asked[: [words[0] for words in asked].index("sbatch")]]
    assert not any(words[0] == "sacct" for words in before)
    assert ("scontrol", "--oneliner", "show", "job") not in map(tuple, before)


def waiting(bench: Bench) -> list[FakeJob]:
    return [job for job in bench.slurm.jobs.values() if job.state == "PENDING"]
