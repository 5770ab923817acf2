"""Storage that does not answer says nothing of what lies on it: no generation is given up for it, and none is lost."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import hpcresume as hr
from hpcresume.checkpoint.phases import as_typed
from hpcresume.errors import CheckpointError, NoSpaceError, RunDirectoryError, SaveError, StorageAwayError
from hpcresume.io.files import Files, substituted
from hpcresume.io.paths import RunPaths
from hpcresume.io.wholeness import refusal
from hpcresume.ops.targets import Target
from hpcresume.ops.verification import verify_all
from hpcresume.testing.damage import flip_bit
from tests.checkpoint.runs import begin, commit, new_run, restart


class OneServerAway(Files):
    """As GlusterFS without one of its bricks: files on it do not exist, or cannot be read, and no folder is renamed."""

    def __init__(self, folder: str, *, reading: bool) -> None:
        self.folder, self.reading, self.fired = folder, reading, 0

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        if path.parent.name == self.folder and not self.reading:
            self.fired += 1
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return super().open(path, flags, mode)

    def pread_into(self, fd: int, buffer: memoryview, offset: int) -> int:
        if Path(os.readlink(f"/proc/self/fd/{fd}")).parent.name == self.folder:
            self.fired += 1
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return super().pread_into(fd, buffer, offset)

    def rename(self, source: Path, target: Path) -> None:
        if source.is_dir():
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), str(source))
        super().rename(source, target)


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    """A run with the generations of steps 1 and 2."""
    run = new_run(tmp_path / "run")
    begin(run)
    first = commit(run, 1, 1)
    commit(run, 1, 2, first.name)
    return run


@pytest.mark.parametrize("reading", [False, True], ids=["no such file", "not connected"])
def test_a_generation_on_a_server_that_is_away_is_not_given_up(run: RunPaths, reading: bool) -> None:
    away = OneServerAway("g000000000002-a0001", reading=reading)
    with substituted(away), pytest.raises(StorageAwayError) as caught:
        restart(run)
    assert away.fired
    assert "reach its servers" in caught.value.hint
    assert not run.attempt(2).start.exists(), "nothing is recorded that would take it out of the lineage"
    assert not list(run.generations.glob(".probe*"))
    attempt, restored = restart(run)
    assert (attempt, restored.skipped) == (3, ())
    assert restored.generation is not None
    assert restored.generation.step == 2


def test_a_file_that_is_missing_from_storage_that_works_is_damage_as_before(run: RunPaths) -> None:
    (run.generations / "g000000000002-a0001" / "state.h5").unlink()
    _, restored = restart(run)
    assert restored.generation is not None
    assert restored.generation.step == 1
    assert [each.generation for each in restored.skipped] == ["g000000000002-a0001"]
    assert not list(run.generations.glob(".probe*"))


def test_bytes_that_changed_are_damage_also_on_a_disk_that_is_full_or_read_only(run: RunPaths) -> None:
    class Full(Files):
        fired = 0

        def mkdir(self, path: Path, mode: int = 0o700) -> None:
            if path.name.startswith(".probe"):
                self.fired += 1
                raise OSError(errno.ENOSPC, "no space left", str(path))
            super().mkdir(path, mode)

    file = run.generations / "g000000000002-a0001" / "state.h5"
    flip_bit(file, file.stat().st_size - 1)
    full = Full()
    with substituted(full):
        _, restored = restart(run)
    assert full.fired == 1
    assert restored.generation is not None
    assert restored.generation.step == 1


def test_loading_without_an_attempt_writes_nothing_and_tells_the_same(run: RunPaths) -> None:
    away = OneServerAway("g000000000002-a0001", reading=True)
    before = sorted(path.name for path in run.generations.iterdir())
    with substituted(away), pytest.raises(StorageAwayError, match="does not answer"):
        hr.load(run.root)
    with substituted(away), pytest.raises(StorageAwayError):
        hr.Generations(run.root).verify("g000000000002-a0001")
    with substituted(away):
        reports = verify_all(Target(run, None), lambda name, done, total: None)
    assert [report.ok for report in reports] == [True, False], "one that cannot be reached ends no verification"
    with substituted(away):
        (skipped,) = hr.Generations(run.root).damaged()  # a listing goes on, and says why it cannot look
    assert "does not answer" in skipped.reason
    assert sorted(path.name for path in run.generations.iterdir()) == before
    found, _ = hr.load(run.root)
    assert found.step == 2


@pytest.mark.parametrize(
    ("number", "kind", "expected"),
    [
        (errno.ENOTCONN, CheckpointError, StorageAwayError),
        (errno.EHOSTDOWN, CheckpointError, StorageAwayError),
        (errno.ENOTCONN, SaveError, SaveError),
        (errno.ENOTCONN, RunDirectoryError, RunDirectoryError),
        (errno.EIO, CheckpointError, CheckpointError),
        (errno.ENOSPC, CheckpointError, NoSpaceError),
    ],
)
def test_what_cannot_be_reached_is_told_from_what_is_broken(
    number: int, kind: type[hr.errors.HpcresumeError], expected: type[hr.errors.HpcresumeError]
) -> None:
    error = as_typed("load", OSError(number, os.strerror(number), "/run/x"), kind)
    assert type(error) is expected
    assert ("reach its servers" in error.hint) == (number in (errno.ENOTCONN, errno.EHOSTDOWN))


def test_a_filesystem_that_works_refuses_nothing_and_keeps_no_trace(tmp_path: Path) -> None:
    assert refusal(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    assert refusal(tmp_path / "missing") is None, "that is for others to tell"
