"""What the supervisor has Slurm do with a job that ended: against a fake Slurm that keeps what it is told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpcresume.errors import ConfigError
from hpcresume.io.paths import RunPaths
from hpcresume.launch.comeback import Carried, Case, carry_out
from hpcresume.launch.ending import conclude
from hpcresume.launch.gate import MICRO_BATCHES, admit, fewer_tasks
from hpcresume.launch.hands import Hands
from hpcresume.launch.notes import read_notes
from hpcresume.launch.options import LaunchOptions
from hpcresume.launch.rendezvous import Claimed
from hpcresume.model import EXIT_HOLD, Cause, Decision
from hpcresume.policy.budgets import Budgets, PastAttempt
from hpcresume.policy.cause import ChildExit, Ending, Evidence, SignalReceived
from hpcresume.policy.fallback import Fallback
from hpcresume.policy.pauses import Pauses
from hpcresume.policy.requeue import Verdict
from hpcresume.policy.suspects import Exclusion
from hpcresume.slurm.commands import Answer, down_nodes, show_job
from hpcresume.slurm.environment import SlurmEnvironment
from hpcresume.slurm.sibling_list import read_siblings
from hpcresume.testing.fake_slurm import FakeJob, FakeSlurm, environment_of

BACK = Verdict(Decision.COME_BACK, True, 75, "comes back", barren=1)
HOLD = Verdict(Decision.HOLD, False, EXIT_HOLD, "3 attempts ended by crash", keep=True, barren=3)


class Bench:
    """A job on a fake cluster, with a run."""

    def __init__(self, root: Path, size: int = 6, **job: Any) -> None:
        self.root = root / "run"
        self.run = RunPaths(self.root)
        (self.root / "attempts/0001").mkdir(parents=True)
        self.run.run_json.write_text("{}")
        self.slurm = FakeSlurm(size)
        self.job = self.slurm.submit("#!/bin/sh\n", **{"nodes": 2, **job})
        self.recorded: list[dict[str, Any]] = []
        self.start()

    def start(self) -> None:
        assert self.slurm.start_due()[:1] == [self.job]

    def hands(self, job: FakeJob | None = None) -> Hands:
        environ = environment_of(self.slurm, job or self.job)
        return Hands(self.slurm.execute, lambda: self.slurm.now, self.slurm.advance, environ)

    def environment(self, job: FakeJob | None = None) -> SlurmEnvironment:
        return SlurmEnvironment.from_environ(environment_of(self.slurm, job or self.job))

    def evidence(self, **known: Any) -> Evidence:
        facts = show_job(self.job.id, name=self.job.name, execute=self.slurm.execute)
        down = down_nodes(",".join(self.job.nodes), execute=self.slurm.execute)
        return Evidence(claimed=True, child=ChildExit(1), job=(replace(facts, down_nodes=down),),
                        restarts=self.job.restarts, **known)  # fmt: skip

    def case(
        self, cause: Cause = Cause.CRASH, verdict: Verdict = BACK, evidence: Evidence | None = None,
        past: tuple[PastAttempt, ...] = (), **options: Any,
    ) -> Case:  # fmt: skip
        given = LaunchOptions(("train",), run=self.root, **{"pauses": Pauses(0), **options})
        return Case(
            given, self.environment(), self.run, 1,
            (*past, PastAttempt(1, cause)), Ending(cause, ("so it was",)), evidence or self.evidence(), verdict,
            lambda event, **fields: self.recorded.append({"event": event, **fields}),
        )  # fmt: skip

    def ends(self, *case: Any, **more: Any) -> Carried:
        return carry_out(self.case(*case, **more), self.hands())

    def comes_back(self) -> None:
        self.slurm.gone(self.job)
        self.slurm.advance(4000)
        self.start()

    def admitted(self, job: FakeJob | None = None, **options: Any):  # type: ignore[no-untyped-def]
        given = LaunchOptions(("train",), run=self.root, **options)
        return admit(given, self.environment(job), self.hands(job))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Bench(tmp_path)


def updates(bench: Bench) -> list[str]:
    return [word for call in bench.slurm.calls if call[:2] == ("scontrol", "update") for word in call[3:]]


# ---- the time limit


@pytest.mark.parametrize(
    ("limit", "least", "option", "words"),
    [
        (3600.0, 3600.0, "1-00:00:00", ["TimeLimit=1-00:00:00"]),
        (86400.0, 3600.0, "1-00:00:00", []),
        (3600.0, None, "1-00:00:00", []),
        (3600.0, 3600.0, "", []),
    ],
    ids=["lowered", "not lowered", "without --time-min", "not named"],
)
def test_a_limit_that_slurm_has_lowered_is_raised_again_for_the_next_start(bench: Bench, limit, least, option, words):
    evidence = bench.evidence()
    lowered = replace(evidence, job=(replace(evidence.job[0], limit=limit, least=least),))
    assert bench.ends(Cause.WALLTIME, evidence=lowered, time_limit=option) == Carried(back=True)
    assert updates(bench) == words
    verbs = [call[1] for call in bench.slurm.calls if call[0] == "scontrol"]
    assert not words or verbs.index("requeue") < verbs.index("update"), "Slurm allows it only while the job waits"


def test_a_limit_that_slurm_has_lowered_is_raised_again_for_a_job_that_waits_to_be_released(bench: Bench):
    evidence = bench.evidence()
    lowered = replace(evidence, job=(replace(evidence.job[0], limit=3600.0, least=3600.0),))
    assert bench.ends(Cause.CRASH, HOLD, evidence=lowered, time_limit="1-00:00:00") == Carried(held=True)
    assert bench.job.limit == 86400.0


# ---- pauses


def test_a_crashed_job_waits_before_it_starts_again_and_a_preempted_one_does_not(bench: Bench):
    assert bench.ends(pauses=Pauses(600)) == Carried(back=True)
    (word,) = updates(bench)
    assert 300 <= int(word.removeprefix("StartTime=now+")) <= 600
    assert bench.job.begin >= bench.slurm.now + 300
    bench.comes_back()
    bench.ends(Cause.PREEMPTED, replace(BACK, barren=0), pauses=Pauses(600))
    assert updates(bench) == [word]


# ---- nodes


def lose(bench: Bench, node: str) -> Evidence:
    bench.slurm.lose_node(node)
    return bench.evidence(signals=(SignalReceived(15, 0.0),), child_at=1.0)


def test_a_lost_node_is_excluded_beside_what_the_user_excludes_and_is_forgotten_in_time(bench: Bench):
    bench.job.excluded = ("n6",)
    bench.ends(Cause.NODE_FAILURE, evidence=lose(bench, "n2"))
    assert set(bench.job.excluded) == {"n2", "n6"}
    assert [each.node for each in read_notes(bench.root).suspects] == ["n2"]
    assert "n2 was lost" in next(line["why"] for line in bench.recorded if line["event"] == "change")
    bench.slurm.return_node("n2")
    bench.comes_back()
    assert "n2" not in bench.job.nodes
    bench.slurm.advance(13 * 3600)
    bench.ends(Cause.PREEMPTED, replace(BACK, barren=0))
    assert bench.job.excluded == ("n6",), "its time is over, and the user's own exclusion stays"


def test_a_node_that_the_cluster_knows_no_more_is_not_excluded(bench: Bench):
    evidence = lose(bench, "n2")
    bench.slurm.remove_node("n2")
    assert bench.ends(Cause.NODE_FAILURE, evidence=evidence).back
    assert updates(bench) == [], "Slurm would refuse the whole list"


@pytest.mark.parametrize(("nodes", "needed", "excluded"), [(3, 2, 0), (4, 2, 1), (3, 1, 1), (2, 1, 0)])
def test_never_so_many_are_excluded_that_one_more_loss_would_strand_the_job(tmp_path, nodes, needed, excluded):
    bench = Bench(tmp_path, nodes, nodes=needed)
    bench.ends(Cause.NODE_FAILURE, evidence=lose(bench, bench.job.nodes[-1]))
    assert len(bench.job.excluded) == excluded


def test_only_nodes_of_the_kind_that_the_job_had_count_as_ones_that_it_could_run_on(bench: Bench):
    for name in ("n4", "n5", "n6"):
        bench.slurm.nodes[name].kind = "2|2000|(null)|gpu:1"
    bench.ends(Cause.NODE_FAILURE, evidence=lose(bench, "n2"))
    assert bench.job.excluded == (), "two nodes like the job's own are left, which is what it needs"


def test_a_node_that_the_user_asked_for_by_name_is_not_excluded(bench: Bench):
    bench.job.required = ("n2",)
    bench.ends(Cause.NODE_FAILURE, evidence=lose(bench, "n2"))
    assert bench.job.excluded == ()


def test_no_more_nodes_are_excluded_than_allowed_and_the_newest_loss_goes_first(tmp_path: Path):
    bench = Bench(tmp_path, 12)
    for _ in range(3):
        bench.slurm.advance(60)
        bench.ends(Cause.NODE_FAILURE, evidence=lose(bench, bench.job.nodes[0]), exclusion=Exclusion(most=2))
        bench.comes_back()
    assert bench.job.excluded == ("n2", "n3")
    bench.ends(Cause.NODE_FAILURE, evidence=lose(bench, bench.job.nodes[0]), exclusion=Exclusion(most=0))
    assert bench.job.excluded == ()


def test_the_node_that_took_its_supervisor_along_is_excluded_by_the_next_attempt(bench: Bench):
    first = [{"t": bench.slurm.now, "event": "started", "node": "n1"},
             {"t": bench.slurm.now, "event": "ended", "cause": "node-failure", "told_by": 2}]  # fmt: skip
    bench.run.attempt(1).supervisor.write_text("".join(json.dumps(line) + "\n" for line in first))
    (bench.root / "attempts/0002").mkdir()
    bench.slurm.requeue(bench.job)
    bench.comes_back()
    case = Case(LaunchOptions(("train",)), bench.environment(), bench.run, 2, (), Ending(Cause.PREEMPTED, ("",)),
                bench.evidence(), replace(BACK, barren=0), lambda event, **fields: None)  # fmt: skip
    carry_out(case, bench.hands())
    assert bench.job.excluded == ("n1",)


def test_one_change_that_slurm_refuses_does_not_cost_the_others(bench: Bench):
    bench.slurm.partitions = ("low",)
    fallback = Fallback("nowhere", after_failures=1)
    bench.ends(Cause.CRASH, fallback=fallback, pauses=Pauses(600))
    changes = {line["key"]: line["refused"] for line in bench.recorded if line["event"] == "change"}
    assert changes["StartTime"] == ""
    assert "Invalid partition" in changes["Partition"]
    assert bench.job.begin > bench.slurm.now


# ---- other resources


def test_after_failures_the_job_moves_to_the_fallback_with_fewer_nodes(bench: Bench):
    fallback = Fallback("high", 1, after_failures=2)
    bench.ends(past=(PastAttempt(0, Cause.CRASH),), fallback=fallback)
    assert bench.job.partition == "high"
    assert bench.job.needs == (1, 2)
    assert {"NumTasks=1", "NumCPUs=1"} <= set(updates(bench))


def test_a_job_that_waits_too_long_is_joined_by_one_that_asks_for_less_and_the_first_to_start_stays(bench: Bench):
    fallback = Fallback("high", 1, after_waiting=3600)
    bench.ends(fallback=fallback)
    (twin,) = (job for job in bench.slurm.jobs.values() if job is not bench.job)
    assert (twin.partition, twin.needs) == ("high", (1, 2))
    assert twin.begin == bench.slurm.now + 3600
    bench.slurm.gone(bench.job)
    bench.job.begin = bench.slurm.now + 90000
    bench.slurm.advance(4000)
    assert bench.slurm.start_due() == [twin]
    assert bench.admitted(twin).refused is None
    assert bench.job.state == "CANCELLED"
    assert read_siblings(bench.root).waiting == ()


def test_the_job_that_starts_cancels_the_one_that_waits_elsewhere(bench: Bench):
    bench.ends(fallback=Fallback("high", after_waiting=36000))
    (twin,) = (job for job in bench.slurm.jobs.values() if job is not bench.job)
    bench.comes_back()
    assert bench.admitted().refused is None
    assert twin.state == "CANCELLED"


def test_tasks_are_counted_anew_where_there_are_fewer_nodes():
    environ = {"SLURM_NTASKS": "4", "SLURM_NPROCS": "4", "SLURM_TASKS_PER_NODE": "2"}
    assert fewer_tasks(environ) == {"SLURM_NTASKS": "2", "SLURM_NPROCS": "2"}
    assert fewer_tasks({**environ, "SLURM_TASKS_PER_NODE": "2(x2)"}) == {}
    assert fewer_tasks({**environ, "SLURM_TASKS_PER_NODE": "1(x2),1"}) == {"SLURM_NTASKS": "3", "SLURM_NPROCS": "3"}
    assert fewer_tasks({**environ, "SLURM_TASKS_PER_NODE": "2(x9)"}) == fewer_tasks({}) == {}
    assert fewer_tasks({**environ, "SLURM_TASKS_PER_NODE": "$(reboot)"}) == {}


def test_a_fallback_that_can_never_happen_is_refused():
    for wrong in (Fallback("high"), Fallback(after_failures=2)):
        with pytest.raises(ConfigError):
            wrong.check()
    Fallback("high", after_waiting=60).check()
    Fallback().check()


# ---- held


def test_a_held_job_stays_in_the_queue_and_says_why_to_whoever_asks_squeue(bench: Bench):
    bench.job.comment = "project X"
    assert bench.ends(verdict=HOLD) == Carried(held=True)
    bench.slurm.gone(bench.job)
    bench.slurm.advance(9000)
    assert bench.slurm.start_due() == []
    assert bench.job.reason == "job requeued in held state"
    assert bench.job.comment.startswith(f"hpcresume: 3 attempts ended by crash; scontrol release {bench.job.id}")
    assert bench.job.comment.endswith("| project X")


def test_who_releases_it_lets_it_go_on_and_gets_his_comment_back(bench: Bench):
    bench.job.comment = "project X"
    bench.ends(verdict=HOLD)
    lines = [{"event": "decision", "decision": "hold"}, {"event": "held", "result": "accepted"}]
    bench.run.attempt(1).supervisor.write_text("".join(json.dumps(line) + "\n" for line in lines))
    bench.slurm.gone(bench.job)
    bench.slurm.execute(["scontrol", "release", bench.job.id], 1)
    bench.slurm.advance(1000)
    bench.start()
    admission = bench.admitted()
    assert admission.refused is None
    assert admission.options.release
    assert admission.shared["HPCRESUME_RELEASE"] == "1"
    assert bench.job.comment == "project X"


@pytest.mark.parametrize(
    ("verdict", "options"),
    [(HOLD, {"stay": False}), (replace(HOLD, keep=False), {}), (HOLD, {"requeue": False})],
)
def test_it_ends_instead_where_the_user_or_the_case_wants_that_and_says_why_all_the_same(bench, verdict, options):
    assert bench.ends(verdict=verdict, **options) == Carried()
    assert bench.job.running
    assert bench.job.comment.startswith("hpcresume: held: 3 attempts")


def test_a_job_that_slurm_requeued_by_itself_is_held_where_it_waits(bench: Bench):
    evidence = lose(bench, "n2")
    assert bench.ends(Cause.NODE_FAILURE, HOLD, evidence).held
    assert bench.job.held == "JobHeldUser"


def test_a_job_that_may_not_be_requeued_cannot_stay_and_ends_with_its_code(tmp_path: Path):
    bench = Bench(tmp_path, requeue=False)
    assert bench.ends(verdict=HOLD) == Carried()


def test_a_comment_steers_no_terminal_and_is_no_novel(bench: Bench):
    bench.ends(verdict=replace(HOLD, reason="\x1b[2J\n" + "x" * 9999))
    assert len(bench.job.comment) <= 250
    assert bench.job.comment.isprintable()


def lost_with_their_supervisors(bench: Bench, count: int) -> None:
    for number in range(1, count + 1):
        (bench.root / f"attempts/{number:04d}").mkdir(exist_ok=True)
        ended = {"event": "ended", "cause": "node-failure", "told_by": number + 1}
        bench.run.attempt(number).supervisor.write_text(json.dumps(ended) + "\n")


def test_attempts_that_nobody_was_left_to_judge_are_judged_before_the_next_one_begins(bench: Bench):
    lost_with_their_supervisors(bench, 5)
    assert bench.admitted().refused is None, "who submits it by hand has looked"
    bench.slurm.requeue(bench.job)
    bench.comes_back()
    refused = bench.admitted().refused
    assert refused is not None
    assert (refused.exit_code, refused.held) == (EXIT_HOLD, True)
    assert "5 attempts ended by node-failure" in bench.job.comment
    bench.slurm.gone(bench.job)
    bench.slurm.execute(["scontrol", "release", bench.job.id], 1)
    bench.slurm.advance(1000)
    bench.start()
    assert bench.admitted().options.release, "released: it goes on"
    (bench.root / "attempts/0006").mkdir()
    crashed = conclude(LaunchOptions(("train",), run=bench.root), bench.environment(), Claimed(bench.run, 6),
                       bench.evidence(), lambda event, **fields: None)  # fmt: skip
    assert crashed.verdict.requeue, "and its budgets are fresh"


def test_a_hold_before_the_start_outlasts_a_controller_that_is_silent_for_a_while(bench: Bench):
    lost_with_their_supervisors(bench, 5)
    for _ in range(2):
        bench.slurm.requeue(bench.job)
        bench.comes_back()
    silent, until = Answer(1, "", "Zero Bytes were transmitted or received\n"), bench.slurm.now + 20
    bench.slurm.fault = lambda words: silent if words[1] == "requeuehold" and bench.slurm.now < until else None
    refused = bench.admitted().refused
    assert refused is not None
    assert refused.held, "its own start is not taken for a newer one"


def test_what_hpcresume_requeue_writes_lets_the_run_go_on_with_fresh_budgets(bench: Bench):
    lines = [{"event": "decision", "decision": "hold"}, {"event": "ended", "cause": "crash"},
             {"event": "held", "result": "accepted", "by_hand": True},
             {"event": "decision", "decision": "come-back", "released": True}]  # fmt: skip
    bench.run.attempt(1).supervisor.write_text("".join(json.dumps(line) + "\n" for line in lines))
    bench.slurm.requeue(bench.job)
    bench.comes_back()
    assert bench.admitted().options.release


def test_a_node_that_is_down_after_a_crash_is_suspect(bench: Bench):
    lines = [{"event": "started", "nodes": "n[1-2]"}, {"event": "decision", "decision": "come-back"},
             {"event": "ended", "cause": "crash"}]  # fmt: skip
    bench.run.attempt(1).supervisor.write_text("".join(json.dumps(line) + "\n" for line in lines))
    bench.slurm.requeue(bench.job)
    bench.slurm.gone(bench.job)
    bench.slurm.lose_node("n2")
    bench.slurm.advance(1000)
    bench.start()
    bench.admitted()
    assert [each.node for each in read_notes(bench.root).suspects] == ["n2"]
    bench.ends(Cause.PREEMPTED, replace(BACK, barren=0))
    assert bench.job.excluded == ("n2",)


# ---- no answer, and refused


def test_a_controller_that_is_away_for_ten_minutes_is_asked_until_it_answers(bench: Bench):
    until = bench.slurm.now + 600
    away = Answer(1, "", "Unable to contact slurm controller (connect failure)\n")
    bench.slurm.fault = lambda words: away if bench.slurm.now < until else None
    assert bench.ends(evidence=Evidence(claimed=True, child=ChildExit(1))).back
    assert until <= bench.slurm.now < until + 120


def test_in_the_end_sequence_nobody_waits_for_a_controller(bench: Bench):
    away = Answer(1, "", "Unable to contact slurm controller (connect failure)\n")
    evidence, before = lose(bench, "n2"), bench.slurm.now
    bench.slurm.fault = lambda words: away
    assert bench.ends(Cause.NODE_FAILURE, evidence=evidence) == Carried()
    assert bench.slurm.now - before < 30


def test_where_the_cluster_requeues_nothing_another_job_goes_on(tmp_path: Path):
    bench = Bench(tmp_path, requeue=False)
    bench.slurm.job_requeue = False
    number = bench.ends(pauses=Pauses(60)).resubmitted
    again = bench.slurm.jobs[str(number)]
    assert again.depends == ("afterany", bench.job.id)
    assert again.script == "#!/bin/sh\n"
    assert again.needs == (2, 2)
    assert 30 <= again.begin - bench.slurm.now <= 60


def test_a_controller_that_is_silent_for_a_while_does_not_keep_another_job_from_going_on(tmp_path: Path):
    bench = Bench(tmp_path, requeue=False)
    bench.slurm.job_requeue = False
    silent, until = Answer(1, "", "sbatch: error: Zero Bytes were transmitted or received\n"), bench.slurm.now + 300
    bench.slurm.fault = lambda words: silent if words[0] == "sbatch" and bench.slurm.now < until else None
    number = bench.ends(guard=False).resubmitted
    assert number in bench.slurm.jobs
    assert until <= bench.slurm.now < until + 60


def test_a_refusal_for_good_is_not_waited_out(tmp_path: Path):
    bench = Bench(tmp_path, requeue=False)
    bench.slurm.job_requeue = False
    refused, before = Answer(1, "", "sbatch: error: Invalid qos specification\n"), bench.slurm.now
    bench.slurm.fault = lambda words: refused if words[0] == "sbatch" else None
    assert bench.ends().resubmitted is None
    assert bench.slurm.now - before < 30


def test_the_job_that_goes_on_begins_in_the_folder_of_this_one_wherever_it_was_submitted_from(tmp_path: Path):
    bench = Bench(tmp_path, requeue=False, directory="/data/of ann")
    bench.slurm.job_requeue = False
    assert bench.slurm.jobs[str(bench.ends().resubmitted)].directory == "/data/of ann"
    silent = Answer(1, "", "Unable to contact slurm controller (connect failure)\n")
    bench.slurm.fault = lambda words: silent if "--format=%Z" in words else None
    assert bench.slurm.jobs[str(bench.ends().resubmitted)].directory == "/home/user", "as far as can be known"


def test_a_job_of_submitits_is_not_submitted_again_as_another_one(tmp_path: Path):
    """submitit finds the function, and puts the results, by the number of the job that it submitted."""
    bench = Bench(tmp_path, requeue=False)
    bench.slurm.job_requeue = False
    bench.job.script = "#!/bin/bash\nsrun python -u -m submitit.core._submit /jobs\n"
    assert bench.ends() == Carried()
    assert len(bench.slurm.jobs) == 1


def test_where_scontrol_is_missing_a_preempted_job_waits_for_slurm_which_brings_it_back(bench: Bench):
    """Inside of a container, say. Left before its end, the job would be over on Slurm before 24.05 (seen on 22.05),
    and held after five times on newer ones (MaxBatchRequeue, slurm.conf(5))."""
    before = bench.evidence()
    bench.slurm.preempt(bench.job, 60.0)
    evidence = bench.evidence()
    bench.slurm.fault = lambda words: Answer(None, "", "FileNotFoundError: scontrol")
    assert bench.ends(Cause.PREEMPTED, replace(BACK, barren=0), evidence=evidence) == Carried(awaits_end=True)
    unasked = replace(evidence, job=())
    assert bench.ends(Cause.PREEMPTED, replace(BACK, barren=0), evidence=unasked) == Carried(awaits_end=True)
    limit = replace(unasked, signals=(SignalReceived(10, 0.0),))
    assert bench.ends(Cause.WALLTIME, replace(BACK, barren=0), evidence=limit) == Carried(awaits_end=True), "a guess"
    assert bench.ends(Cause.WALLTIME, replace(BACK, barren=0), evidence=evidence) == Carried(), "and here it is none"
    assert bench.ends(Cause.PREEMPTED, replace(BACK, barren=0), evidence=before) == Carried(), "Slurm knows of no such"
    assert bench.ends(Cause.CRASH, evidence=evidence) == Carried(), "Slurm would not start that one again"
    ending = replace(evidence, signals=(SignalReceived(15, 0.0),), child_at=1.0)
    assert bench.ends(Cause.PREEMPTED, replace(BACK, barren=0), evidence=ending) == Carried(), "it is ending already"


@pytest.mark.parametrize("verdict", [BACK, HOLD])
def test_a_start_that_outlives_its_node_leaves_the_job_to_the_next_one(bench: Bench, verdict: Verdict):
    """Split brain: its slurmd is dead, Slurm has started the job elsewhere, and scontrol would hit that start."""
    before = bench.evidence()
    bench.slurm.lose_node(bench.job.nodes[0])
    bench.comes_back()
    assert (bench.job.state, bench.job.restarts) == ("RUNNING", 1)
    calls = len(bench.slurm.calls)
    evidence = replace(bench.evidence(signals=()), restarts=0)
    assert bench.ends(Cause.NODE_FAILURE, verdict, evidence) == Carried()
    assert bench.ends(Cause.CRASH, verdict, replace(before, overtaken=True)) == Carried(), "the run says so, Slurm not"
    assert bench.slurm.calls[calls + 2 :] == [], "nothing was asked of Slurm"
    assert (bench.job.state, bench.job.restarts) == ("RUNNING", 1)


@pytest.mark.parametrize("verdict", [BACK, HOLD])
def test_a_job_that_was_started_again_since_slurm_was_asked_is_neither_requeued_nor_held_again(bench, verdict):
    """Its start was slow to notice its end; Slurm, or a person, has put the job back meanwhile, and it runs."""
    evidence = bench.evidence()
    bench.slurm.requeue(bench.job)
    bench.comes_back()
    assert bench.ends(Cause.CRASH, verdict, evidence) == Carried()
    assert (bench.job.state, bench.job.restarts, bench.job.held) == ("RUNNING", 1, "")


def test_a_job_that_a_person_has_requeued_meanwhile_and_that_waits_is_held_where_it_waits(bench: Bench):
    evidence = bench.evidence()
    bench.slurm.requeue(bench.job)
    assert bench.ends(Cause.CRASH, HOLD, evidence).held
    assert (bench.job.restarts, bench.job.held) == (1, "JobHeldUser")


@pytest.mark.parametrize("verdict", [BACK, HOLD])
def test_a_start_that_was_cut_off_from_the_controller_looks_before_it_asks_again(bench: Bench, verdict: Verdict):
    evidence, cut = bench.evidence(), bench.slurm.now + 600
    away = Answer(1, "", "Unable to contact slurm controller (connect failure)\n")

    def fault(words: Sequence[str]) -> Answer | None:
        if bench.slurm.now >= cut and not bench.job.restarts:  # the network is back, and the job runs elsewhere
            bench.slurm.lose_node(bench.job.nodes[0])
            bench.comes_back()
        return away if bench.slurm.now < cut else None

    bench.slurm.fault = fault
    assert bench.ends(Cause.CRASH, verdict, evidence) == Carried()
    assert (bench.job.state, bench.job.restarts) == ("RUNNING", 1), "neither requeued nor held"


def test_a_second_job_of_a_run_is_refused_and_disturbs_neither_the_first_nor_its_guard(bench: Bench):
    bench.run.attempt(1).claim.write_text(json.dumps({"job_id": bench.job.id, "restart": 0}))
    assert bench.admitted(guard=True).refused is None
    second = bench.slurm.submit("#!/bin/sh\n", nodes=2)
    assert second in bench.slurm.start_due()
    refused = bench.admitted(second).refused
    assert refused is not None
    assert refused.exit_code == 73
    assert f"job {bench.job.id} is still running attempt 1" in refused.reason
    (guard,) = (each for each in bench.slurm.jobs.values() if each.depends)
    assert guard.state == "PENDING"
    assert bench.job.state == "RUNNING"
    bench.slurm.finish(bench.job, 1)
    bench.slurm.cancel(guard)
    assert bench.admitted(second).refused is None


def test_a_user_who_said_no_requeue_is_obeyed(tmp_path: Path):
    bench = Bench(tmp_path, requeue=False)
    assert bench.ends() == Carried()
    assert len(bench.slurm.jobs) == 1


def test_a_run_that_cannot_be_written_submits_nothing_that_nobody_would_know_of(tmp_path: Path):
    bench = Bench(tmp_path, requeue=False)
    bench.slurm.job_requeue = False
    evidence, before = bench.evidence(), bench.slurm.now
    bench.root.rename(tmp_path / "away")
    assert bench.ends(evidence=evidence) == Carried()
    assert len(bench.slurm.jobs) == 1
    assert 1800 <= bench.slurm.now - before < 2000, "it is waited for"


def test_a_job_that_waits_elsewhere_leaves_the_run_alone_while_it_cannot_be_read(bench: Bench, tmp_path: Path):
    bench.ends(fallback=Fallback("high", after_waiting=0))
    (twin,) = (job for job in bench.slurm.jobs.values() if job is not bench.job)
    bench.slurm.gone(bench.job)
    assert bench.slurm.start_due() == [twin]
    bench.root.rename(tmp_path / "away")
    refused = bench.admitted(twin).refused
    assert refused is not None
    assert bench.job.state == "PENDING"


def test_who_goes_on_waits_until_the_job_before_is_seen_as_dead(tmp_path: Path):
    bench = Bench(tmp_path, requeue=False)
    bench.slurm.job_requeue = False
    bench.slurm.advance(100)
    again = bench.slurm.jobs[str(bench.ends().resubmitted)]
    bench.slurm.finish(bench.job, 75)
    assert bench.slurm.start_due() == [again]
    before, bench.slurm.lag = bench.slurm.now, lambda: 40.0
    assert bench.admitted(again).refused is None
    assert 35 <= bench.slurm.now - before <= 60


# ---- the guard


def guarded(bench: Bench) -> FakeJob:
    assert bench.admitted(guard=True).refused is None
    (guard,) = (job for job in bench.slurm.jobs.values() if job is not bench.job)
    assert guard.depends == ("afternotok", bench.job.id)
    return guard


def test_a_guard_goes_on_when_the_requeued_job_is_lost_before_its_script_runs(bench: Bench):
    guard = guarded(bench)
    bench.ends(guard=True)
    bench.comes_back()
    bench.slurm.lose_script(bench.job)
    assert bench.slurm.start_due() == [guard]
    assert bench.admitted(guard, guard=True).refused is None
    behind = [job for job in bench.slurm.jobs.values() if job.depends == ("afternotok", guard.id)]
    assert len(behind) == 1, "and it has a guard of its own"


def test_one_guard_is_enough_over_all_restarts(bench: Bench):
    guarded(bench)
    for _ in range(3):
        bench.ends(guard=True)
        bench.comes_back()
        assert bench.admitted(guard=True).refused is None
    assert len(bench.slurm.jobs) == 2


@pytest.mark.parametrize("end", ["cancelled", "decided", "finished"])
def test_a_guard_has_nothing_to_do_when_its_job_ended_as_somebody_wanted(bench: Bench, end: str):
    guard = guarded(bench)
    if end == "cancelled":
        bench.slurm.cancel(bench.job)
        bench.slurm.gone(bench.job)
        bench.slurm.start_due()
    else:
        bench.ends(verdict=HOLD if end == "decided" else Verdict(Decision.DONE, False, 0, "done"), stay=False)
        assert guard.state == "CANCELLED"
        guard.state, guard.nodes = "RUNNING", ("n3",)  # as if it could not have been cancelled
        bench.slurm.finish(bench.job, 1)
    refused = bench.admitted(guard).refused
    assert refused is not None
    assert refused.exit_code == 0
    assert "nothing to start" in refused.reason


@pytest.mark.parametrize(("code", "starts"), [(EXIT_HOLD, False), (1, True)])
def test_a_guard_goes_by_the_exit_code_where_nothing_could_be_written_down(bench: Bench, code: int, starts: bool):
    guard = guarded(bench)
    bench.slurm.finish(bench.job, code)
    bench.slurm.start_due()
    refused = bench.admitted(guard).refused
    assert (refused is None) == starts
    assert starts or (refused is not None and f"exit code {EXIT_HOLD}" in refused.reason)


@pytest.mark.parametrize(
    ("job_requeue", "guard", "left"),
    [(False, None, True), (False, False, False), (True, None, False), (True, True, True)],
)
def test_not_told_a_guard_is_left_where_the_cluster_never_requeues(bench: Bench, job_requeue, guard, left):
    bench.slurm.job_requeue = job_requeue
    assert bench.admitted(guard=guard).refused is None
    assert [job.depends for job in bench.slurm.jobs.values() if job is not bench.job] == (
        [("afternotok", bench.job.id)] if left else []
    )


@pytest.mark.parametrize(("guard", "comes_back"), [(None, True), (False, False)])
def test_a_job_that_was_submitted_again_has_a_guard_before_its_script_runs(bench: Bench, guard, comes_back: bool):
    bench.slurm.job_requeue = bench.job.requeue = False
    number = bench.ends(guard=guard).resubmitted
    bench.slurm.finish(bench.job, 75)
    again = bench.slurm.jobs[str(number)]
    assert bench.slurm.start_due() == [again]
    bench.slurm.lose_script(again)
    started = bench.slurm.start_due()
    assert [job.depends for job in started] == ([("afternotok", number)] if comes_back else [])
    assert all(bench.admitted(job, guard=guard).refused is None for job in started)


def test_a_job_that_was_submitted_again_keeps_the_guard_that_it_got(bench: Bench):
    bench.slurm.job_requeue = bench.job.requeue = False
    number = bench.ends().resubmitted
    bench.slurm.finish(bench.job, 75)
    (again,) = bench.slurm.start_due()
    assert bench.admitted(again).refused is None
    waiting = [job for job in bench.slurm.jobs.values() if job.state == "PENDING"]
    assert [job.depends for job in waiting] == [("afternotok", number)]


def test_a_job_that_stands_behind_another_does_not_release_a_held_run(bench: Bench):
    lines = [{"event": "decision", "decision": "hold"}]
    bench.run.attempt(1).supervisor.write_text("".join(json.dumps(line) + "\n" for line in lines))
    twin = bench.slurm.submit("#!/bin/sh\n", options=[f"--export=ALL,HPCRESUME_BEHIND=fallback:{bench.job.id}"])
    bench.slurm.start_due()
    refused = bench.admitted(twin).refused
    assert refused is not None
    assert refused.exit_code == EXIT_HOLD
    by_hand = bench.slurm.submit("#!/bin/sh\n")
    bench.slurm.start_due()
    assert bench.admitted(by_hand).options.release


# ---- memory


def test_the_ranks_are_told_how_to_cut_their_batches(bench: Bench):
    ended = {"event": "ended", "cause": "out-of-memory", "memory": True}
    bench.run.attempt(1).supervisor.write_text(json.dumps(ended) + "\n")
    assert bench.admitted(budgets=Budgets(micro_batches=8)).shared == {MICRO_BATCHES: "2"}
    assert bench.admitted().shared == {}


def test_cutting_batches_needs_a_run_whose_history_can_be_counted(bench: Bench):
    with pytest.raises(ConfigError, match="history"):
        admit(LaunchOptions(("train",), budgets=Budgets(micro_batches=8)), bench.environment(), bench.hands())
