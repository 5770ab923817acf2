"""The run directory: made, recognised, or refused with what is wrong; and what happens when its disk gives trouble."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import hpcresume as hr
from hpcresume.checkpoint import run as run_module
from hpcresume.checkpoint.run import mark_done, open_run, reopen
from hpcresume.comm.single import SingleRanks
from hpcresume.errors import (
    DamageWarning,
    FormatVersionError,
    HpcresumeError,
    NoSpaceError,
    NoUsableGenerationError,
    RunDirectoryError,
    SaveError,
)
from hpcresume.io.files import Files, substituted
from hpcresume.testing.damage import flip_bit
from hpcresume.testing.thread_ranks import ThreadRanks, run_ranks, unwrap
from tests.checkpoint.runs import commit, new_run, restart
from tests.checkpoint.states import same, small_state
from tests.support.users import unprivileged

ONE = SingleRanks()


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 400 KiB in memory; needs the right to mount."""
    place = tmp_path / "mount"
    place.mkdir()
    answer = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)], capture_output=True, text=True
    )
    if answer.returncode:
        pytest.skip(f"mount is not allowed here: {answer.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_run_is_made_once_and_found_again(tmp_path: Path) -> None:
    run = open_run(tmp_path / "a" / "run", create=True, ranks=ONE)
    facts = json.loads(run.run_json.read_bytes())
    assert facts["format_version"] == 1
    assert len(facts["run_id"]) == 32
    assert open_run(tmp_path / "a" / "run", create=True, ranks=ONE) == run
    assert json.loads(run.run_json.read_bytes()) == facts
    assert sorted(p.name for p in run.root.iterdir()) == ["attempts", "generations", "run.json"]


def test_a_relative_path_means_the_same_after_chdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generation = hr.save("run", small_state(1), step=1)
    monkeypatch.chdir("/")
    assert same(hr.load(generation).state, small_state(1))


def test_of_jobs_that_make_the_same_run_at_once_all_use_the_same_run(tmp_path: Path) -> None:
    ids, barrier = [], threading.Barrier(8)

    def make() -> None:
        barrier.wait()
        run = open_run(tmp_path / "run", create=True, ranks=ONE)
        ids.append(json.loads(run.run_json.read_bytes())["run_id"])

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == 1
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["attempts", "generations", "run.json"]


def test_a_filesystem_without_hard_links_will_do(tmp_path: Path) -> None:
    class NoLinks(Files):
        tried = 0

        def link(self, source: Path, target: Path) -> None:
            self.tried += 1
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    files = NoLinks()
    with substituted(files):
        hr.save(tmp_path / "run", small_state(1), step=1)
    assert files.tried == 1
    assert same(hr.load(tmp_path / "run").state, small_state(1))


@pytest.mark.parametrize(
    "make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_text("x")], ids=["missing", "empty", "file"]
)
def test_loading_where_there_is_no_run_says_so_and_makes_nothing(tmp_path: Path, make: types.FunctionType) -> None:
    path = tmp_path / "run"
    make(path)
    before = sorted(tmp_path.rglob("*"))
    for act in (hr.load, hr.Generations):
        with pytest.raises(RunDirectoryError) as caught:
            act(path)
        assert str(path) in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("where", ["file", "file/run"])
def test_a_file_in_the_way_is_refused(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunDirectoryError):
        hr.save(tmp_path / where, {}, step=1)
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("name", ["nul\0byte", "x" * 300], ids=["NUL", "too long"])
def test_an_impossible_path_is_refused_on_all_ranks(tmp_path: Path, name: str) -> None:
    results = run_ranks(2, lambda ranks: hr.save(str(tmp_path) + "/" + name, {}, step=1, comm=ranks), timeout=10)
    assert {type(r) for r in results} == {RunDirectoryError}


def test_a_directory_that_one_rank_sees_late_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "lagging").symlink_to(tmp_path / "nowhere")

    def act(ranks: ThreadRanks) -> object:
        if ranks.rank == 0:
            generation = hr.save(tmp_path / "run", {}, step=1, comm=ranks)
            return generation.step
        lag = threading.Timer(0.4, lambda: os.replace(tmp_path / "link", tmp_path / "lagging"))
        (tmp_path / "link").symlink_to(tmp_path / "run")
        lag.start()
        return hr.save(tmp_path / "lagging", {}, step=1, comm=ranks).step

    assert unwrap(run_ranks(2, act, timeout=20)) == [1, 1]


