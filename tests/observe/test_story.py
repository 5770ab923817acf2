"""The story of each attempt: only what its files say, in plain words."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hpcresume.model import Cause
from hpcresume.observe.history import read_history
from hpcresume.observe.ledger_reader import Record
from hpcresume.observe.story import barren_starts, chapter, tell_story


def a_preempted_and_a_held_attempt(written):
    """1 is preempted in job 12 and saves; 2 crashes at 25 and is held."""
    written.run.attempt(1).root.mkdir()
    claim = '{"job_id": "12", "restart": %d, "host": "n1", "holds": true}'
    written.run.attempt(1).claim.write_text(claim % 0)
    written.event(1, "claimed", world_size=8)
    written.start(1, None)
    written.event(1, "fresh-start", total_steps=100)
    written.steps(1, 1, 20)
    written.supervisor(1, "warning-received", signal="SIGUSR1", at=1003.0)
    written.supervisor(1, "slurm", state="RUNNING", reason="None", end=1090.0, preempted_at=1003.0)
    written.event(1, "warning", signal="SIGUSR1")
    written.saved(1, 20)
    written.event(1, "stop", step=20, why="warned by SIGUSR1")
    written.supervisor(1, "cause", cause="preempted", evidence=["PreemptTime is set"])
    written.supervisor(1, "decision", decision="come-back", reason="preempted: comes back")
    written.supervisor(1, "ended", cause="preempted", exit_code=75)
    written.supervisor(1, "requeue", result="accepted", detail="")

    written.start(2, "g000000000020-a0001")
    written.run.attempt(2).claim.write_text(claim % 1)
    written.event(2, "restored", generation="g000000000020-a0001", step=20, skipped=[], seconds=0.25)
    written.steps(2, 21, 25)
    written.event(2, "exception", type="ValueError", message="no\n\x1b[31m such file.", rank=3, step=25)
    written.supervisor(2, "child-exit", code=1, signal=None)
    written.supervisor(2, "cause", cause="crash", evidence=["ValueError on rank 3"])
    written.supervisor(2, "decision", decision="hold", reason="held: 3 attempts ended by crash (limit 3)")
    written.supervisor(2, "ended", cause="crash", exit_code=77)
    written.supervisor(2, "held", result="accepted", detail="")


def test_a_preempted_attempt_is_told_from_its_beginning_to_what_was_lost(written):
    a_preempted_and_a_held_attempt(written)
    first, _ = tell_story(written.run)
    text = " ".join(first.sentences)
    for part in (
        "in job 12 on n1 with 8 ranks, from nothing",
        "It saved g000000000020-a0001 at",
        "The job was told by SIGUSR1 at",
        "Slurm would end it at",
        "All ranks stopped together after step 20",
        "preempted (Slurm wanted its nodes for another job)",
        "Decided: it comes back; Slurm put the job back into the queue.",
        "It worked steps 1 to 20; none was lost.",
    ):
        assert part in text
    assert (first.cause, first.job_id, first.lost_steps, first.decided) == (Cause.PREEMPTED, "12", 0, "come-back")
    assert first.evidence[0] == "PreemptTime is set"
    assert any("PreemptTime=" in line and "JobState=RUNNING" in line for line in first.evidence)


def test_a_held_attempt_names_the_rank_the_error_and_the_loss(written):
    a_preempted_and_a_held_attempt(written)
    _, second = tell_story(written.run)
    text = " ".join(second.sentences)
    for part in (
        "(start 2 of it)",
        "from g000000000020-a0001, restored in 0.25 s",
        "It saved nothing.",
        "Rank 3 raised ValueError at step 25: no \x1b[31m such file.",
        "their launcher ended with code 1",
        "Decided: held (3 attempts ended by crash (limit 3)); its job stays in the queue, held",
        "It worked steps 21 to 25; 5 of them were lost",
    ):
        assert part in text
    assert "\n" not in text


def test_a_hold_that_a_person_lifted_stays_a_hold_in_the_story(written):
    a_preempted_and_a_held_attempt(written)
    written.supervisor(2, "decision", decision="come-back", reason="released by hpcresume requeue", released=True)
    _, second = tell_story(written.run)
    text = " ".join(second.sentences)
    assert second.decided == "hold"
    assert "Decided: held (3 attempts" in text
    assert "A person released it at" in text


def test_what_the_clock_did_and_what_auto_chose_is_told(written):
    written.run.attempt(1).root.mkdir()
    written.start(1, None)
    written.event(1, "claimed", world_size=2)
    written.event(1, "fresh-start", total_steps=100)
    written.event(1, "cadence", seconds=60.0, why="the first save measures what one costs", save_seconds=None)
    written.event(1, "cadence", seconds=650.0, why="this loses least time", save_seconds=10.0, mean_time=21600.0)
    written.supervisor(1, "lead", seconds=67.0, why="a save takes up to 20.0 s", end=2000.0)
    assert "It had to be told 1 min 7 s before the end of its time: a save" in " ".join(
        tell_story(written.run)[0].sentences
    )
    written.supervisor(1, "short-allocation", left=96.0, needed=97.0, setup=3504.0)
    written.supervisor(1, "warning-by-clock", left=66.6, lead=67.0, why="a save takes up to 20.0 s", at=1004.0)
    written.event(1, "warning", signal=10)
    text = " ".join(tell_story(written.run)[0].sentences)
    for part in (
        "Its allocation had 1 min 36 s left after 58 min 24 s of set-up, and to begin,",
        "and to save it takes 1 min 37 s.",
        "It chose to save every 10 min 50 s (this loses least time): a save takes 10 s,",
        "an end that costs work is to be expected every 6 h.",
        "Our own clock told the ranks at ",
        ", 1 min 7 s before the end of the allocation: a save takes up to 20.0 s.",
    ):
        assert part in text
    assert "The ranks were warned by" not in text, "they were, by ourselves"


def test_an_attempt_that_runs_and_one_that_left_no_word(written):
    written.start(1, None)
    written.event(1, "fresh-start")
    written.steps(1, 1, 7)
    written.start(2, None)
    written.event(2, "fresh-start")
    written.steps(2, 1, 3)
    first, second = tell_story(written.run)
    assert (first.cause, second.cause) == (Cause.UNKNOWN, None)
    assert "Nobody was left to decide what follows." in first.sentences
    assert "It worked steps 1 to 7; 7 of them were lost, since no generation held them." in first.sentences
    assert second.sentences[-2:] == ("It has not ended, as far as its files tell.", "It worked steps 1 to 3 so far.")


def test_the_end_that_a_later_attempt_recorded_is_told_as_such(written):
    written.start(1, None)
    written.event(1, "fresh-start")
    written.steps(1, 1, 3)
    written.supervisor(1, "cause", cause="node-failure", evidence=["its node was lost"], told_by=2)
    written.supervisor(1, "ended", cause="node-failure", exit_code=None, told_by=2)
    (only,) = tell_story(written.run)
    assert any("node-failure (recorded by attempt 2, since its own supervisor could not)" in s for s in only.sentences)


def test_starts_that_never_became_an_attempt_are_told(written):
    written.line(written.run.root / "launch" / "barren-starts.jsonl", t=1000.0, job_id="12", restart=1, cause="crash")
    written.line(written.run.root / "launch" / "barren-starts.jsonl", job_id=None, restart="x")
    first, second = barren_starts(written.run)
    assert first.startswith("start 2 of job 12 at ")
    assert first.endswith(": crash")
    assert second


values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.just(10**400),
                   st.text(max_size=20), st.lists(st.text(max_size=5), max_size=2))  # fmt: skip
names = st.sampled_from(
    ["claimed", "saved", "save-failed", "ranks-missing", "warning", "stop", "exception", "warning-received", "slurm",
     "ended", "child-exit", "decision", "requeue", "held", "resubmitted", "cadence", "short-allocation",
     "warning-by-clock"]
)  # fmt: skip
keys = st.sampled_from(["step", "signal", "at", "end", "preempted_at", "rank", "type", "message", "code", "reason",
                        "decision", "result", "detail", "told_by", "generation", "world_size", "seconds",
                        "released", "save_seconds", "mean_time", "left", "needed", "setup", "why"])  # fmt: skip
records = st.lists(
    st.builds(Record, st.floats(-1e12, 1e12), names, st.dictionaries(keys, values, max_size=5)), max_size=6
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(records, records, st.dictionaries(st.sampled_from(["job_id", "restart", "host", "holds"]), values))
def test_whatever_stands_in_the_files_there_is_a_story(session, supervisor, claim):
    from hpcresume.observe.facts import gather
    from hpcresume.observe.history import assemble

    facts = gather(1, ledger=session, supervisor=supervisor, metrics=(), start={}, decision={}, progress=3)
    (attempt,) = assemble([facts], done=False).attempts
    assert chapter(attempt, newest=True, session=session, supervisor=supervisor, claim=claim).sentences


def test_the_story_and_the_history_agree_on_what_was_lost(written):
    a_preempted_and_a_held_attempt(written)
    assert [c.lost_steps for c in tell_story(written.run)] == [a.lost_steps for a in read_history(written.run).attempts]


def test_an_unknown_cause_says_what_was_looked_for(written):
    """An empty list of evidence left a reader to guess whether anybody had looked."""
    for number, begins_at in ((1, None), (2, "g000000000020-a0001"), (3, "g000000000020-a0001")):
        written.run.attempt(number).root.mkdir()
        written.start(number, begins_at)
        written.steps(number, 1 if begins_at is None else 21, 25)
    written.supervisor(2, "started", node="n1")
    first, second, _ = tell_story(written.run)
    assert first.cause is second.cause is Cause.UNKNOWN
    assert first.evidence[0].startswith("no supervisor kept a record of it, no rank recorded an exception")
    assert second.evidence == ("its supervisor recorded no end, and no later start asked Slurm about it",)
