"""The small records of a run: in place only when durable, in an order that no death can turn against the run."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import hpcresume as hr
from hpcresume.checkpoint import attempts
from hpcresume.checkpoint.attempts import record_start
from hpcresume.checkpoint.retire import retire
from hpcresume.checkpoint.run import mark_done
from hpcresume.errors import NoSpaceError, NoUsableGenerationError, RunDirectoryError
from hpcresume.io.durable import create_durably, make_directory, write_durably
from hpcresume.io.files import substituted
from hpcresume.io.paths import RunPaths
from hpcresume.model import Event
from hpcresume.testing.faults import Call, FaultyFiles, SimulatedCrash
from tests.checkpoint.runs import begin, commit, new_run, restart
from tests.checkpoint.states import same, small_state


def log_of(act: Callable[[], object]) -> list[Call]:
    recorder = FaultyFiles()
    with substituted(recorder):
        act()
    return recorder.log


def assert_durably_in_place(log: Sequence[Call], path: Path) -> None:
    """Written beside its place, synced, then renamed or linked into it, and the directory synced: in this order."""
    (place,) = [c for c in log if c.name in ("rename", "link") and c.detail == str(path)]
    scratch = [c for c in log[: place.number] if c.path == place.path]
    assert [c.name for c in scratch if c.name in ("pwrite", "fsync")][-1:] == ["fsync"], "synced before it is in place"
    directory = [c.number for c in log if c.name == "fsync" and c.path == str(path.parent)]
    assert any(number > place.number for number in directory), f"{path.parent.name} was not synced after {path.name}"


@pytest.mark.parametrize("write", [write_durably, create_durably])
def test_a_record_is_whole_and_durable_before_and_after_it_gets_its_name(
    tmp_path: Path, write: Callable[[Path, bytes], None]
) -> None:
    path = tmp_path / "record"
    assert_durably_in_place(log_of(lambda: write(path, b"content")), path)
    assert path.read_bytes() == b"content"


def test_every_record_of_an_attempt_is_durable_when_the_call_returns(tmp_path: Path) -> None:
    run = RunPaths(tmp_path / "run")
    assert_durably_in_place(log_of(lambda: new_run(run.root)), run.run_json)
    assert_durably_in_place(log_of(lambda: begin(run)), run.attempt(1).claim)
    assert_durably_in_place(log_of(lambda: record_start(run, 1, None, [])), run.attempt(1).start)
    assert_durably_in_place(log_of(lambda: mark_done(run, {"attempt": 1, "step": 3, "generation": None})), run.done)


def test_an_exclusive_directory_is_durable_before_anything_is_put_into_it(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    log = log_of(lambda: begin(run))
    (made,) = [c.number for c in log if c.name == "mkdir" and c.path == str(run.attempt(1).root)]
    inside = min(c.number for c in log if c.path.startswith(str(run.attempt(1).root) + "/"))
    parent = [c.number for c in log if c.name == "fsync" and c.path == str(run.attempt(1).root.parent)]
    assert any(made < number < inside for number in parent)
    log = log_of(lambda: make_directory(tmp_path / "a" / "b" / "c"))
    assert [(c.name, Path(c.path).name) for c in log] == [
        ("mkdir", "a"), ("fsync", tmp_path.name), ("mkdir", "b"), ("fsync", "a"), ("mkdir", "c"), ("fsync", "b"),
    ]  # fmt: skip


@pytest.mark.parametrize("once", [True, False], ids=["once", "for good"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_claim_that_cannot_be_written_leaves_no_empty_attempt_that_others_would_wait_for(
    tmp_path: Path, number: int, once: bool
) -> None:
    log = log_of(lambda: begin(new_run(tmp_path / "healthy")))
    writes = [c for c in log if c.name in ("open", "pwrite", "fsync", "rename") and "attempts/0001/" in c.path]
    opening = len(log_of(lambda: new_run(tmp_path / "opened")))
    assert {c.name for c in writes} == {"open", "pwrite", "fsync", "rename"}
    for call in writes:
        run = new_run(tmp_path / f"run{call.number}")
        # What is removed after a failure must work: a full disk refuses writes, not removals.
        only = ("open", "pwrite", "fsync", "rename", "mkdir")
        before = sum(c.name in only for c in log[opening : call.number])
        faulty = FaultyFiles(before, number, once=once, only=only)
        with substituted(faulty), pytest.raises(RunDirectoryError if number == errno.EIO else NoSpaceError):
            begin(run)
        faulty.assert_fired()
        assert list((run.root / "attempts").iterdir()) == []
        assert begin(run) == 1


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_death_at_any_call_of_an_attempts_first_save_neither_bars_the_run_nor_loses_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """The mark "has committed" refuses a start from zero: left before the commit it would refuse an empty run for
    ever, and without it the loss of everything that was committed would go unnoticed."""
    monkeypatch.setattr(attempts, "CLAIM_SECONDS", 0.01)

    def started(name: str) -> RunPaths:
        run = new_run(tmp_path / name)
        assert restart(run)[1].generation is None
        return run

    healthy = started("healthy")
    calls = log_of(lambda: commit(healthy, 1, 3))
    assert any(call.detail.endswith("committed") for call in calls), "the mark is a part of the commit"
    visible = []
    for n in range(len(calls)):
        run = started(f"run{n}")
        faulty = FaultyFiles(n, "crash", after=after)
        with substituted(faulty), pytest.raises(SimulatedCrash):
            commit(run, 1, 3)
        faulty.assert_fired()
        visible.append(run.generation(3, 1).exists())
        attempt, restored = restart(run)
        if visible[-1]:
            assert restored.generation is not None, f"started from zero after {calls[n]}"
            assert same(restored.state, small_state(3))
        else:
            assert restored.generation is None
        parent = restored.generation.name if restored.generation else None
        commit(run, attempt, 5, parent)
        for path in run.generations.iterdir():
            shutil.rmtree(path)
        with pytest.raises(NoUsableGenerationError):
            restart(run)
    assert visible == sorted(visible)
    assert set(visible) == {False, True}


def test_an_attempt_that_was_overtaken_retires_nothing_of_its_successors(tmp_path: Path) -> None:
    run, events = new_run(tmp_path / "run"), list[Event]()
    begin(run)
    names = [commit(run, 1, step).name for step in (1, 2, 3)]
    begin(run)
    assert retire(run, keep=1, attempt=1, emit=events.append) == []
    assert [event.name for event in events] == ["retire-refused"]
    assert sorted(path.name for path in run.generations.iterdir()) == names
    assert [g.step for g in hr.Generations(run.root).list()] == [1, 2, 3]
    assert retire(run, keep=1, attempt=2) == names[:2]
