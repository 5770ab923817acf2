"""Which write path is chosen. The real MPI-IO is in test_under_mpiexec.py; here its outcome is made up."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hpcresume as hr
from hpcresume.checkpoint import probe
from hpcresume.checkpoint.probe import choose_writer
from hpcresume.checkpoint.save import SaveOptions, save_generation
from hpcresume.comm.single import SingleRanks
from hpcresume.errors import ConfigError, SaveError
from hpcresume.io.files import Files, substituted
from hpcresume.model import Event, ignore_events
from hpcresume.testing.thread_ranks import ThreadRanks, ThreadWorld, run_ranks, unwrap
from tests.checkpoint.runs import new_run
from tests.checkpoint.states import small_state


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    probe._probed.clear()
    yield
    probe._probed.clear()


class LikeMpi(ThreadRanks):
    """Ranks that claim to have MPI."""

    def mpi(self) -> Any:
        return "a communicator"


def on_mpi_like_ranks(size: int, act: Any) -> list[Any]:
    return run_ranks(size, lambda ranks: act(LikeMpi(ranks.world, ranks.rank)), timeout=20)


def test_without_mpi_the_path_is_posix_and_asking_for_mpiio_is_a_mistake(tmp_path: Path) -> None:
    for wish in ("auto", "posix"):
        assert choose_writer(tmp_path, wish, SingleRanks(), ignore_events).name == "posix"
    with pytest.raises(ConfigError, match="MPI"):
        choose_writer(tmp_path, "mpiio", SingleRanks(), ignore_events)


@pytest.mark.parametrize("options", [SaveOptions(write_path="nfs"), SaveOptions(read_back="some")])
def test_options_that_do_not_exist_are_refused_with_those_that_do(tmp_path: Path, options: SaveOptions) -> None:
    run = new_run(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"auto, mpiio, posix|all, sample or none"):
        save_generation(run, {}, step=1, attempt=1, parent=None, ranks=SingleRanks(), options=options)


def test_ranks_with_other_options_are_refused_instead_of_hanging(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")

    def act(ranks: Any) -> Any:
        options = SaveOptions(read_back="none" if ranks.rank else "all")
        return save_generation(run, {}, step=1, attempt=1, parent=None, ranks=ranks, options=options)

    results = run_ranks(2, act, timeout=20)
    assert {type(r).__name__ for r in results} == {"UsageError"}


@pytest.mark.parametrize("works", [True, False])
def test_auto_takes_what_the_probe_says_and_probes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    probes: list[int] = []
    events: list[Event] = []

    def fake(directory: Path, ranks: ThreadRanks) -> None:
        probes.append(ranks.rank)
        if not works:
            raise SaveError("bytes came back different")

    monkeypatch.setattr(probe, "_probe_mpiio", fake)
    for _ in range(2):
        names = [
            w.name for w in unwrap(on_mpi_like_ranks(3, lambda r: choose_writer(tmp_path, "auto", r, events.append)))
        ]
        assert names == ["mpiio" if works else "posix"] * 3
    assert sorted(probes) == [0, 1, 2]
    assert {e.fields["chosen"] for e in events} == {"mpiio" if works else "posix"}
    if not works:
        assert "came back different" in str(events[0].fields["reason"])


def test_asking_for_mpiio_where_it_fails_is_an_error_on_all_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(directory: Path, ranks: ThreadRanks) -> None:
        raise SaveError("bytes came back different")

    monkeypatch.setattr(probe, "_probe_mpiio", fake)
    results = on_mpi_like_ranks(2, lambda r: choose_writer(tmp_path, "mpiio", r, ignore_events))
    assert {type(r) for r in results} == {SaveError}


def test_ranks_that_remember_different_probes_still_do_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One rank may have probed in another communicator; if it alone skipped the probe the others would hang."""
    device = tmp_path.stat().st_dev
    probes: list[int] = []
    monkeypatch.setattr(probe, "_probe_mpiio", lambda directory, ranks: probes.append(ranks.rank) or ranks.barrier())

    class Memory(dict):  # type: ignore[type-arg]
        """What the thread of rank 1 remembers and that of rank 0 does not."""

        def get(self, key: Any, default: Any = None) -> Any:
            import threading

            return "posix" if threading.current_thread().name == "rank 1" and key == (device, 2) else default

    monkeypatch.setattr(probe, "_probed", Memory())
    assert [w.name for w in unwrap(on_mpi_like_ranks(2, lambda r: choose_writer(tmp_path, "auto", r, ignore_events)))]
    assert sorted(probes) == [0, 1]


def test_a_probe_file_that_cannot_be_removed_hangs_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hpcresume.checkpoint.mpiio as mpiio
    from hpcresume.checkpoint.writers import PosixWriter

    class Sticky(Files):
        fired = 0

        def unlink(self, path: Path) -> None:
            self.fired += 1
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(mpiio, "MpiioWriter", PosixWriter)
    sticky = Sticky()
    with substituted(sticky):
        writers = unwrap(on_mpi_like_ranks(2, lambda r: choose_writer(tmp_path, "auto", r, ignore_events)))
    assert sticky.fired == 1
    assert len(writers) == 2
    assert probe._probed
    assert set(probe._probed.values()) == {"mpiio"}


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_probe_itself_finds_a_writer_that_is_right_and_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    import hpcresume.checkpoint.mpiio as mpiio
    from hpcresume.checkpoint.writers import PosixWriter
    from hpcresume.testing.damage import flip_bit

    class Corrupting(PosixWriter):
        def write(self, path: Path, units: Any, sources: Any, binding: Any, ranks: Any) -> list[bytes]:
            digests = super().write(path, units, sources, binding, ranks)
            if ranks.rank == 0:
                flip_bit(path, 4096 * size + 11)
            ranks.barrier()
            return digests

    for writer, expected in ((PosixWriter, "mpiio"), (Corrupting, "posix")):
        probe._probed.clear()
        monkeypatch.setattr(mpiio, "MpiioWriter", writer)
        found = unwrap(on_mpi_like_ranks(size, lambda r: type(choose_writer(tmp_path, "auto", r, ignore_events))))
        assert set(probe._probed.values()) == {expected}
        assert found == [writer if expected == "mpiio" else PosixWriter] * size
    assert list(tmp_path.iterdir()) == [], "the probe leaves nothing"


def test_a_save_says_which_path_it_took(tmp_path: Path) -> None:
    assert hr.save(tmp_path / "run", small_state(1), step=1).write_path == "posix"
    assert ThreadRanks(ThreadWorld(1), 0).mpi() is None
