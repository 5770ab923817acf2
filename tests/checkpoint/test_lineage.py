"""Which generation an attempt starts from: the lineage, orphans, bad ones that are not tried again, lost ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hpcresume as hr
from hpcresume.checkpoint import history
from hpcresume.checkpoint.lineage import lineage
from hpcresume.checkpoint.retire import retire
from hpcresume.errors import (
    FencedError,
    FormatVersionError,
    NoGenerationError,
    NoUsableGenerationError,
    RunDirectoryError,
)
from hpcresume.io.paths import RunPaths, generation_name, parse_generation_name
from hpcresume.model import Event
from hpcresume.testing.damage import flip_bit
from tests.checkpoint.runs import begin, commit, new_run, restart
from tests.checkpoint.states import same, small_state


def name(step: int, attempt: int) -> str:
    return generation_name(step, attempt)


@pytest.mark.parametrize(
    ("committed", "starts", "expected"),
    [
        ([], {}, []),
        ([], {1: None, 2: None}, []),
        ([(1, 1), (2, 1)], {1: None}, [name(2, 1), name(1, 1)]),
        ([(1, 1), (2, 1)], {1: None, 2: name(2, 1)}, [name(2, 1), name(1, 1)]),
        ([(1, 1), (2, 1), (3, 1)], {1: None, 2: name(2, 1)}, [name(2, 1), name(1, 1)]),
        ([(1, 1), (3, 1), (2, 2)], {1: None, 2: name(1, 1)}, [name(2, 2), name(1, 1)]),
        ([(1, 1), (3, 1), (2, 2)], {1: None, 2: name(1, 1), 3: name(2, 2)}, [name(2, 2), name(1, 1)]),
        ([(5, 1)], {1: None, 2: None}, []),
        ([(5, 1), (3, 2)], {1: None, 2: None}, [name(3, 2)]),
        ([(1, 1), (2, 3)], {1: None, 2: name(1, 1), 3: name(1, 1)}, [name(2, 3), name(1, 1)]),
        ([(9, 1)], {}, [name(9, 1)]),
        ([(1, 1)], {1: name(7, 1)}, [name(1, 1)]),
        ([(1, 1)], {1: name(7, 2)}, [name(1, 1)]),
        ([(1, 1)], {1: "nonsense"}, [name(1, 1)]),
    ],
)
def test_the_chain_that_ends_at_the_newest_claim(
    committed: list[tuple[int, int]], starts: dict, expected: list[str]
) -> None:
    assert lineage(committed, starts) == expected


@given(
    st.sets(st.tuples(st.integers(0, 9), st.integers(1, 6)), max_size=20),
    st.dictionaries(st.integers(1, 6), st.none() | st.builds(name, st.integers(0, 9), st.integers(1, 6))),
)
def test_a_lineage_is_made_of_committed_generations_each_once_newest_first(
    committed: set[tuple[int, int]], starts: dict[int, str | None]
) -> None:
    chain = [parse_generation_name(each) for each in lineage(committed, starts)]
    assert len(set(chain)) == len(chain)
    assert set(chain) <= committed
    attempts = [pair[1] for pair in chain if pair]
    assert attempts == sorted(attempts, reverse=True)
    for attempt in set(attempts):
        steps = [pair[0] for pair in chain if pair and pair[1] == attempt]
        assert steps == sorted(steps, reverse=True)


def test_an_attempt_starts_from_the_newest_generation_and_records_it(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    assert restart(run)[1].generation is None
    commit(run, 1, 10)
    commit(run, 1, 20)
    attempt, restored = restart(run)
    assert attempt == 2
    assert restored.generation is not None
    assert restored.generation.name == name(20, 1)
    assert same(restored.state, small_state(20))
    assert json.loads(run.attempt(2).start.read_bytes())["generation"] == name(20, 1)


def test_what_an_older_attempt_commits_after_a_newer_one_has_begun_is_refused(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    restart(run)
    commit(run, 1, 10)
    begin(run)
    with pytest.raises(FencedError, match="attempt 2"):
        commit(run, 1, 20)
    assert [g.step for g in hr.Generations(run.root).list()] == [10]
    assert [p.name for p in run.generations.iterdir()] == [name(10, 1)]


def test_a_claim_between_writing_and_commit_still_fences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpcresume.checkpoint import readback

    run = new_run(tmp_path / "run")
    restart(run)
    compare = readback.compare_whole

    def claimed_meanwhile(*args: object) -> None:
        begin(run)
        compare(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(readback, "compare_whole", claimed_meanwhile)
    with pytest.raises(FencedError):
        commit(run, 1, 10)
    assert list(run.generations.iterdir()) == []


def test_an_orphan_that_slipped_through_is_listed_and_never_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpcresume.checkpoint import commit as committing
    from hpcresume.checkpoint import steps

    run = new_run(tmp_path / "run")
    restart(run)
    commit(run, 1, 10)
    restart(run)
    for module in (committing, steps):
        monkeypatch.setattr(module, "check_fence", lambda job: None)
    commit(run, 1, 90)
    assert [g.step for g in hr.Generations(run.root).list()] == [10, 90]
    assert [g.step for g in hr.Generations(run.root).lineage()] == [10]
    assert hr.load(run.root).generation.step == 10
    commit(run, 2, 20)
    assert restart(run)[1].generation == hr.Generations(run.root).named(name(20, 2))


def test_a_run_whose_only_generation_is_an_orphan_may_start_from_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpcresume.checkpoint import commit as committing
    from hpcresume.checkpoint import steps

    run = new_run(tmp_path / "run")
    restart(run)
    restart(run)
    for module in (committing, steps):
        monkeypatch.setattr(module, "check_fence", lambda job: None)
    commit(run, 1, 5)
    assert restart(run)[1].generation is None
    with pytest.raises(NoGenerationError):
        hr.load(run.root)


def test_a_bad_generation_is_skipped_with_its_reason_and_not_tried_again(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    restart(run)
    commit(run, 1, 10)
    bad = commit(run, 1, 20)
    at = bad.tensors["model/weight"].offset
    flip_bit(bad.path / "state.h5", at)
    events: list[Event] = []
    _, restored = restart(run, events.append)
    (skipped,) = restored.skipped
    assert (skipped.generation, skipped.tensor, skipped.offset) == (name(20, 1), "model/weight", at)
    assert [e.fields["generation"] for e in events if e.name == "skipped"] == [name(20, 1)]
    assert json.loads(run.attempt(2).start.read_bytes())["skipped"][0]["tensor"] == "model/weight"
    assert restored.generation is not None
    assert restored.generation.step == 10
    flip_bit(bad.path / "state.h5", at)
    assert restart(run)[1].generation == restored.generation, "even now that it looks whole again"


def test_none_left_is_an_error_that_lists_every_reason(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    restart(run)
    for step in (10, 20):
        flip_bit(commit(run, 1, step).path / "manifest.json", 20)
    with pytest.raises(NoUsableGenerationError) as caught:
        restart(run)
    assert name(10, 1) in str(caught.value)
    assert name(20, 1) in str(caught.value)
    assert not run.attempt(2).start.exists(), "the next attempt must not take this for a start from nothing"
    with pytest.raises(NoUsableGenerationError):
        restart(run)
    with pytest.raises(NoUsableGenerationError):
        hr.Generations(run.root).newest()


def test_generations_that_are_all_gone_are_no_start_from_nothing(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    restart(run)
    commit(run, 1, 10)
    assert run.attempt(1).committed.exists()
    shutil.rmtree(run.generations / name(10, 1))
    with pytest.raises(NoUsableGenerationError, match="gone"):
        restart(run)


def test_generations_that_are_gone_after_a_restart_are_no_start_from_nothing_either(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    restart(run)
    commit(run, 1, 10)
    restart(run)
    run.attempt(1).committed.unlink()
    shutil.rmtree(run.generations / name(10, 1))
    with pytest.raises(NoUsableGenerationError, match="gone"):
        restart(run)


def test_a_run_that_has_lost_its_generations_directory_is_refused(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    restart(run)
    commit(run, 1, 10)
    shutil.rmtree(run.generations)
    with pytest.raises(RunDirectoryError, match="lost"):
        new_run(run.root)
    with pytest.raises(RunDirectoryError, match="lost"):
        hr.load(run.root)
    assert not run.generations.exists()


def test_a_newer_format_is_refused_and_never_skipped(tmp_path: Path) -> None:
    from hpcresume.checkpoint.digest import digest_bytes

    run = new_run(tmp_path / "run")
    restart(run)
    commit(run, 1, 10)
    path = commit(run, 1, 20).path / "manifest.json"
    body = path.read_bytes()[12 : -(len(',"digest":"xxh3-128:') + 32 + 3)]
    newer = body.replace(b'"format_version":1', b'"format_version":2')
    path.write_bytes(b'{"manifest":' + newer + b',"digest":"xxh3-128:' + digest_bytes(newer).hex().encode() + b'"}\n')
    with pytest.raises(FormatVersionError, match="2"):
        restart(run)
    with pytest.raises(FormatVersionError):
        hr.load(run.root)
    assert [g.step for g in hr.Generations(run.root).list()] == [10]
    assert [s.generation for s in hr.Generations(run.root).damaged()] == [name(20, 1)]


@pytest.fixture
def three_attempts(tmp_path: Path) -> RunPaths:
    """Attempt 1: steps 10, 20. Attempt 2 from 20: 30, 40. Attempt 3 from 40: 50."""
    run = new_run(tmp_path / "run")
    for attempt, steps in ((1, (10, 20)), (2, (30, 40)), (3, (50,))):
        _, restored = restart(run)
        parent = restored.generation.name if restored.generation else None
        for step in steps:
            parent = commit(run, attempt, step, parent).name
    return run


def test_every_damaged_byte_of_a_start_record_is_noticed_and_the_manifests_tell_instead(
    three_attempts: RunPaths,
) -> None:
    run = three_attempts
    whole = history.lineage_names(run)
    assert [parse_generation_name(n) for n in whole] == [(50, 3), (40, 2), (30, 2), (20, 1), (10, 1)]
    path = run.attempt(3).start
    content = path.read_bytes()
    for at in range(len(content)):
        flip_bit(path, at, at % 7)
        assert history.lineage_names(run) == whole, at
        path.write_bytes(content)
    for size in range(len(content)):
        path.write_bytes(content[:size])
        assert history.lineage_names(run) == whole, size
    path.unlink()
    assert history.lineage_names(run) == whole


def test_nothing_is_retired_while_it_cannot_be_told_where_an_attempt_began(three_attempts: RunPaths) -> None:
    run = three_attempts
    attempt, restored = restart(run)
    assert restored.generation is not None
    path = run.attempt(attempt).start
    content = path.read_bytes()
    flip_bit(path, content.index(b"g0000") + 5, 0)
    events: list[Event] = []
    assert retire(run, keep=1, emit=events.append) == []
    assert [e.name for e in events] == ["retire-refused"]
    path.write_bytes(content)
    assert len(retire(run, keep=1)) == 4


def test_a_claim_that_died_before_it_recorded_a_start_changes_nothing(three_attempts: RunPaths) -> None:
    before = history.lineage_names(three_attempts)
    begin(three_attempts)
    assert history.lineage_names(three_attempts) == before
    assert restart(three_attempts)[1].generation is not None
