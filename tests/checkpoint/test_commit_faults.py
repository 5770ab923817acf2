"""Rows 1 and 2 of the reliability matrix: death and errors at every call that save and retire make."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import hpcresume as hr
from hpcresume.checkpoint.retire import retire, sweep
from hpcresume.errors import DamagedError, GenerationConflictError, HpcresumeError, NoSpaceError, SaveError
from hpcresume.io.files import substituted
from hpcresume.io.paths import RunPaths
from hpcresume.testing.damage import flip_bit
from hpcresume.testing.faults import Call, FaultyFiles, SimulatedCrash
from hpcresume.testing.thread_ranks import ThreadRanks, run_ranks
from tests.checkpoint.states import same, small_state

ERRNOS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EINTR)


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a run with `n` generations (steps 1 … n), another one at each call."""
    count = iter(range(10**6))

    def make(n: int) -> Path:
        run = tmp_path / f"run{next(count)}"
        for step in range(1, n + 1):
            hr.save(run, small_state(step), step=step)
        return run

    return make


def calls_of(act: Callable[[Path], object], run: Path) -> list[Call]:
    """The state-changing calls of a healthy `act(run)`."""
    recorder = FaultyFiles()
    with substituted(recorder):
        act(run)
    return recorder.log


def save_3(run: Path) -> hr.Generation:
    return hr.save(run, small_state(3), step=3)


def first_save(run: Path) -> hr.Generation:
    return hr.save(run, small_state(1), step=1)


def retire_to_1(run: Path) -> list[str]:
    return retire(RunPaths(run), keep=1)


def check_still_good(run: Path, oldest: int, newest: int) -> int:
    """What is visible verifies, the newest loads bit for bit, and saving goes on; the newest step."""
    generations = hr.Generations(run)
    assert generations.damaged() == []
    steps = [g.step for g in generations.list()]
    assert steps in [list(range(low, high + 1)) for low in (1, oldest) for high in (newest, newest + 1)]
    assert all(generations.verify(g).ok for g in generations.list())
    loaded = hr.load(run)
    assert loaded.generation.step == steps[-1]
    assert same(loaded.state, small_state(steps[-1]))
    hr.save(run, small_state(9), step=9)
    assert same(hr.load(run).state, small_state(9))
    return steps[-1]


