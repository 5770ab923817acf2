"""Claiming an attempt: one winner, live holders respected, the same job's restart taking over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from hpcresume.checkpoint import attempts
from hpcresume.checkpoint.attempts import Holder, claim, newest_attempt, read_holder, read_starts, record_start
from hpcresume.comm.single import SingleRanks
from hpcresume.errors import HpcresumeError, RunBusyError, RunDirectoryError
from hpcresume.io.files import substituted
from hpcresume.io.paths import RunPaths
from hpcresume.model import Skipped
from hpcresume.testing.faults import FaultyFiles, SimulatedCrash
from hpcresume.testing.thread_ranks import run_ranks, unwrap
from tests.checkpoint.runs import begin, commit, new_run
from tests.support.mpi import child_environment

JOB_7 = Holder("7", 0, "n1", "boot", 100, "1")
JOB_7_AGAIN = Holder("7", 1, "n2", "boot", 200, "2")
JOB_8 = Holder("8", 0, "n1", "boot", 300, "3")


def claim_as(run: RunPaths, holder: Holder, alive: bool = True) -> int:
    return claim(run, holder=holder, ranks=SingleRanks(), alive=lambda h: alive)


def test_attempts_are_numbered_from_one(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    assert newest_attempt(run) == 0
    assert [begin(run), begin(run), begin(run)] == [1, 2, 3]
    assert run.attempt_numbers() == [1, 2, 3]
    assert read_holder(run, 3) == Holder.here(None, 0)


def test_a_live_holder_keeps_another_job_out(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    claim_as(run, JOB_7)
    with pytest.raises(RunBusyError, match="job 7"):
        claim_as(run, JOB_8)
    assert run.attempt_numbers() == [1]
    assert claim_as(run, JOB_8, alive=False) == 2


def test_the_same_job_with_a_higher_restart_count_takes_over_without_asking(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    claim_as(run, JOB_7)
    assert claim_as(run, JOB_7_AGAIN) == 2
    with pytest.raises(RunBusyError):
        claim_as(run, JOB_7), "an older incarnation does not take over from a newer one"


def test_the_same_job_and_restart_count_is_asked_for_its_life(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    claim_as(run, JOB_7)
    with pytest.raises(RunBusyError):
        claim_as(run, JOB_7)


def test_processes_without_a_job_are_named_by_host_and_pid(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    begin(run, Holder(None, 0, "login1", "boot", 4711, "1"))
    with pytest.raises(RunBusyError, match="process 4711 on login1"):
        claim_as(run, JOB_8)


def test_ranks_agree_on_the_number(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")

    def act(ranks: Any) -> int:
        return claim(run, holder=Holder.here(None, 0), ranks=ranks, alive=lambda h: False)

    assert unwrap(run_ranks(4, act)) == [1, 1, 1, 1]


def test_a_refusal_reaches_all_ranks(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    claim_as(run, JOB_7)
    results = run_ranks(3, lambda ranks: claim(run, holder=JOB_8, ranks=ranks, alive=lambda h: True))
    assert {type(r) for r in results} == {RunBusyError}


RACER = """
import sys
from pathlib import Path
from hpcresume.checkpoint.attempts import Holder, claim
from hpcresume.comm.single import SingleRanks
from hpcresume.errors import RunBusyError
from hpcresume.io.paths import RunPaths
sys.stdin.readline()
try:
    number = claim(RunPaths(Path(sys.argv[1])), holder=Holder.here(sys.argv[2], 0), ranks=SingleRanks(),
                   alive=lambda holder: holder.process_alive() is True)
    print("claimed", number, flush=True)
except RunBusyError as error:
    print("busy", error, flush=True)
