"""What a job asks for that goes on instead of another: all that its user asked for, and nothing that we changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpcresume.launch.notes import Notes, read_notes, write_notes
from hpcresume.model import Cause
from hpcresume.policy.budgets import PastAttempt
from hpcresume.policy.fallback import Fallback
from hpcresume.policy.suspects import Suspect
from hpcresume.slurm.commands import Answer
from hpcresume.testing.fake_slurm import FakeJob
from hpcresume.testing.fake_slurm_commands import run_command
from tests.launch.test_comeback import Bench, updates


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    bench = Bench(tmp_path, requeue=False, limit=5400.0, options=["--constraint=ib", "--licenses=matlab:2"])
    bench.slurm.job_requeue = False
    return bench


def goes_on(bench: Bench, **options: Any) -> FakeJob:
    """The job that was submitted instead, without a guard."""
    number = bench.ends(guard=False, **options).resubmitted
    return bench.slurm.jobs[str(number)]


def test_limit_features_licences_and_exclusions_of_the_command_line_come_along(bench: Bench):
    bench.job.excluded, bench.job.comment = ("n5", "n6"), "project X"
    again = goes_on(bench)
    assert {"--time=01:30:00", "--no-requeue", "--constraint=ib", "--licenses=matlab:2", "--comment=project X"} <= set(
        again.options
    )
    assert again.limit == 5400.0
    assert again.excluded == ("n5", "n6")


def test_a_warning_that_was_asked_for_on_the_command_line_comes_along_where_accounting_knows_of_it(bench: Bench):
    line = "sbatch --signal B:USR2@90 job.sh --signal=R:HUP\n"
    bench.slurm.fault = lambda words: Answer(0, line, "") if words[0] == "sacct" else None
    assert "--signal=B:USR2@90" in goes_on(bench).options


def test_nodes_that_we_keep_off_and_a_comment_of_ours_do_not_become_the_users_own(bench: Bench):
    """Nor are they forgotten: the new job keeps off them for as long as this one would have."""
    bench.job.excluded, bench.job.comment = ("n5", "n6"), "hpcresume: held: look at it | project X"
    lost = Suspect("n6", bench.slurm.now)
    write_notes(bench.root, Notes((lost,), bench.job.id, excluded=("n6",), comment="project X"))
    again = goes_on(bench)
    assert (again.excluded, again.comment) == (("n5", "n6"), "project X")
    assert (read_notes(bench.root).job_id, read_notes(bench.root).excluded) == (again.id, ("n6",))


def test_a_node_that_is_suspect_no_more_is_not_kept_off_by_the_new_job(bench: Bench):
    bench.job.excluded = ("n5", "n6")
    write_notes(bench.root, Notes(job_id=bench.job.id, excluded=("n6",)))
    assert goes_on(bench).excluded == ("n5",)


def test_nodes_that_were_kept_off_for_another_job_are_the_users_own_here(bench: Bench):
    bench.job.excluded = ("n5", "n6")
    write_notes(bench.root, Notes(job_id="7", excluded=("n5",), comment="another"))
    again = goes_on(bench)
    assert (again.excluded, again.comment) == (("n5", "n6"), "")


def test_the_node_that_was_lost_is_kept_off_by_the_new_job_and_by_no_guard(bench: Bench):
    bench.slurm.lose_node("n2")
    number = bench.ends(Cause.NODE_FAILURE, evidence=bench.evidence()).resubmitted
    again, guard = bench.slurm.jobs[str(number)], bench.slurm.jobs[str(int(number or 0) + 1)]
    assert guard.depends == ("afternotok", number)
    assert (again.excluded, guard.excluded) == (("n2",), ())
    assert read_notes(bench.root).job_id == number


@pytest.mark.parametrize(
    ("full", "script", "words"),
    [
        ("1-00:00:00", "#!/bin/sh\n", {"--time-min=01:30:00", "--time=1-00:00:00"}),
        ("", "#!/bin/sh\n#SBATCH --time=24:00:00\n", {"--time-min=01:30:00"}),
        ("", "#!/bin/sh\n", {"--time-min=01:30:00", "--time=01:30:00"}),
    ],
    ids=["named to launch", "named in the script", "nowhere"],
)
def test_a_limit_that_slurm_has_lowered_for_one_start_is_not_handed_on(bench: Bench, full, script, words):
    bench.job.script = script

    def fault(asked: Sequence[str]) -> Answer | None:
        if "show" not in asked or "job" not in asked:
            return None
        answer = run_command(bench.slurm, list(asked))
        return replace(answer, out=answer.out.replace("Command=", "TimeLimit=01:30:00 TimeMin=01:30:00 Command="))

    bench.slurm.fault = fault
    again = goes_on(bench, time_limit=full)
    assert {word for word in again.options if word.startswith("--time")} == words


@pytest.mark.parametrize(("longest", "words"), [
    ("1:00:00", {"--time=01:00:00"}), ("60", {"--time=01:00:00"}), ("2-00:00:00", {"--time=01:30:00"}),
    ("UNLIMITED", {"--time=01:30:00"}),
])  # fmt: skip
def test_a_job_that_waits_in_another_partition_asks_for_no_more_time_than_that_one_gives(bench: Bench, longest, words):
    """With more it would wait there for ever (PartitionTimeLimit)."""
    bench.job.requeue, bench.slurm.longest = True, {"high": longest}
    bench.ends(fallback=Fallback("high", after_waiting=3600))
    (twin,) = (job for job in bench.slurm.jobs.values() if job is not bench.job)
    assert twin.partition == "high"
    assert {word for word in twin.options if word.startswith("--time")} == words


@pytest.mark.parametrize(("longest", "limits"), [("1:00:00", ["TimeLimit=01:00:00"]), ("3:00:00", [])])
def test_a_job_that_moves_to_another_partition_asks_for_no_more_time_than_that_one_gives(bench: Bench, longest, limits):
    def fault(asked: Sequence[str]) -> Answer | None:
        if asked[0] != "scontrol" or "job" not in asked or "show" not in asked:
            return None
        answer = run_command(bench.slurm, list(asked))
        return replace(answer, out=answer.out.replace("Command=", "TimeLimit=01:30:00 Command="))

    bench.job.requeue, bench.slurm.longest, bench.slurm.fault = True, {"high": longest}, fault
    bench.ends(Cause.CRASH, past=(PastAttempt(0, Cause.CRASH),), fallback=Fallback("high", after_failures=2))
    assert bench.job.partition == "high"
    assert [word for word in updates(bench) if word.startswith("TimeLimit")] == limits


def test_an_sbatch_that_is_not_answered_for_five_minutes_makes_one_job(bench: Bench):
    """It was made by the first try; each further one had made another job of the same run."""
    until, timed_out = bench.slurm.now + 300, Answer(1, "", "sbatch: error: Socket timed out on send/recv operation\n")
    silent = Answer(1, "", "slurm_load_jobs error: Socket timed out on send/recv operation\n")
    made: list[str] = []

    def fault(words: Sequence[str]) -> Answer | None:
        if bench.slurm.now >= until:
            return None
        if words[0] == "sbatch":
            made.append(run_command(bench.slurm, list(words)).out)
            return timed_out
        return silent if "--me" in words else None

    bench.slurm.fault = fault
    again = goes_on(bench)
    assert made == [f"{again.id}\n"]
    assert len(bench.slurm.jobs) == 2
    assert bench.slurm.now >= until
