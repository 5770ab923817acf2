"""status, watch and why where Slurm is away, slow or lying; and how watch looks."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
from pathlib import Path

import pytest

from hpcresume.cli.main import main
from hpcresume.cli.watch_view import picture
from hpcresume.io.paths import RunPaths
from hpcresume.ops.watching import Watcher
from hpcresume.slurm.queue import QueuedJob
from tests.submit.scripts import stand_in
from tests.support.many_runs import make_run, make_runs


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """Puts a squeue on PATH that does what a shell script says, and counts its calls."""

    def put(script: str) -> None:
        calls = shlex.quote(str(tmp_path / "calls"))
        stand_in(tmp_path / "bin", "squeue", f"#!/bin/sh\necho x >> {calls}\n{script}\n")
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    def calls() -> int:
        path = tmp_path / "calls"
        return len(path.read_text().splitlines()) if path.exists() else 0

    put.calls = calls
    return put


ANSWER = r"""
for word; do case $word in --format=*) mark=${word#--format=}; mark=${mark%%%*};; esac; done
printf "$mark%s${mark}RUNNING${mark}None${mark}N/A${mark}N/A${mark}n1${mark}low$mark\n" 1001 1002
"""


def test_one_process_of_squeue_answers_for_all_runs(tmp_path, squeue, cli_json):
    squeue(ANSWER)
    make_runs(tmp_path / "runs", 20)
    code, found = cli_json("status", tmp_path / "runs")
    assert (code, squeue.calls(), len(found["runs"])) == (0, 1, 20)
    states = {row["run"][-4:]: row["state"] for row in found["runs"]}
    assert (states["0000"], states["0001"], states["0002"]) == ("done", "running", "running")


def test_no_process_is_started_where_nothing_has_a_job(tmp_path, squeue, cli):
    squeue("exit 1")
    make_run(tmp_path / "runs" / "a", done=True, job=7)
    make_run(tmp_path / "runs" / "b", hold="why")
    assert cli("status", tmp_path / "runs")[0] == 0
    assert squeue.calls() == 0


@pytest.mark.parametrize("script", ["exit 1", "echo garbage", "kill -9 $$", "printf '\\377\\376' ; exit 0"])
def test_what_the_files_tell_is_shown_although_squeue_fails(tmp_path, squeue, cli, script):
    squeue(script)
    make_run(tmp_path / "runs" / "a", 2, job=7, hold="3 crashes")
    make_run(tmp_path / "runs" / "b", done=True)
    code, out, err = cli("status", tmp_path / "runs")
    assert code == 69
    assert re.search(r"^a +held .* 3 crashes", out, re.M)
    assert re.search(r"^b +done", out, re.M)
    assert err.startswith("error: ")
    assert "where: squeue" in err
    code, out, err = cli("status", tmp_path / "runs", "--json")
    assert (code, json.loads(out)["slurm_error"]["where"]) == (69, "squeue")
    code, out, err = cli("why", tmp_path / "runs" / "a")
    assert (code, "attempt 2: crash" in out) == (69, True)
    assert err.startswith("error: ")
    assert "where: squeue" in err


def test_check_is_for_cron_and_says_77_when_somebody_is_needed(tmp_path, cli):
    make_run(tmp_path / "runs" / "b", done=True)
    assert cli("status", tmp_path / "runs", "--check")[0] == 0
    make_run(tmp_path / "runs" / "a", hold="why")
    assert cli("status", tmp_path / "runs")[0] == 0
    assert cli("status", tmp_path / "runs", "--check")[0] == 77


def test_verify_reads_the_newest_generation_of_each_run(run, cli, cli_json):
    from tests.cli.conftest import flip_bit

    assert cli_json("status", run, "--verify")[1]["runs"][0]["verified"] is True
    flip_bit(run / "generations" / "g000000000030-a0001", "model/w")
    code, out, _ = cli("status", run, "--verify")
    assert code == 74
    assert re.search(r"  NO  ", out)


def test_bad_words_are_told_with_their_exit_codes(tmp_path, cli):
    run = make_run(tmp_path / "run", 2, hold="why")
    assert cli("why", run, "--attempt", "9")[0] == 78
    assert cli("logs", run, "--attempt", "9")[0] == 78
    assert cli("logs", run)[0] == 73, "no log is known"
    assert cli("logs", run, "--follow", "--json")[0] == 2
    for verb in ("why", "logs", "watch", "cancel", "requeue"):
        code, _, err = cli(verb, tmp_path)
        assert (code, "there is no run here" in err) == (73, True)
        assert cli(verb, "")[0] == 78
    assert cli("cancel", run, "--wait", "x", "--yes")[0] == 78


# ---- watch


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def watcher(run: Path, answers: list[dict[str, QueuedJob]]) -> tuple[Watcher, Clock, list[int]]:
    clock, questions = Clock(), []

    def ask(_ids):
        questions.append(1)
        return answers.pop(0) if len(answers) > 1 else answers[0]

    return Watcher(RunPaths(run), 30.0, ask=ask, clock=clock), clock, questions


def test_slurm_is_asked_seldom_however_often_the_files_are_looked_at(tmp_path):
    watch, clock, questions = watcher(make_run(tmp_path / "run", job=7), [{"7": QueuedJob("7", "RUNNING")}])
    for _ in range(100):
        assert not watch.look().over
        clock.now += 1.0
    assert len(questions) == 4


def test_a_moment_without_a_job_between_two_attempts_is_not_the_end(tmp_path):
    run = make_run(tmp_path / "run", 2, job=7, hold="")
    supervisor = RunPaths(run).attempt(2).supervisor
    supervisor.write_text('{"t": 5.0, "event": "ended", "cause": "preempted"}\n')
    running = {"7": QueuedJob("7", "RUNNING")}
    watch, clock, _ = watcher(run, [{}, {"7": QueuedJob("7", "PENDING", "BeginTime")}, running])
    states = []
    for _ in range(40):
        look = watch.look()
        states.append(look.row.state.state)
        assert not look.over
        clock.now += 1.0
    assert states[0] == "ended"
    assert states[-1] == "running"


def test_a_run_whose_job_stays_away_has_ended_within_seconds(tmp_path):
    run = make_run(tmp_path / "run", 2, job=7, hold="3 crashes")
    watch, clock, _ = watcher(run, [{}])
    for _ in range(10):
        look = watch.look()
        if look.over:
            break
        clock.now += 1.0
    assert (look.over, look.row.state.state, clock.now < 6) == (True, "held", True)


def test_pace_and_time_left_come_from_the_last_minute(tmp_path):
    run = make_run(tmp_path / "run", job=7)
    watch, clock, _ = watcher(run, [{"7": QueuedJob("7", "RUNNING")}])
    progress = RunPaths(run).attempt(1).progress
    for second in range(11):
        progress.write_bytes((100 + 2 * second).to_bytes(8, "little"))
        look = watch.look()
        clock.now += 1.0
    assert look.pace == pytest.approx(2.0)
    assert look.seconds_left == pytest.approx((5000 - 120) / 2.0)


@pytest.mark.parametrize(("width", "height"), [(30, 12), (80, 24), (200, 60)])
def test_the_picture_fits_and_no_text_of_the_run_steers_the_terminal(tmp_path, width, height):
    from rich.console import Console

    run = make_run(tmp_path / "x\x1b[2Jy", 3, job=7, hold="bad\x1b]0;t\x07 reason\u202e [bold]")
    look = watcher(run, [{}])[0].look()
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=True, color_system=None)
    console.print(picture(look, list(look.lines), width, height, 0.0))
    text = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert all(c.isprintable() or c == "\n" for c in text)
    assert all(len(line) <= width for line in text.splitlines())
    assert "[bold]" in re.sub(r"[\s│]+", " ", text) or width == 30


def test_json_lines_of_a_finished_run(tmp_path, capsys):
    run = make_run(tmp_path / "run", 2, done=True)
    assert main(["watch", str(run), "--json"]) == 0
    values = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert values[-1]["state"] == "done"
    assert [v["event"] for v in values if v.get("source") == "supervisor"][-1] == "ended"


def test_on_a_terminal_it_draws_and_ends_with_the_run(tmp_path):
    """The whole verb under a real terminal of 100 columns."""
    import pty
    import subprocess

    from tests.support.launching import hpcresume

    run = make_run(tmp_path / "run", 2, hold="3 crashes")
    main_end, other = pty.openpty()
    try:
        environ = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
        process = subprocess.Popen(hpcresume("watch", str(run), "--every", "0.1"), stdout=other, stderr=other,
                                   stdin=other, env=environ)  # fmt: skip
        os.close(other)
        text = b""
        while True:
            try:
                block = os.read(main_end, 65536)
            except OSError:  # EIO: the other end is closed
                break
            if not block:
                break
            text += block
        assert process.wait(timeout=60) == 77
    finally:
        os.close(main_end)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.decode())
    assert "held  3 crashes" in shown
    assert "step 190/5000" in shown
    assert "→ hpcresume why" in shown
