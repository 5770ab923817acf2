"""A real filesystem of 64 MiB that fills up: what is committed stays, the training goes on, nothing is called done."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hpcresume as hr
from tests.storage.jobs import PROGRAM, STEPS
from tests.storage.room import Room
from tests.storage.small_disk import SmallDisk, Training, skip_without_loop
from tests.support.mpi import mpiexec

SAVES = ("--every", "10 steps", "--pause", "0.05")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    skip_without_loop()
    with Room() as room:
        yield SmallDisk(tmp_path, room)


@pytest.fixture(scope="module")
def digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the final state of two ranks that nothing disturbed."""
    out = tmp_path_factory.mktemp("undisturbed")
    done = mpiexec(2, [sys.executable, str(PROGRAM), str(out / "run"), str(STEPS), str(out)])
    assert done.returncode == 0, done.stderr
    return final(out)


def final(out: Path) -> str:
    digests = {json.loads((out / f"final-{rank}.json").read_text())["digest"] for rank in range(2)}
    assert len(digests) == 1
    return digests.pop()


def verified(run: Path) -> list[int]:
    """The steps of the generations; all of them must be whole."""
    found = hr.Generations(run)
    assert found.damaged() == []
    assert all(found.verify(each).ok for each in found.list())
    return [each.step for each in found.list()]


def staging(run: Path) -> list[Path]:
    return list((run / "generations").glob(".g*"))


def test_a_disk_that_fills_up_in_a_save_costs_that_save_and_the_training_goes_on(
    disk: SmallDisk, digest: str, tmp_path: Path
) -> None:
    with Training(disk, tmp_path, *SAVES) as training:
        training.wait(lambda: training.events(1, "saved"), "first save")
        training.hold_at("pwrite", "*/.g*partial*/state.h5", rank=1)  # the check for space has been passed
        training.wait_until_held()
        before = verified(training.run)
        disk.fill()
        training.go_on()
        training.wait(lambda: "save 1 failed" in training.text(), "failed save")
        steps = (tmp_path / "steps.jsonl").read_text().count("\n")
        training.wait(lambda: (tmp_path / "steps.jsonl").read_text().count("\n") > steps + 2, "further steps")
        assert "no space left to write the tensors" in training.text(), training.text()
        assert "try: free space or raise the quota" in training.text()
        assert verified(training.run) == before, "older generations are as they were"
        assert staging(training.run) == []
        disk.free()
        assert training.end() == 0, training.text()
    assert final(tmp_path) == digest
    assert verified(training.run)[-1] == STEPS
    assert (training.run / "DONE").exists()


def test_a_full_disk_is_refused_before_anything_is_written_and_a_lower_keep_makes_room(
    disk: SmallDisk, digest: str, tmp_path: Path
) -> None:
    """Pruning follows commits, so a run that is told to keep less would otherwise never come to one."""
    with Training(disk, tmp_path, *SAVES, "--keep", "100", "--every", "5 steps", "--save-failures", "1") as training:
        assert training.end() != 0
    text = training.text()
    assert "the filesystem has" in text and "lower keep=" in text, text
    assert staging(training.run) == []
    kept = verified(training.run)
    assert 3 <= len(kept) < STEPS // 5
    with Training(disk, tmp_path, *SAVES, "--keep", "2") as again:
        assert again.end() == 0, again.text()
    (restored,) = again.events(2, "restored")
    assert restored["step"] == kept[-1]
    (made,) = again.events(2, "made-room")
    assert len(made["removed"]) == len(kept) - 2, "the newest two are not touched before there are newer ones"
    assert "no space left: removed" in again.text()
    assert verified(again.run)[-1] == STEPS
    assert final(tmp_path) == digest


def test_a_run_whose_done_cannot_be_written_is_not_called_done_and_loses_nothing(
    disk: SmallDisk, digest: str, tmp_path: Path
) -> None:
    with Training(disk, tmp_path, *SAVES, launch=True) as training:
        training.wait(lambda: training.events(1, "saved"), "first save")
        training.hold_at("open", "*/run/.DONE*")
        training.wait_until_held()
        disk.fill()
        training.go_on()
        code = training.end()
    assert code == 77, training.text()
    assert not (training.run / "DONE").exists()
    assert not list(training.run.glob(".DONE*"))
    assert "DONE could not be written: no space left" in training.text(), training.text()
    assert "storage: " in training.text(), "the supervisor names the cause, though decision.json could not be written"
    assert verified(training.run)[-1] == STEPS
    with Training(disk, tmp_path, *SAVES) as refused:  # nor can an attempt begin
        assert refused.end() != 0
    assert "NoSpaceError" in refused.text() or "no space left" in refused.text().split("hpcresume: ")[-1]
    assert [path.name for path in sorted((training.run / "attempts").iterdir())] == ["0001"], "and it leaves nothing"
    disk.free()
    with Training(disk, tmp_path, *SAVES) as again:
        assert again.end() == 0, again.text()
    assert (training.run / "DONE").exists()
    assert final(tmp_path) == digest
    assert verified(training.run)[-1] == STEPS
