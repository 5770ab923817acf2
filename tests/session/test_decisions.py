"""What is decided about the job: after the commit and durably, in two places of which one suffices."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

import hpcresume as hr
from hpcresume.comm.watchdog import Watchdog
from hpcresume.errors import ConfigError, ModelChangedError, NoSpaceError, RunDirectoryError, UsageError
from hpcresume.io.files import Files, substituted
from hpcresume.model import EXIT_HOLD
from hpcresume.policy.deadline import patience
from hpcresume.session import attempt as attempts
from hpcresume.session import ledger as ledgers
from hpcresume.session.aliveness import Aliveness
from hpcresume.testing.faults import FaultyFiles
from tests.session.scripts import decision


def train(run, total=6, *, during=lambda s, step: None, **options):
    weights = np.zeros(3)
    with hr.session(run, **{"every": "1000 steps", "reaction": 0, **options}) as s:
        s.track(weights=weights)
        for step in s.steps(total):
            weights += step
            during(s, step)
    return s, weights


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    """The supervisor's own directory, as the ranks are told of it."""
    directory = tmp_path / "launch"
    directory.mkdir()
    monkeypatch.setenv("HPCRESUME_LAUNCH_DIR", str(directory))
    return directory


def put_in_place(log, path):
    """Numbers of the calls that put a file into its place and that synced the directory afterwards."""
    (at,) = [c.number for c in log if c.name in ("rename", "link") and c.detail == str(path)]
    return at, min(c.number for c in log if c.name == "fsync" and c.path == str(Path(path).parent) and c.number > at)


def test_a_warning_is_answered_by_a_durable_commit_first_and_then_by_a_durable_decision(run, warn, launcher):
    recorder = FaultyFiles()
    with substituted(recorder), pytest.raises(hr.Stopped):
        train(run, during=lambda s, step: warn(s) if step == 2 else None)
    _, committed = put_in_place(recorder.log, run / "generations" / "g000000000003-a0001")
    for place in (run / "attempts/0001", launcher):
        told, synced = put_in_place(recorder.log, place / "decision.json")
        assert committed < told < synced
        assert json.loads((place / "decision.json").read_text())["generation"] == "g000000000003-a0001"


def test_each_record_of_a_whole_attempt_is_durable_before_what_rests_on_it(run, launcher):
    """The claim, where it starts from, the final state, DONE, the decision: a power cut leaves a prefix of these."""
    recorder = FaultyFiles()
    with substituted(recorder):
        train(run)
    attempt = run / "attempts" / "0001"
    final = run / "generations" / "g000000000006-a0001"
    places = [run / "run.json", attempt / "claim.json", attempt / "start.json", final, run / "DONE"]
    spans = [put_in_place(recorder.log, path) for path in [*places, attempt / "decision.json"]]
    for (_, durable), (next_one, _) in itertools.pairwise(spans):
        assert durable < next_one
    assert put_in_place(recorder.log, launcher / "decision.json")[0] > spans[-2][1]


class Full(Files):
    """A directory on a disk that takes no file of these names any more."""

    def __init__(self, directory, *names):
        self.directory = str(directory)
        self.names = names
        self.fired = 0

    def open(self, path, flags, mode=0o600):
        mine = str(path).startswith(self.directory + "/") and any(name in path.name for name in self.names)
        if mine and flags & os.O_CREAT:
            self.fired += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return super().open(path, flags, mode)


def test_a_full_run_keeps_no_decision_from_the_supervisor(run, warn, launcher, capsys):
    full = Full(run, "decision.json")
    with substituted(full), pytest.raises(hr.Stopped):
        train(run, during=lambda s, step: warn(s) if step == 2 else None)
    assert full.fired == 1
    assert decision(run, 1) is None
    told = json.loads((launcher / "decision.json").read_text())
    assert (told["decision"], told["generation"]) == ("come-back", "g000000000003-a0001")
    assert "the decision could not be written" in capsys.readouterr().err


def test_a_full_disk_of_the_supervisors_keeps_no_decision_from_the_run(run, warn, launcher, capsys):
    full = Full(launcher, "decision.json")
    with substituted(full), pytest.raises(hr.Stopped):
        train(run, during=lambda s, step: warn(s) if step == 2 else None)
    assert full.fired == 1
    assert not (launcher / "decision.json").exists()
    assert decision(run, 1)["decision"] == "come-back"
    assert "could not be given to the supervisor" in capsys.readouterr().err


def test_a_run_that_is_full_for_good_is_held_in_the_supervisors_words(run, launcher):
    full = Full(run, "decision.json", "state.h5")
    with substituted(full), pytest.raises(NoSpaceError):
        train(run, every="2 steps", save_failures=0)
    assert full.fired == 2
    assert decision(run, 1) is None
    assert json.loads((launcher / "decision.json").read_text())["decision"] == "hold"


@pytest.mark.parametrize("option", [{"every": "nonsense"}, {"comm": "mpi", "write_path": "ftp"}])
def test_an_option_that_is_wrong_ends_before_there_is_any_attempt(run, launcher, option):
    with pytest.raises(ConfigError) as caught:
        train(run, **option)
    assert not run.exists()
    told = json.loads((launcher / "decision.json").read_text())
    assert (told["decision"], told["exit_code"]) == ("hold", 78)
    assert caught.value.what in told["reason"]


def test_an_error_before_the_claim_is_told_to_the_supervisor(tmp_path, launcher):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError):
        train(tmp_path / "file")
    told = json.loads((launcher / "decision.json").read_text())
    assert (told["decision"], told["exit_code"], told["cause_hint"]) == ("hold", 73, "storage")