sys.stdin.readline()
"""


def test_of_processes_that_claim_at_the_same_instant_one_wins_and_the_others_are_told(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    env = child_environment()
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(run.root), str(job)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env,
        )
        for job in range(6)
    ]  # fmt: skip
    try:
        time.sleep(0.5)
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [process.stdout.readline().split() for process in started if process.stdout is not None]
    finally:
        for process in started:
            process.communicate("end\n", timeout=20)
    assert sorted(answer[0] for answer in answers) == ["busy"] * 5 + ["claimed"]
    assert run.attempt_numbers() == [1]
    print(f"{len(started)} processes claimed at once: one won")


def test_claims_in_the_same_process_at_the_same_instant_get_numbers_of_their_own(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    results = [0] * 8
    start = threading.Barrier(8)

    def race(i: int) -> None:
        start.wait()
        results[i] = begin(run)

    threads = [threading.Thread(target=race, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(1, 9))


def test_a_claim_that_is_being_written_is_waited_for(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    run.attempt(1).root.mkdir()
    begin_writing = threading.Timer(0.3, lambda: run.attempt(1).claim.write_text(json.dumps(vars(JOB_7))))
    begin_writing.start()
    with pytest.raises(RunBusyError, match="job 7"):
        claim_as(run, JOB_8)
    begin_writing.join()


def test_a_claim_that_is_never_written_holds_nobody_up_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "CLAIM_SECONDS", 0.2)
    run = new_run(tmp_path / "run")
    run.attempt(1).root.mkdir()
    began = time.monotonic()
    assert claim_as(run, JOB_8) == 2
    assert 0.1 < time.monotonic() - began < 2


def test_a_claim_left_unwritten_long_ago_is_not_waited_for(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    run.attempt(1).root.mkdir()
    os.utime(run.attempt(1).root, (0, 0))
    began = time.monotonic()
    assert claim_as(run, JOB_8) == 2
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"job_id": 7}', "\xff"])
def test_a_damaged_claim_holds_nobody(tmp_path: Path, text: str) -> None:
    run = new_run(tmp_path / "run")
    claim_as(run, JOB_7)
    run.attempt(1).claim.write_bytes(text.encode("latin-1"))
    assert read_holder(run, 1) is None
    assert claim_as(run, JOB_8) == 2


def test_numbers_go_on_after_what_was_committed_without_a_claim(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    commit(run, 4, 10)
    assert newest_attempt(run) == 4
    assert begin(run) == 5


def test_a_claim_that_fails_is_a_typed_error_and_one_that_is_killed_can_be_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "CLAIM_SECONDS", 0.01)
    recorder = FaultyFiles()
    with substituted(recorder):
        begin(new_run(tmp_path / "healthy"))
    opening = FaultyFiles()
    with substituted(opening):
        new_run(tmp_path / "opened")
    first = len(opening.log)
    for n in range(first, len(recorder.log)):
        for error in (5, "crash"):
            run = new_run(tmp_path / f"run{n}{error}")
            faulty = FaultyFiles(n - first, error)
            with substituted(faulty), pytest.raises((RunDirectoryError, SimulatedCrash)):
                begin(run)
            faulty.assert_fired()
            assert begin(run) in (1, 2)
    print(f"{len(recorder.log) - first} calls of a claim, an error and a death at each")


def test_a_start_record_survives_and_says_what_was_skipped(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    begin(run)
    record_start(run, 1, "g000000000010-a0001", [Skipped("g000000000020-a0001", "bad", "model/w", 7)])
    assert read_starts(run).known == {1: "g000000000010-a0001"}
    facts = json.loads(run.attempt(1).start.read_bytes())
    assert facts["skipped"] == [
        {"generation": "g000000000020-a0001", "reason": "bad", "tensor": "model/w", "offset": 7}
    ]


def test_a_holder_knows_whether_its_process_lives() -> None:
    assert Holder.here("1", 0).process_alive() is True
    here = "import json; from hpcresume.checkpoint.attempts import Holder; print(json.dumps(vars(Holder.here('1', 0))))"
    child = subprocess.run(
        [sys.executable, "-c", here], env=child_environment(), capture_output=True, text=True, check=True
    )
    holder = Holder(**json.loads(child.stdout))
    assert holder.pid != os.getpid()
    assert holder.process_alive() is False
    assert Holder("1", 0, "another-host", "x", 1, "1").process_alive() is None
    reused = Holder.here("1", 0)
    assert Holder(reused.job_id, 0, reused.host, reused.boot_id, reused.pid, "0").process_alive() is False, (
        "a reused pid"
    )


def test_a_run_that_cannot_be_claimed_forever_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run(tmp_path / "run")

    def always_taken(path: Path, *, exclusive: bool = False) -> None:
        raise FileExistsError(17, "File exists", str(path))

    monkeypatch.setattr(attempts, "make_directory", always_taken)
    with pytest.raises(HpcresumeError, match="keep claiming"):
        begin(run)