def test_a_directory_that_one_rank_does_not_see_is_refused_on_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "VISIBLE_SECONDS", 0.2)

    def act(ranks: ThreadRanks) -> object:
        name = "run" if ranks.rank == 0 else "elsewhere"
        return hr.save(tmp_path / name, {}, step=1, comm=ranks)

    results = run_ranks(3, act, timeout=10)
    assert {type(r) for r in results} == {RunDirectoryError}
    assert "rank 1" in str(results[0])
    assert not (tmp_path / "elsewhere").exists()
    assert "all nodes share" in str(results[0])


def test_generations_without_run_json_are_not_taken_over(tmp_path: Path) -> None:
    hr.save(tmp_path / "run", small_state(1), step=1)
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(RunDirectoryError, match=r"no run\.json"):
        hr.save(tmp_path / "run", small_state(2), step=2)
    with pytest.raises(RunDirectoryError, match="no run here"):
        hr.load(tmp_path / "run")


@pytest.mark.parametrize("version", [0, 2, 99])
def test_another_format_version_is_refused_by_name(tmp_path: Path, version: int) -> None:
    hr.save(tmp_path / "run", small_state(1), step=1)
    path = tmp_path / "run" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": version, "run_id": ["new", "kind"]}))
    for act in (lambda p: hr.save(p, {}, step=2), hr.load, hr.Generations):
        with pytest.raises(FormatVersionError, match=f"format version {version}"):
            act(path.parent)