def test_an_error_that_the_program_caught_is_not_held_against_the_attempt_that_followed(run, tmp_path, launcher):
    """Should that attempt die without a word, the supervisor would take the old one for its decision."""
    with pytest.raises(ConfigError):
        train(run, every="nonsense")
    assert (launcher / "decision.json").exists()
    seen = []
    with pytest.raises(ValueError, match="a bug"):
        train(run, during=lambda s, step: seen.append((launcher / "decision.json").exists()) or fail())
    assert seen == [False]
    assert not (launcher / "decision.json").exists()


@pytest.mark.parametrize("place", ["claim", "armed"])
def test_ctrl_c_while_a_session_opens_leaves_no_session_open_and_nobody_listening(run, monkeypatch, place):
    def interrupt(self, event):
        if event.name == "armed":
            raise KeyboardInterrupt

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    target = (attempts, "claim", interrupted) if place == "claim" else (ledgers.Ledger, "emit", interrupt)
    with monkeypatch.context() as patch:
        patch.setattr(*target)
        with pytest.raises(KeyboardInterrupt), hr.session(run):
            pytest.fail("opened")
    assert signal.set_wakeup_fd(-1) == -1
    assert train(run)[1].tolist() == [15.0] * 3


def fail():
    raise ValueError("a bug")


def test_after_a_block_without_a_loop_nothing_more_of_the_program_runs(run):
    reached = []
    with pytest.raises(UsageError, match="before the loop"):
        with hr.session(run) as s:
            s.track(weights=np.zeros(1))
        reached.append("the code after the block, which thinks that all is trained")
    assert reached == []
    assert (decision(run, 1)["decision"], decision(run, 1)["exit_code"]) == ("hold", 64)


def test_a_generation_that_was_saved_without_a_session_fits_none(run):
    hr.save(run, {"weights": np.zeros(3)}, step=4)
    with pytest.raises(ModelChangedError) as caught:
        train(run, during=lambda s, step: pytest.fail("a step ran"))
    assert caught.value.hint or caught.value.where
    assert [each["decision"] for n in (1, 2) if (each := decision(run, n))] == ["hold"]
    assert [g.step for g in hr.Generations(run).list()] == [4]


def under_slurm(monkeypatch, restart, job="7"):
    monkeypatch.setenv("SLURM_JOB_ID", job)
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))


@pytest.fixture
def held(run, monkeypatch):
    """A run whose first attempt, in Slurm job 7, was held."""
    under_slurm(monkeypatch, 0)
    with pytest.raises(UsageError), hr.session(run):
        pass
    assert decision(run, 1)["decision"] == "hold"
    return run


@pytest.mark.parametrize(("supervised", "code"), [("0", EXIT_HOLD), ("1", 0)])
def test_the_restart_of_a_job_that_was_held_begins_nothing(held, monkeypatch, launcher, capsys, supervised, code):
    monkeypatch.setenv("HPCRESUME_SUPERVISED", supervised)
    under_slurm(monkeypatch, 1)
    with pytest.raises(hr.RunHeld) as left:
        train(held, during=lambda s, step: pytest.fail("a step ran"))
    assert left.value.code == code
    assert os.listdir(held / "attempts") == ["0001"]
    assert json.loads((launcher / "decision.json").read_text())["decision"] == "hold"
    assert "is held" in capsys.readouterr().err


@pytest.mark.parametrize(("decided", "starts"), [("hold", False), ("come-back", True)])
def test_a_hold_is_the_supervisors_to_decide_where_there_was_one(run, monkeypatch, decided, starts):
    """Its budgets count over all attempts: a session that said "come back" may be held all the same."""
    under_slurm(monkeypatch, 0)
    with pytest.raises(ValueError, match="a bug"):
        train(run, during=lambda s, step: fail())
    lines = [{"event": "started"}, {"event": "decision", "decision": decided}, {"event": "ended", "cause": "crash"}]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"torn "decision'
    (run / "attempts/0001/supervisor.jsonl").write_text(text)
    under_slurm(monkeypatch, 1)
    if starts:
        assert train(run)[0].attempt == 2
    else:
        with pytest.raises(hr.RunHeld):
            train(run)


@pytest.mark.parametrize("how", ["released", "submitted anew", "not restarted"])
def test_a_held_run_goes_on_when_a_person_has_looked_at_it(held, monkeypatch, how):
    if how == "released":
        monkeypatch.setenv("HPCRESUME_RELEASE", "1")
    under_slurm(monkeypatch, 0 if how == "not restarted" else 1, "8" if how == "submitted anew" else "7")
    monkeypatch.setattr(Aliveness, "__call__", lambda *_: False)
    s, _ = train(held)
    assert s.attempt == 2
    assert (held / "DONE").exists()


@pytest.mark.parametrize("wrap", [lambda x: x, hr.RankLocal], ids=["of all ranks", "of one rank"])
def test_a_save_and_a_restore_are_given_time_for_all_bytes_that_a_rank_moves(run, monkeypatch, wrap):
    """What belongs to one rank is written and read by it alone, so its bytes count in full."""
    given, original = [], Watchdog.guard

    def guard(self, name, timeout=None):
        given.append((name, timeout))
        return original(self, name, timeout)

    monkeypatch.setattr(Watchdog, "guard", guard)
    large = np.zeros(1_000_000)
    for steps in (2, 4):
        with hr.session(run, watchdog="10s", reopen=True, every="1000 steps") as s:
            s.track(large=wrap(large))
            for _ in s.steps(steps):
                pass
    most = {name: max(t for n, t in given if n == name and t is not None) for name in ("save step 4", "restore")}
    assert patience(10.0, large.nbytes) <= most["save step 4"] < patience(10.0, 2 * large.nbytes)
    assert most["restore"] >= patience(10.0, 2 * large.nbytes), "its file to prove, and its own part of it"
    assert all((name, None) in given for name in most), "and the plain wait to find out how much it is"
