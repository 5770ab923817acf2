"""Retiring keeps what the lineage needs; sweeping removes what dead attempts left; neither follows a link."""

from __future__ import annotations

from pathlib import Path

import pytest

import hpcresume as hr
from hpcresume.checkpoint.retire import retire, sweep
from hpcresume.errors import ConfigError
from hpcresume.io.paths import RunPaths, generation_name
from hpcresume.model import Event
from hpcresume.testing.damage import flip_bit
from tests.checkpoint.runs import begin, commit, new_run, restart
from tests.checkpoint.states import same, small_state


def steps(run: RunPaths) -> list[tuple[int, int]]:
    return [(g.step, g.attempt) for g in hr.Generations(run.root).list()]


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    """Attempt 1 with steps 1 to 6."""
    run = new_run(tmp_path / "run")
    restart(run)
    for step in range(1, 7):
        commit(run, 1, step)
    return run


@pytest.mark.parametrize("keep", [1, 2, 5, 6, 100])
def test_the_newest_of_the_lineage_are_kept(run: RunPaths, keep: int) -> None:
    events: list[Event] = []
    retired = retire(run, keep=keep, emit=events.append)
    kept = [(step, 1) for step in range(1, 7)][-keep:]
    assert steps(run) == kept
    assert retired == [generation_name(s, 1) for s in range(1, 7) if (s, 1) not in kept]
    assert [e.name for e in events] == (["retired"] if retired else [])
    assert same(hr.load(run.root).state, small_state(6))
    assert not run.trash.exists() or list(run.trash.iterdir()) == []


@pytest.mark.parametrize("keep", [0, -1])
def test_keeping_none_is_refused(run: RunPaths, keep: int) -> None:
    with pytest.raises(ConfigError, match="keep"):
        retire(run, keep=keep)
    assert len(steps(run)) == 6


def test_what_the_newest_attempt_started_from_is_kept(run: RunPaths) -> None:
    for step in (5, 6):
        flip_bit(run.generation(step, 1) / "state.h5", 5)
    attempt, restored = restart(run)
    assert restored.generation is not None
    assert restored.generation.step == 4
    for step in (5, 6, 7):
        commit(run, attempt, step, restored.generation.name)
    retire(run, keep=1)
    assert (4, 1) in steps(run)
    assert (7, 2) in steps(run)


def test_orphans_newer_than_what_is_kept_stay_for_people_to_look_at(run: RunPaths) -> None:
    flip_bit(run.generation(6, 1) / "state.h5", 5)
    attempt, _ = restart(run)
    commit(run, attempt, 6)
    retire(run, keep=2)
    assert (6, 1) in steps(run)
    for step in (7, 8, 9):
        commit(run, attempt, step)
    third, _ = restart(run)
    commit(run, third, 10)
    retire(run, keep=1)
    assert (6, 1) not in steps(run)


def test_staging_of_older_attempts_is_swept_and_that_of_this_one_is_not(run: RunPaths) -> None:
    begin(run)
    old, mine = run.staging(7, 1, "aa11"), run.staging(7, 2, "bb22")
    probe, foreign = run.generations / ".probe-123-00ff00ff", run.generations / ".nfs0001"
    for directory in (old, mine):
        directory.mkdir()
        (directory / "state.h5").write_bytes(b"x")
    probe.touch()
    foreign.touch()
    events: list[Event] = []
    assert sorted(sweep(run, attempt=2, emit=events.append)) == sorted([old.name, probe.name])
    assert not old.exists()
    assert not probe.exists()
    assert mine.exists()
    assert foreign.exists()
    assert len(steps(run)) == 6
    assert [e.name for e in events] == ["swept"]


def test_the_trash_is_emptied_without_following_links(run: RunPaths, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("x")
    run.trash.mkdir()
    (run.trash / "link").symlink_to(precious)
    (run.trash / "stray").write_text("x")
    (run.trash / "tree").mkdir()
    (run.trash / "tree" / "link").symlink_to(precious, target_is_directory=True)
    sweep(run, attempt=2)
    assert list(run.trash.iterdir()) == []
    assert (precious / "thesis.tex").read_text() == "x"


def test_a_generation_that_is_a_link_is_retired_as_a_link(run: RunPaths, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    run.generation(1, 1).rename(elsewhere)
    run.generation(1, 1).symlink_to(elsewhere)
    retire(run, keep=1)
    assert steps(run) == [(6, 1)]
    assert (elsewhere / "manifest.json").exists()
