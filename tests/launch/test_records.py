"""What the supervisor reads of earlier attempts, and how it closes one that was cut off."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path

import pytest

from hpcresume.errors import RunDirectoryError
from hpcresume.io.files import Files, substituted
from hpcresume.io.paths import RunPaths
from hpcresume.launch.closing import close_predecessor, lost_nodes
from hpcresume.launch.memory import memory_kills, new_memory_kills
from hpcresume.launch.records import (
    committed_step,
    last_decision,
    past_attempts,
    raised,
    rank_warnings,
    stuck_in_files,
)
from hpcresume.launch.rendezvous import Rendezvous
from hpcresume.model import Cause, Decision
from hpcresume.policy.budgets import PastAttempt
from hpcresume.policy.cause import SignalReceived


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    for number in (1, 2):
        (tmp_path / f"attempts/{number:04d}").mkdir(parents=True)
    return RunPaths(tmp_path)


def write(path: Path, *lines: object) -> None:
    with path.open("a") as file:
        file.writelines((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)


def supervised(run: RunPaths, number: int, *lines: dict[str, object]) -> None:
    write(run.attempt(number).supervisor, *({"t": 100.0 + n, "mono": 0.0, **line} for n, line in enumerate(lines)))


def test_an_ended_attempt_is_read_from_its_supervisors_own_words(run):
    supervised(run, 1, {"event": "decision", "decision": "come-back"},
               {"event": "ended", "cause": "preempted", "committed": 40})  # fmt: skip
    assert past_attempts(run, 2) == (PastAttempt(1, Cause.PREEMPTED, 40, "come-back"),)
    assert last_decision(RunPaths(run.root)) == ""


def test_the_committed_step_comes_from_the_session_and_damaged_lines_cost_themselves_only(run):
    write(run.attempt(1).ledger, {"event": "saved", "step": 10}, '{"event": "saved", "step": 99', "\x00\xff saved",
          {"event": "saved", "step": 20}, {"event": "save-begin", "step": 30, "x": "saved"}, "[]", "5")  # fmt: skip
    assert committed_step(run.attempt(1)) == 20
    assert committed_step(run.attempt(2)) is None


def test_the_warnings_that_the_ranks_got_are_read_from_the_session(run):
    write(run.attempt(1).ledger, {"t": 2.0, "event": "warning", "signal": "SIGUSR1"}, {"event": "warning"},
          {"t": 3.0, "event": "warning", "signal": 15}, {"t": 4.0, "event": "warning", "signal": "SIGX"})  # fmt: skip
    assert rank_warnings(run.attempt(1)) == (SignalReceived(10, 2.0), SignalReceived(15, 3.0))


def test_the_first_exception_of_any_rank_is_the_one_that_counts(run):
    write(run.attempt(1).ledger, {"t": 2.0, "event": "exception", "type": "PeerFailureError", "rank": 0})
    write(run.attempt(1).rank_ledger(3), {"t": 1.0, "event": "exception", "type": "ValueError", "rank": 3, "step": 7})
    first = raised(run.attempt(1))
    assert first is not None
    assert (first.type, first.rank, first.step) == ("ValueError", 3, 7)
    assert raised(run.attempt(2)) is None


@pytest.mark.parametrize(
    ("lines", "claim", "restarted", "cause"),
    [
        ([{"event": "started"}], {"job_id": "7"}, "7", Cause.NODE_FAILURE),
        ([{"event": "started"}], {"job_id": "7"}, None, Cause.UNKNOWN),
        ([{"event": "started"}], {"job_id": "6"}, "7", Cause.UNKNOWN),
        ([{"event": "started"}], {}, "7", Cause.NODE_FAILURE),
        ([{"event": "started"}, {"event": "cause", "cause": "preempted"}], {"job_id": "7"}, "7", Cause.PREEMPTED),
        ([], {"job_id": "7"}, "7", Cause.NODE_FAILURE),
        ([], {"job_id": None}, None, Cause.UNKNOWN),
        ([{"event": "started"}], {"job_id": None}, "7", Cause.UNKNOWN),
        ([{"event": "started"}], "torn {", "7", Cause.NODE_FAILURE),
    ],
)
def test_an_attempt_that_was_cut_off_is_closed_by_the_next_one(run, lines, claim, restarted, cause):
    write(run.attempt(1).claim, claim)
    supervised(run, 1, *lines)
    write(run.attempt(1).ledger, {"t": 150.0, "event": "saved", "step": 30})
    assert close_predecessor(run, 2, restarted_job=restarted) == PastAttempt(1, cause, 30)
    assert past_attempts(run, 2) == (PastAttempt(1, cause, 30),)
    last = json.loads(run.attempt(1).supervisor.read_text().splitlines()[-1])
    assert (last["t"], last["told_by"], last["exit_code"]) == (150.0, 2, None)


def test_an_attempt_whose_supervisor_could_write_nothing_ended_as_its_session_decided(run):
    """Its file lay on a server that was away: neither is its node to blame, nor is that excluded."""
    write(run.attempt(1).claim, {"job_id": "7"})
    write(run.attempt(1).decision, {"decision": "come-back", "cause_hint": "storage"})
    ended = close_predecessor(run, 2, restarted_job="7")
    assert ended is not None
    assert ended.cause is Cause.STORAGE
    assert lost_nodes(run, 2) == []


@pytest.mark.parametrize(
    "torn", ['{"decision": "hold", "cause_hint": "storage"}', '{"decision": "come-back"}', "[1]", "{"]
)
def test_a_decision_that_tells_no_cause_leaves_the_lost_node(run, torn):
    write(run.attempt(1).claim, {"job_id": "7"})
    run.attempt(1).decision.write_text(torn)
    ended = close_predecessor(run, 2, restarted_job="7")
    assert ended is not None
    assert ended.cause is Cause.NODE_FAILURE


MISSING = {"event": "ranks-missing", "waiting_for": "save step 40", "seconds": 12.0, "missing": [2, 3]}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "rank 2, 3 did not come out of 'save step 40' after 12 s"),
        ({"waiting_for": "restore"}, "'restore'"),
        ({"waiting_for": "vote"}, ""),
        ({"waiting_for": "exit"}, ""),
        ({"missing": None}, ""),
        ({"missing": []}, ""),
        ({"seconds": None}, "rank 2, 3 did not come out of 'save step 40':"),
    ],
)
def test_ranks_that_hang_in_work_on_files_are_named_by_those_that_wait(run, changes, word):
    write(run.attempt(1).rank_ledger(1), {"t": 1.0, **MISSING, **changes})
    said = stuck_in_files(run.attempt(1))
    assert (word in said) if word else said == ""


def test_an_attempt_that_ended_is_not_closed_twice(run):
    supervised(run, 1, {"event": "ended", "cause": "crash", "committed": None})
    before = run.attempt(1).supervisor.read_bytes()
    assert close_predecessor(run, 2, restarted_job="7") is None
    assert close_predecessor(run, 1, restarted_job="7") is None
    assert run.attempt(1).supervisor.read_bytes() == before


def test_the_rendezvous_believes_no_half_written_or_foreign_pointer(tmp_path):
    meeting = Rendezvous.create(None, {"HPCRESUME_LAUNCH_PARENT": str(tmp_path)})
    pointer = meeting.directory / "session.json"
    for text in ("", "{", "[]", "null", '{"run": "relative", "attempt": 1}', '{"run": "/x", "attempt": "1"}',
                 '{"run": "/x", "attempt": 0}'):  # fmt: skip
        pointer.write_text(text)
        assert meeting.claimed() is None
    pointer.write_text(json.dumps({"run": str(tmp_path), "attempt": 2}))
    claimed = meeting.claimed()
    assert claimed is not None
    assert claimed.paths.root == tmp_path / "attempts/0002"


def test_the_decision_of_the_attempt_counts_before_the_copy(tmp_path):
    meeting = Rendezvous.create(None, {"HPCRESUME_LAUNCH_PARENT": str(tmp_path)})
    (meeting.directory / "decision.json").write_text('{"decision": "come-back", "step": 3}')
    copy = meeting.decision()
    assert copy is not None
    assert (copy.decision, copy.step) == (Decision.COME_BACK, 3)
    (tmp_path / "attempts/0001").mkdir(parents=True)
    (tmp_path / "attempts/0001/decision.json").write_text('{"decision": "hold", "cause_hint": "storage"}')
    (meeting.directory / "session.json").write_text(json.dumps({"run": str(tmp_path), "attempt": 1}))
    own = meeting.decision()
    assert own is not None
    assert (own.decision, own.cause_hint) == (Decision.HOLD, Cause.STORAGE)


def test_a_launch_directory_lies_in_an_existing_run_where_every_node_sees_it(tmp_path):
    elsewhere = Rendezvous.create(tmp_path, {})
    assert not elsewhere.directory.is_relative_to(tmp_path)
    elsewhere.remove()
    (tmp_path / "run.json").touch()
    meeting = Rendezvous.create(tmp_path, {})
    assert meeting.directory.parent == tmp_path / "launch"
    assert meeting.directory.stat().st_mode & 0o777 == 0o700
    meeting.remove()
    assert not meeting.directory.exists()


@pytest.mark.parametrize("number", [errno.ENOTCONN, errno.ENOSPC, errno.EROFS])
def test_a_run_whose_filesystem_is_away_or_full_leaves_somebody_to_decide_about_it(
    run, monkeypatch, tmp_path_factory, number
):
    """The job ended with code 73 and was lost, before the ranks were started that know what the storage says."""
    run.run_json.write_text("{}")
    (run.root / "launch").mkdir()
    make = tempfile.mkdtemp

    def refuse(suffix=None, prefix=None, dir=None):
        if dir is not None and Path(dir).is_relative_to(run.root):
            raise OSError(number, os.strerror(number), str(dir))
        return make(suffix, prefix, dir)

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    machine = tmp_path_factory.mktemp("machine")
    monkeypatch.setattr(tempfile, "tempdir", str(machine))
    meeting = Rendezvous.create(run.root, {})
    assert meeting.directory.parent == machine
    assert meeting.directory.stat().st_mode & 0o777 == 0o700
    meeting.remove()
    assert not meeting.directory.exists()


def test_a_supervisor_leaves_no_word_on_a_filesystem_of_which_a_server_is_away(run, monkeypatch, tmp_path_factory):
    """There a directory can be made and never renamed; and its files may hang, or not be seen (GlusterFS)."""

    class Away(Files):
        fired = 0

        def rename(self, source, target):
            self.fired += 1
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), str(source))

    run.run_json.write_text("{}")
    machine = tmp_path_factory.mktemp("machine")
    monkeypatch.setattr(tempfile, "tempdir", str(machine))
    away = Away()
    with substituted(away):
        meeting = Rendezvous.create(run.root, {})
    assert away.fired == 1
    assert meeting.directory.parent == machine
    assert list((run.root / "launch").iterdir()) == []
    meeting.remove()


def test_no_place_for_the_launch_directory_is_a_typed_error(tmp_path):
    with pytest.raises(RunDirectoryError, match="no place"):
        Rendezvous.create(None, {"HPCRESUME_LAUNCH_PARENT": str(tmp_path / "missing")})


def test_the_kernels_kills_for_memory_are_counted_for_this_job(tmp_path):
    cgroups, root = tmp_path / "cgroup", tmp_path / "fs"
    cgroups.write_text("4:memory:/slurm/uid_0/job_12/step_batch\n0::/system.slice/job_12/step_batch/task_0\n")
    second, first = root / "system.slice/job_12/memory.events", root / "memory/slurm/uid_0/job_12/memory.oom_control"
    for file, text in ((second, "low 0\noom 1\noom_kill 1\n"), (first, "under_oom 0\noom_kill 4\n")):
        file.parent.mkdir(parents=True)
        file.write_text(text)
    before = memory_kills(cgroups, root)
    assert before == {second: 1, first: 4}
    second.write_text("low 0\noom 3\noom_kill 3\n")
    (line,) = new_memory_kills(before, memory_kills(cgroups, root))
    assert "killed 2 process(es) for memory" in line
    assert memory_kills(tmp_path / "missing", root) == {}


def test_a_warning_that_came_together_with_the_end_was_sent_before_it(run: RunPaths) -> None:
    """GraceTime=0: Slurm sends both within milliseconds, and the ranks may notice them in any order."""
    heard = ["SIGUSR2", "SIGTERM"]
    write(run.attempt(1).ledger, {"t": 2.0, "event": "warning", "signal": "SIGTERM", "rank": 1, "heard": heard})
    warning, end = rank_warnings(run.attempt(1))
    assert (warning.signal, end) == (12, SignalReceived(15, 2.0))
    assert warning.at < end.at