def test_every_damaged_byte_of_run_json_is_refused_or_harmless(tmp_path: Path) -> None:
    hr.save(tmp_path / "run", small_state(1), step=1)
    path = tmp_path / "run" / "run.json"
    content = path.read_bytes()
    outcomes: dict[str, int] = {}
    for at in range(len(content)):
        flip_bit(path, at, at % 8)
        try:
            outcome = "loaded" if same(hr.load(path.parent).state, small_state(1)) else "WRONG"
        except HpcresumeError as error:
            outcome = type(error).__name__
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        path.write_bytes(content)
    for size in range(len(content) - 2):
        path.write_bytes(content[:size])
        with pytest.raises(RunDirectoryError, match="damaged"):
            hr.load(path.parent)
    assert set(outcomes) <= {"loaded", "RunDirectoryError", "FormatVersionError", "NoUsableGenerationError"}
    print(f"run.json: each of {len(content)} bytes flipped, {outcomes}")


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A directory that everybody may reach, and everybody may write to."""
    with tempfile.TemporaryDirectory(prefix="hpcresume-test-") as name:
        os.chmod(name, 0o777)
        yield Path(name)


@pytest.mark.parametrize("part", ["", "generations", "attempts"])
def test_a_directory_that_we_may_not_write_is_refused_with_its_mode(public_path: Path, part: str) -> None:
    run = public_path / "run"
    with unprivileged():
        hr.save(run, small_state(1), step=1)
        os.chmod(run / part, 0o500)
        with pytest.raises(RunDirectoryError, match="not writable") as caught:
            hr.save(run, small_state(2), step=2)
        assert "dr-x------" in str(caught.value)
        assert same(hr.load(run).state, small_state(1)), "reading is fine"
        os.chmod(run / part, 0o700)


def test_a_parent_that_we_may_not_write_is_refused(public_path: Path) -> None:
    os.chmod(public_path, 0o555)
    with unprivileged(), pytest.raises(RunDirectoryError, match="Permission denied"):
        hr.save(public_path / "run", {}, step=1)
    os.chmod(public_path, 0o777)


def test_files_of_a_generation_that_we_may_not_read_are_no_reason_to_fall_back(public_path: Path) -> None:
    run = public_path / "run"
    with unprivileged():
        for step in (1, 2):
            hr.save(run, small_state(step), step=step)
        for name in ("state.h5", "manifest.json"):
            path = run / "generations" / "g000000000002-a0001" / name
            path.chmod(0)
            with pytest.raises(RunDirectoryError, match="Permission denied"):
                hr.load(run)
            path.chmod(0o600)
        assert hr.load(run).generation.step == 2


def test_a_read_only_filesystem_is_refused(mounted: Path) -> None:
    hr.save(mounted / "run", small_state(1), step=1)
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    with pytest.raises(RunDirectoryError, match="not writable"):
        hr.save(mounted / "run", small_state(2), step=2)
    with pytest.raises(RunDirectoryError, match="Read-only"):
        hr.save(mounted / "other", small_state(2), step=2)
    assert same(hr.load(mounted / "run").state, small_state(1))


def test_a_filesystem_that_says_it_is_read_only_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hr.save(tmp_path / "run", small_state(1), step=1)
    real = os.statvfs
    answer = types.SimpleNamespace(f_flag=real(tmp_path).f_flag | os.ST_RDONLY)
    monkeypatch.setattr(run_module.os, "statvfs", lambda path: answer)
    with pytest.raises(RunDirectoryError, match="not writable"):
        hr.save(tmp_path / "run", small_state(2), step=2)


def test_a_full_filesystem_is_named_and_saving_goes_on_when_there_is_room(mounted: Path) -> None:
    state = {"w": torch.arange(20_000.0)}
    hr.save(mounted / "run", state, step=1)
    refused = 0
    for step in range(2, 12):
        try:
            hr.save(mounted / "run", state, step=step)
        except NoSpaceError as error:
            refused += 1
            assert "space" in str(error) or "needs" in str(error)
    assert refused >= 5
    assert [p.name for p in (mounted / "run" / "generations").iterdir() if p.name.startswith(".")] == []
    for generation in hr.Generations(mounted / "run").list():
        assert hr.Generations(mounted / "run").verify(generation).ok
        shutil.rmtree(generation.path)
    hr.save(mounted / "run", state, step=50)
    assert same(hr.load(mounted / "run").state, state)


def test_space_that_runs_out_at_any_size_leaves_nothing_half_done(mounted: Path) -> None:
    """Many small tensors: the skeleton is most of it, so the disk fills up in the middle of it as well."""
    state = {str(i): torch.tensor(1.0) for i in range(300)}
    whole = hr.save(mounted / "run", state, step=1)
    need = sum(p.stat().st_size for p in whole.path.iterdir())
    shutil.rmtree(whole.path)
    ballast = mounted / "ballast"
    free = os.statvfs(mounted).f_bavail * os.statvfs(mounted).f_frsize
    outcomes = []
    for room in range(0, need + 40_960, 4096):
        ballast.write_bytes(bytes(max(0, free - room)))
        try:
            generation = hr.save(mounted / "run", state, step=room + 2)
        except NoSpaceError:
            outcomes.append("no space")
            assert list((mounted / "run" / "generations").iterdir()) == []
        else:
            outcomes.append("saved")
            assert hr.Generations(mounted / "run").verify(generation).ok
            shutil.rmtree(generation.path)
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {"no space", "saved"}
    print(f"disk full at {outcomes.count('no space')} sizes while saving {need} bytes")


def test_a_limit_on_file_sizes_is_a_typed_error(tmp_path: Path) -> None:
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    hr.save(tmp_path / "run", small_state(1), step=1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(SaveError, match="too large"):
            hr.save(tmp_path / "run", {"w": torch.zeros(100_000)}, step=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in (tmp_path / "run" / "generations").iterdir()] == ["g000000000001-a0001"]


class Trouble(Files):
    """Opening (or reading) files of this name fails, `times` times."""

    def __init__(self, name: str, number: int, times: int = 10**6, *, reading: bool = False) -> None:
        self.name, self.number, self.left, self.reading = name, number, times, reading
        self.fired = 0

    def _maybe_fail(self, path: str) -> None:
        if self.name in path and self.left:
            self.left -= 1
            self.fired += 1
            raise OSError(self.number, os.strerror(self.number), path)

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        if not self.reading:
            self._maybe_fail(str(path))
        return super().open(path, flags, mode)

    def pread_into(self, fd: int, buffer: memoryview, offset: int) -> int:
        if self.reading:
            self._maybe_fail(os.readlink(f"/proc/self/fd/{fd}"))
        return super().pread_into(fd, buffer, offset)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM])
@pytest.mark.parametrize("name", ["state.h5", "manifest.json"])
def test_trouble_of_this_machine_is_no_damage_and_no_older_generation_is_started_from(
    tmp_path: Path, name: str, number: int
) -> None:
    run = new_run(tmp_path / "run")
    restart(run)
    for step in (1, 2):
        commit(run, 1, step)
    trouble = Trouble(f"g000000000002-a0001/{name}", number)
    with substituted(trouble), pytest.raises(RunDirectoryError, match=os.strerror(number)):
        restart(run)
    assert trouble.fired
    assert not run.attempt(2).start.exists()
    restored = restart(run)[1]
    assert restored.generation is not None
    assert restored.generation.step == 2
    assert restored.skipped == ()


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("reading", [False, True], ids=["open", "read"])
@pytest.mark.parametrize("name", ["state.h5", "manifest.json"])
def test_a_bad_disk_once_is_tried_again_and_for_good_means_falling_back(
    tmp_path: Path, name: str, number: int, reading: bool
) -> None:
    for step in (1, 2):
        hr.save(tmp_path / "run", small_state(step), step=step)
    trouble = Trouble(f"g000000000002-a0001/{name}", number, 1, reading=reading)
    with substituted(trouble):
        assert hr.load(tmp_path / "run").generation.step == 2
    assert trouble.fired == 1
    trouble = Trouble(f"g000000000002-a0001/{name}", number, reading=reading)
    with substituted(trouble), pytest.warns(DamageWarning, match="g000000000002-a0001"):
        assert hr.load(tmp_path / "run").generation.step == 1
    assert trouble.fired > 1


@pytest.mark.parametrize("name", ["state.h5", "manifest.json"])
def test_a_pipe_a_link_or_a_directory_in_place_of_a_file_is_damage_and_hangs_nobody(tmp_path: Path, name: str) -> None:
    for step in (1, 2):
        hr.save(tmp_path / "run", small_state(step), step=step)
    path = tmp_path / "run" / "generations" / "g000000000002-a0001" / name
    content = path.read_bytes()
    (tmp_path / "copy").write_bytes(content)
    for put in (lambda: os.mkfifo(path), lambda: path.symlink_to(tmp_path / "copy"), path.mkdir):
        path.unlink()
        put()
        with pytest.warns(DamageWarning):
            assert hr.load(tmp_path / "run").generation.step == 1
        path.rmdir() if path.is_dir() else path.unlink()
        path.write_bytes(content)
    assert hr.load(tmp_path / "run").generation.step == 2


def test_strangers_in_the_directory_of_generations_are_left_alone(tmp_path: Path) -> None:
    hr.save(tmp_path / "run", small_state(1), step=1)
    generations = tmp_path / "run" / "generations"
    (generations / "notes.txt").write_text("x")
    (generations / "g1-a1").mkdir()
    (generations / ".g000000000009-a0001.partial-00ff").mkdir()
    assert [g.step for g in hr.Generations(tmp_path / "run").list()] == [1]
    assert hr.Generations(tmp_path / "run").damaged() == []
    assert hr.load(tmp_path / "run").generation.step == 1
    (generations / "g000000000009-a0001").mkdir()
    assert [s.generation for s in hr.Generations(tmp_path / "run").damaged()] == ["g000000000009-a0001"]
    with pytest.warns(DamageWarning, match="manifest"):
        assert hr.load(tmp_path / "run").generation.step == 1


def test_done_is_marked_and_taken_back(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    reopen(run)
    mark_done(run, {"step": 3})
    assert json.loads(run.done.read_bytes()) == {"step": 3}
    reopen(run)
    assert not run.done.exists()


def test_no_usable_generation_says_what_to_do(tmp_path: Path) -> None:
    generation = hr.save(tmp_path / "run", small_state(1), step=1)
    (generation.path / "manifest.json").unlink()
    with pytest.raises(NoUsableGenerationError, match="backup") as caught:
        hr.load(tmp_path / "run")
    assert "manifest.json cannot be opened" in str(caught.value)
