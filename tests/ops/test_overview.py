"""Many runs: found, looked at quickly, and one question to Slurm for all of them."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest

from hpcresume.errors import RunDirectoryError, SlurmError
from hpcresume.ops.overview import as_json, find_runs, overview
from hpcresume.slurm.queue import QueuedJob
from tests.support.many_runs import make_run, make_runs
from tests.support.users import unprivileged


class Slurm:
    """Counts the questions; every job that was asked for runs."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, ids):
        self.asked.append(list(ids))
        return {each: QueuedJob(each, "RUNNING", nodes="n1") for each in self.asked[-1]}


def submitted(run: Path, job: str, **facts) -> None:
    (run / "submit").mkdir(parents=True, exist_ok=True)
    (run / "submit" / "job.json").write_text(json.dumps({"job_id": job, "submitted_at": time.time(), **facts}))


@pytest.mark.alone
def test_a_thousand_runs_take_a_second_and_one_question(tmp_path):
    make_runs(tmp_path, 1000, first_job=5000)
    seconds = []
    for _ in range(3):
        slurm, start = Slurm(), time.perf_counter()
        found = overview(find_runs([tmp_path]), ask=slurm)
        seconds.append(time.perf_counter() - start)
        assert [len(ids) for ids in slurm.asked] == [666], "those that are done are not asked for"
    print(f"1000 runs of 3 attempts: {min(seconds):.2f} s")
    states = [row.state.state for row in found.rows]
    assert (states.count("done"), states.count("running")) == (334, 666)
    assert min(seconds) < 1.0


def test_slurm_is_not_asked_where_no_unfinished_run_has_a_job(tmp_path):
    make_run(tmp_path / "a", done=True, job=7)
    make_run(tmp_path / "b")
    slurm = Slurm()
    found = overview(find_runs([tmp_path]), ask=slurm)
    assert (slurm.asked, [row.name for row in found.rows]) == ([], ["a", "b"])


def test_what_the_files_tell_is_there_although_slurm_cannot_be_asked(tmp_path):
    def ask(_ids):
        raise SlurmError("squeue hangs", where="squeue", hint="wait")

    make_run(tmp_path / "a", 2, job=7, hold="3 crashes")
    make_run(tmp_path / "b", done=True, job=8)
    found = overview(find_runs([tmp_path]), ask=ask)
    assert [row.state.state for row in found.rows] == ["held", "done"]
    assert as_json(found, {})["slurm_error"] == {"what": "squeue hangs", "where": "squeue", "try": "wait"}


def test_runs_are_found_in_folders_and_in_folders_of_folders_and_others_are_passed_over(tmp_path):
    for name in ("a", "group/b", "group/c"):
        make_run(tmp_path / name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    make_run(tmp_path / ".hidden")
    make_run(tmp_path / "a" / "inside")
    found = find_runs([tmp_path])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a", "group/b", "group/c"]
    assert find_runs([tmp_path / "group" / "b", tmp_path / "a", tmp_path / "a"]) == [
        tmp_path / "group" / "b",
        tmp_path / "a",
    ]
    assert [row.name for row in overview(found).rows] == ["a", "group/b", "group/c"]


def test_no_run_is_an_error_with_its_path(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RunDirectoryError) as caught:
            find_runs([path])
        assert str(path) in caught.value.where


def test_a_run_that_was_only_submitted_is_one(tmp_path):
    submitted(tmp_path / "new", "41")
    found = overview(find_runs([tmp_path]), ask=lambda _: {"41": QueuedJob("41", "PENDING", "Resources")})
    assert (found.rows[0].state.state, found.rows[0].job_id) == ("pending", "41")


def test_the_job_that_was_submitted_last_counts_and_an_older_one_that_runs_before_it(tmp_path):
    run = make_run(tmp_path / "run", 2, job=7, hold="why")
    submitted(run, "9")
    pending = QueuedJob("9", "PENDING", "Resources")
    row = overview([run], ask=lambda _: {"9": pending}).rows[0]
    assert (row.state.state, row.job_id) == ("requeued", "9")
    row = overview([run], ask=lambda _: {"9": pending, "7": QueuedJob("7", "RUNNING")}).rows[0]
    assert (row.state.state, row.job_id) == ("running", "7")


def test_tasks_of_an_array_are_runs_beside_what_was_submitted(tmp_path):
    submitted(tmp_path / "sweep", "70", spec={"resources": {"array": "0-2"}})
    (alone,) = overview(find_runs([tmp_path]), ask=lambda _: {"70_1": QueuedJob("70_1", "PENDING", "Priority")}).rows
    assert (alone.name, alone.state.state) == ("sweep", "pending")
    for task in (0, 10, 2):
        make_run(tmp_path / f"sweep-{task}")
    asked: list[str] = []
    for path in (tmp_path, tmp_path / "sweep"):
        rows = overview(find_runs([path]), ask=lambda ids: asked.extend(ids) or {}).rows
        assert sorted(row.name for row in rows) == ["sweep-0", "sweep-10", "sweep-2"]
    assert set(asked) == {"70_0", "70_2", "70_10"}


def test_names_and_reasons_that_would_steer_a_terminal_stay_text(tmp_path, capsys):
    from hpcresume.cli.main import main

    make_run(tmp_path / "a\x1b[2J\u202eb\nc", 1, job=None, hold="x\x1b]0;title\x07\n| y")
    assert main(["status", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 2
    assert all(c.isprintable() or c == "\n" for c in out)


def test_a_run_directory_that_may_not_be_read_is_a_row(tmp_path):
    root = make_run(tmp_path / "run")
    (root / "run.json").write_text("{")
    (row,) = overview(find_runs([tmp_path])).rows
    assert (row.state.state, "damaged" in row.state.doing) == ("unreadable", True)


def test_a_folder_that_may_not_be_looked_into_hides_no_other(tmp_path):
    with tempfile.TemporaryDirectory(prefix="hpcresume-test-") as name:
        place = Path(name)
        place.chmod(0o755)
        for run in ("a", "b"):
            shutil.move(make_run(tmp_path / run, hold="why"), place / run)
        for path in (place / "a").rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        (place / "a").chmod(0o755)
        (place / "b").chmod(0o700)
        if os.geteuid() != 0:
            (place / "b").chmod(0)
        with unprivileged():
            rows = overview(find_runs([place])).rows
        (place / "b").chmod(0o700)
    assert [(row.name, row.state.state) for row in rows] == [("a", "held"), ("b", "unreadable")]
    assert "Permission denied" in rows[1].state.doing


def test_paths_in_what_to_do_next_can_be_pasted(tmp_path):
    root = make_run(tmp_path / "my run's", 1, hold="why")
    (row,) = overview([root]).rows
    assert row.state.next.endswith(f"hpcresume requeue '{tmp_path}/my run'\"'\"'s'")
    assert os.path.isdir(root)