def assert_nothing_left(run: Path) -> None:
    """A save that failed and could clean up left nothing in the way."""
    assert [p.name for p in (run / "generations").iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_save_killed_at_any_call_leaves_the_old_or_the_new_generation(
    runs: Callable[[int], Path], after: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = calls_of(save_3, runs(2))
    assert len(calls) > 10
    newest = []
    for n in range(len(calls)):
        run = runs(2)
        faulty = FaultyFiles(n, "crash", after=after)
        with substituted(faulty), pytest.raises(SimulatedCrash):
            save_3(run)
        faulty.assert_fired()
        newest.append(check_still_good(run, 1, 2))
    assert set(newest) == {2, 3}
    assert newest == sorted(newest), "once a generation is visible it stays"
    print(f"save killed {'after' if after else 'before'} each of {len(calls)} calls: {len(newest)} restored")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_the_first_save_of_a_run_killed_at_any_call_can_be_started_again(
    runs: Callable[[int], Path], after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How long an attempt that was made a moment ago may take to say whose it is; the dead never do.
    monkeypatch.setattr("hpcresume.checkpoint.attempts.CLAIM_SECONDS", 0.2)
    calls = calls_of(first_save, runs(0))
    for n in range(len(calls)):
        run = runs(0)
        faulty = FaultyFiles(n, "crash", after=after)
        with substituted(faulty), pytest.raises(SimulatedCrash):
            first_save(run)
        faulty.assert_fired()
        first_save(run)
        assert same(hr.load(run).state, small_state(1)), f"killed at {calls[n]}"
    print(f"first save killed {'after' if after else 'before'} each of {len(calls)} calls")


@pytest.mark.parametrize("once", [True, False], ids=["once", "for good"])
@pytest.mark.parametrize("number", ERRNOS, ids=[errno.errorcode[n] for n in ERRNOS])
def test_an_error_at_any_call_of_a_save_is_typed_and_old_generations_are_intact(
    runs: Callable[[int], Path], number: int, once: bool
) -> None:
    calls = calls_of(save_3, runs(2))
    failed = 0
    for n, call in enumerate(calls):
        run = runs(2)
        faulty = FaultyFiles(n, number, once=once)
        with substituted(faulty):
            try:
                save_3(run)
            except SaveError as error:
                failed += 1
                if number in (errno.ENOSPC, errno.EDQUOT):
                    assert isinstance(error, NoSpaceError), call
                assert os.strerror(number) in str(error)
        faulty.assert_fired()
        if once:
            assert_nothing_left(run)
        check_still_good(run, 1, 2)
    assert failed > len(calls) // 2
    print(f"{errno.errorcode[number]} at each of {len(calls)} calls of save, once={once}: {failed} typed errors")


@pytest.mark.parametrize("once", [True, False], ids=["once", "for good"])
def test_short_writes_anywhere_in_a_save_are_completed(runs: Callable[[int], Path], once: bool) -> None:
    writes = [call.number for call in calls_of(save_3, runs(2)) if call.name == "pwrite"]
    fired = 0
    for n in writes:
        run = runs(2)
        faulty = FaultyFiles(n, "short", once=once)
        with substituted(faulty):
            save_3(run)
        fired += faulty.fired
        assert hr.Generations(run).verify(hr.load(run).generation).ok
        assert check_still_good(run, 1, 3) == 3
    assert fired >= len(writes) > 2
    print(f"short writes at each of {len(writes)} writes, once={once}: all completed")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_retiring_killed_at_any_call_loses_nothing_that_is_kept(runs: Callable[[int], Path], after: bool) -> None:
    calls = calls_of(retire_to_1, runs(3))
    assert {"rename", "unlink", "rmdir"} <= {call.name for call in calls}
    for n in range(len(calls)):
        run = runs(3)
        faulty = FaultyFiles(n, "crash", after=after)
        with substituted(faulty), pytest.raises(SimulatedCrash):
            retire_to_1(run)
        faulty.assert_fired()
        assert hr.load(run).generation.step == 3
        assert same(hr.load(run).state, small_state(3))
        assert hr.Generations(run).damaged() == [], "what is half removed is not visible as a generation"
        assert all(hr.Generations(run).verify(g).ok for g in hr.Generations(run).list())
        retire_to_1(run)
        sweep(RunPaths(run), attempt=2)
        assert [g.step for g in hr.Generations(run).list()] == [3]
        assert list((run / ".trash").iterdir()) == [], "the next one removes what is left"
    print(f"retire killed {'after' if after else 'before'} each of {len(calls)} calls")


@pytest.mark.parametrize("once", [True, False], ids=["once", "for good"])
@pytest.mark.parametrize("number", ERRNOS, ids=[errno.errorcode[n] for n in ERRNOS])
def test_an_error_at_any_call_of_retire_loses_nothing_that_is_kept(
    runs: Callable[[int], Path], number: int, once: bool
) -> None:
    calls = calls_of(retire_to_1, runs(3))
    for n in range(len(calls)):
        run = runs(3)
        faulty = FaultyFiles(n, number, once=once)
        with substituted(faulty):
            try:
                retire_to_1(run)
            except OSError as error:
                assert error.errno == number
        faulty.assert_fired()
        assert same(hr.load(run).state, small_state(3))
        assert hr.Generations(run).damaged() == []
    print(f"{errno.errorcode[number]} at each of {len(calls)} calls of retire, once={once}")


@pytest.mark.parametrize("error", ["crash", errno.EIO], ids=["crash", "EIO"])
def test_a_fault_on_one_of_two_ranks_at_any_call_fails_the_save_on_both(
    runs: Callable[[int], Path], error: int | str
) -> None:
    def save_on(ranks: ThreadRanks, run: Path) -> hr.Generation:
        return hr.save(run, small_state(3), step=3, comm=ranks)

    run, recorder = runs(2), FaultyFiles()
    with substituted(recorder):
        run_ranks(2, lambda ranks: save_on(ranks, run))
    failed = 0
    for n in range(len(recorder.log)):
        run, faulty = runs(2), FaultyFiles(n, error)
        with substituted(faulty):
            results = run_ranks(2, lambda ranks, run=run: save_on(ranks, run))
        faulty.assert_fired()
        kinds = {type(result) for result in results}
        assert kinds == {hr.Generation} or all(issubclass(k, HpcresumeError | SimulatedCrash) for k in kinds), results
        if error != "crash":
            assert len(kinds) == 1, results
        failed += hr.Generation not in kinds
        check_still_good(run, 1, 2)
    assert failed > len(recorder.log) // 2
    print(f"{error} at each of {len(recorder.log)} calls of a save by 2 ranks: {failed} failed on both")


def test_every_byte_is_synced_before_the_rename_and_the_rename_before_the_save_returns(
    runs: Callable[[int], Path],
) -> None:
    calls = calls_of(save_3, runs(2))
    commits = [c for c in calls if c.name == "rename" and c.detail.endswith("g000000000003-a0001")]
    (commit,) = commits
    staging = commit.path

    def last(name: str, path: str) -> int:
        return max(c.number for c in calls if c.name == name and c.path == path)

    for file in (f"{staging}/state.h5", f"{staging}/manifest.json"):
        assert last("pwrite", file) < last("fsync", file) < commit.number
    assert last("fsync", f"{staging}/state.h5") < last("pwrite", f"{staging}/manifest.json")
    assert last("fsync", f"{staging}/manifest.json") < last("fsync", staging) < commit.number
    synced_after = [c.path for c in calls if c.name == "fsync" and c.number > commit.number]
    assert str(Path(staging).parent) in synced_after


def test_every_file_that_is_written_is_synced_through_a_descriptor_opened_before_the_write(
    runs: Callable[[int], Path],
) -> None:
    """An error of writeback is told to descriptors that were open when it happened (fsync(2), "EIO")."""

    class Descriptors(FaultyFiles):
        def __init__(self) -> None:
            super().__init__()
            self.dirty: dict[int, str] = {}

        def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
            self.dirty[fd] = self._path(fd)
            return super().pwrite(fd, data, offset)

        def fsync(self, fd: int) -> None:
            super().fsync(fd)
            self.dirty.pop(fd, None)

        def close(self, fd: int) -> None:
            assert fd not in self.dirty, f"{self.dirty[fd]} closed without a sync"
            super().close(fd)

    descriptors = Descriptors()
    run = runs(2)
    with substituted(descriptors):
        save_3(run)
    assert "fsync" in descriptors.names()
    assert descriptors.dirty == {}


def test_retired_generations_are_durably_in_the_trash_before_any_file_of_theirs_is_unlinked(
    runs: Callable[[int], Path],
) -> None:
    run = runs(3)
    calls = calls_of(retire_to_1, run)
    moved = [c.number for c in calls if c.name == "rename"]
    first_unlink = min(c.number for c in calls if c.name == "unlink")
    for directory in (run / "generations", run / ".trash"):
        synced = [c.number for c in calls if c.name == "fsync" and c.path == str(directory)]
        assert any(max(moved) < n < first_unlink for n in synced), f"{directory.name} was not synced in between"


def last_sync_of_a_save(runs: Callable[[int], Path]) -> int:
    return max(call.number for call in calls_of(save_3, runs(2)) if call.name == "fsync")


def test_a_generation_whose_rename_could_not_be_synced_is_taken_back_and_written_anew(
    runs: Callable[[int], Path],
) -> None:
    """A second fsync would succeed and say nothing of what the first one lost."""
    run = runs(2)
    faulty = FaultyFiles(last_sync_of_a_save(runs), errno.EIO)
    with substituted(faulty), pytest.raises(SaveError):
        save_3(run)
    faulty.assert_fired()
    assert [g.step for g in hr.Generations(run).list()] == [1, 2]
    recorder = FaultyFiles()
    with substituted(recorder):
        assert save_3(run).step == 3
    calls = [(c.name, c.path) for c in recorder.log]
    assert [path for name, path in calls if name == "fsync"].count(str(run / "generations")) >= 1
    assert any(name == "pwrite" for name, _ in calls), "written anew"
    assert [g.step for g in hr.Generations(run).list()] == [1, 2, 3]


def test_a_generation_that_can_neither_be_synced_nor_taken_back_is_never_acknowledged(
    runs: Callable[[int], Path],
) -> None:
    run = runs(2)
    faulty = FaultyFiles(last_sync_of_a_save(runs), errno.EIO, once=False)
    with substituted(faulty), pytest.raises(SaveError):
        save_3(run)
    with pytest.raises(GenerationConflictError, match="last sync failed"):
        save_3(run)


@pytest.mark.parametrize("name", ["state.h5", "manifest.json"])
def test_a_disk_that_writes_something_else_is_found_by_the_read_back(runs: Callable[[int], Path], name: str) -> None:
    class Lying(FaultyFiles):
        lies = 0

        def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
            if self._path(fd).endswith(name):
                self.lies += 1
                data = memoryview(bytes([data[0] ^ 1]) + bytes(data[1:]))
            return super().pwrite(fd, data, offset)

    run, lying = runs(2), Lying()
    with substituted(lying), pytest.raises(SaveError, match="came back different"):
        save_3(run)
    assert lying.lies
    assert_nothing_left(run)
    check_still_good(run, 1, 2)


def test_what_is_read_back_comes_past_the_page_cache(
    runs: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[tuple[str, int, int]] = []
    monkeypatch.setattr(
        os, "posix_fadvise", lambda fd, at, n, advice: dropped.append((os.readlink(f"/proc/self/fd/{fd}"), at, n))
    )
    generation = save_3(runs(2))
    for name in ("state.h5", "manifest.json"):
        size = (generation.path / name).stat().st_size
        mine = [(at, n) for path, at, n in dropped if path.endswith(name)]
        assert any(at == 0 and n >= size and n % 4096 == 0 for at, n in mine), "whole pages, or the kernel keeps them"


def test_a_second_read_of_a_bad_unit_comes_past_the_page_cache(
    runs: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs(1)
    generation = hr.Generations(run).list()[0]
    at = generation.tensors["model/weight"].offset
    flip_bit(generation.path / "state.h5", at)
    dropped: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, at, n, advice: dropped.append((at, n)))
    with pytest.raises(DamagedError):
        hr.load(generation)
    assert any(begin <= at < begin + n and begin % 4096 == 0 for begin, n in dropped)
