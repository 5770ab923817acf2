"""A glance says what the whole history says, from little reading."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcresume.io.paths import RunPaths, generation_name
from hpcresume.model import Cause
from hpcresume.observe import glance as module
from hpcresume.observe.glance import glance
from hpcresume.observe.history import read_history
from tests.support.many_runs import make_run
from tests.support.users import unprivileged


def test_a_glance_at_a_run(tmp_path):
    seen = glance(make_run(tmp_path / "run", 3, job=12, hold="3 crashes"))
    newest = seen.newest
    assert (seen.attempts, seen.generation, seen.generation_step, seen.done) == (3, "g000000000270-a0003", 270, False)
    assert (newest.attempt, newest.step, newest.total, newest.cause) == (3, 280, 5000, Cause.CRASH)
    assert (newest.decided, newest.reason, newest.ended, newest.holder.job_id) == ("hold", "3 crashes", True, "12")
    assert seen.lost == 30, "the last of each attempt's hundred steps came after its save"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 3), st.booleans()), min_size=1, max_size=5), st.booleans())
def test_it_counts_lost_steps_as_the_history_does(tmp_path, attempts, done):
    root = tmp_path / "drawn"
    shutil.rmtree(root, ignore_errors=True)
    run, start, parent = RunPaths(root), 0, None
    run.generations.mkdir(parents=True)
    run.attempts.mkdir()
    run.run_json.write_text('{"format_version": 1, "run_id": "0"}')
    for number, (worked, since_save, saves) in enumerate(attempts, 1):
        paths = run.attempt(number)
        paths.root.mkdir()
        paths.start.write_text(json.dumps({"generation": parent, "skipped": []}))
        end = start + worked
        paths.progress.write_bytes(end.to_bytes(8, "little"))
        step = max(start + 1, end - since_save)
        lines = [{"t": 1.0, "event": "fresh-start"}]
        if saves:
            (run.generations / generation_name(step, number)).mkdir()
            lines.append({"t": 2.0, "event": "saved", "generation": generation_name(step, number), "step": step})
            start, parent = step, generation_name(step, number)
        paths.ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
        if number < len(attempts):
            paths.supervisor.write_text('{"t": 3.0, "event": "ended", "cause": "crash"}\n')
    if done:
        run.done.write_text("{}")
    assert glance(root).lost == read_history(run).lost_steps


def test_a_ledger_of_many_megabytes_costs_its_ends_only(tmp_path, monkeypatch):
    root = make_run(tmp_path / "run", 1, job=1)
    ledger = RunPaths(root).attempt(1).ledger
    with ledger.open("a") as file:
        file.writelines('{"t": 1.0, "mono": 0.0, "event": "save-begin", "step": 5}\n' for _ in range(200_000))
        file.write('{"t": 2.0, "mono": 0.0, "event": "warning", "signal": "SIGUSR1"}\n{"t": 3.0, "ev')
    read = []
    pread = os.pread
    monkeypatch.setattr(module.os, "pread", lambda *words: read.append(words[1]) or pread(*words))
    seen = glance(root)
    assert (seen.newest.total, seen.newest.warned) == (5000, True)
    assert sum(read) <= 3 * (module.HEAD + module.TAIL) < 100_000 < ledger.stat().st_size


def test_what_tears_or_is_no_json_hides_nothing_else(tmp_path):
    root = make_run(tmp_path / "run", 2, job=12, hold="why")
    paths = RunPaths(root).attempt(2)
    paths.claim.write_bytes(b'{"job_id": ')
    paths.progress.write_bytes(b"\x01")
    paths.ledger.write_bytes(b"\xff\xfe\n" + paths.ledger.read_bytes()[:500] + b"\n[1]\nnull\n")
    paths.supervisor.write_bytes(b'{"event": "ended"' + b"\n" + paths.supervisor.read_bytes() + b'{"event":"ended"')
    seen = glance(root)
    assert (seen.problem, seen.newest.holder, seen.newest.decided, seen.newest.step) == ("", None, "hold", 180)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"format_version": 2, "run_id": "x"}', "format version 2"),
        (b"[]", "run.json is damaged"),
        (b'{"format_version": "1"}', "run.json is damaged"),
        (b"", "run.json is damaged"),
    ],
)
def test_a_run_of_another_version_or_without_one_says_so(tmp_path, content, problem):
    root = make_run(tmp_path / "run")
    RunPaths(root).run_json.write_bytes(content)
    assert problem in glance(root).problem


def test_a_run_that_is_not_there_or_may_not_be_read_says_so(tmp_path):
    assert "cannot be read" in glance(tmp_path / "nowhere").problem
    root = make_run(tmp_path / "run")
    RunPaths(root).attempts.chmod(0)
    tmp_path.chmod(0o755)
    root.chmod(0o755)
    with unprivileged():
        assert "cannot be read: Permission denied" in glance(root).problem
    RunPaths(root).attempts.chmod(0o700)


def test_a_run_that_was_only_submitted_has_no_attempt(tmp_path):
    (tmp_path / "run" / "submit").mkdir(parents=True)
    seen = glance(tmp_path / "run")
    assert (seen.problem, seen.attempts, seen.newest) == ("", 0, None)
