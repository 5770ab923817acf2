"""A session whose storage is away, or full: it comes back for it, gives nothing up, and makes room where it may."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

import hpcresume as hr
from hpcresume.errors import NoSpaceError, StorageAwayError
from hpcresume.io.files import Files, substituted
from hpcresume.session import engine
from tests.session.scripts import decision, events


def train(run, total=10, **options):
    weights = np.zeros(2)
    with hr.session(run, **{"every": "2 steps", "reaction": 0, "write_path": "posix", **options}) as s:
        s.track(weights=weights)
        for step in s.steps(total):
            weights += step
    return weights


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(engine, "PAUSE", 0.001)


class Away(Files):
    """Nothing of the newest generation can be read."""

    fired = 0

    def pread_into(self, fd, buffer, offset):
        if "g000000000004-a0001" in os.readlink(f"/proc/self/fd/{fd}"):
            self.fired += 1
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return super().pread_into(fd, buffer, offset)


def test_a_run_whose_storage_is_away_comes_back_and_loses_no_step(run, warn):
    weights = np.zeros(2)
    with pytest.raises(hr.Stopped), hr.session(run, every="2 steps", reaction=0, write_path="posix") as s:
        s.track(weights=weights)
        for step in s.steps(10):
            weights += step
            if step == 3:
                warn(s)
    with substituted(Away()) as _, pytest.raises(StorageAwayError, match="does not answer"):
        train(run)
    told = decision(run, 2)
    assert (told["decision"], told["cause_hint"]) == ("come-back", "storage"), "an operator has nothing to do here"
    assert train(run)[0] == 45
    (restored,) = events(run, 3, "restored")
    assert (restored["step"], restored["skipped"]) == (4, [])


class Full(Files):
    """A disk that has room for a few generations: more than so many data files, and the next cannot be written."""

    def __init__(self, run, most):
        self.run, self.most, self.fired = run, most, 0

    def truncate(self, fd, size):
        kept = [path for place in ("generations", ".trash") for path in (self.run / place).glob("*/state.h5")]
        if len(kept) > self.most:
            self.fired += 1
            raise OSError(errno.ENOSPC, "no space left")
        super().truncate(fd, size)


def test_a_run_that_is_told_to_keep_less_on_a_full_disk_makes_room_for_its_next_save(run):
    full = Full(run, 3)
    with substituted(full), pytest.raises(NoSpaceError):
        train(run, keep=100, save_failures=1)
    assert full.fired
    kept = sorted(path.name for path in (run / "generations").iterdir())
    assert len(kept) == 3
    with substituted(full):
        assert train(run, keep=2)[0] == 45
    (made, *_) = events(run, 2, "made-room")
    assert made["removed"] == kept[:1], "the newest two stay until there are newer ones"
    assert events(run, 2, "save-failed") == []


def test_what_is_to_be_kept_is_not_removed_to_make_room(run):
    full = Full(run, 3)
    with substituted(full), pytest.raises(NoSpaceError):
        train(run, keep=3, save_failures=1)
    assert len(list((run / "generations").iterdir())) == 3
    assert events(run, 1, "made-room") == []


class LeavesStaging(Files):
    """The first save fails at its last step, and what it wrote cannot be removed then."""

    def __init__(self):
        self.failed = 0

    def rename(self, source, target):
        if ".partial-" in source.name and target.name.startswith("g") and self.failed == 0:
            self.failed = 1
            raise OSError(errno.ENOTCONN, "not connected", str(source))
        super().rename(source, target)

    def rmdir(self, path):
        if ".partial-" in path.name and self.failed == 1:
            self.failed = 2
            raise OSError(errno.ENOTCONN, "not connected", str(path))
        super().rmdir(path)


def test_what_a_failed_save_could_not_remove_goes_with_the_next_good_one(run):
    faults = LeavesStaging()
    with substituted(faults):
        train(run)
    assert faults.failed == 2
    assert len(events(run, 1, "staging-left")) == 1
    assert [path.name for path in (run / "generations").iterdir() if path.name.startswith(".")] == []
    assert (run / "DONE").exists()
