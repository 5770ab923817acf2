"""Row 14 of the reliability matrix: a fake Slurm, a fake clock, files and squeue that lag; 2,000 seeds.

Whatever ends its attempts, a run ends up finished, or held, or as a person wanted it; it never loops without
checkpoint progress; and no chain of generations holds what an older attempt committed behind a newer one's back. Where
nobody of ours was left to bring it back, that has one of the reasons that docs/REQUEUE.md lists; with a guard behind
its job hardly any run ends so.

A seed alone, with its story: python -m tests.reliability.simulated_run SEED
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from hpcresume.launch import journal
from hpcresume.policy.budgets import DEFAULT_TOTAL
from tests.reliability.simulated_run import FATES, UNSEEN, Simulation

SEEDS, CHUNK = 2000, 200
LONGEST = DEFAULT_TOTAL + 4
"""Starts in a row without progress: the budget of all causes, and four for micro-batches that go from 1 to 16."""

MOST_UNSEEN, BY_CHANCE = 0.01, 3
"""Of the runs with a guard, those that may be lost all the same: of all of them, and of the 80 among 200 seeds."""

RARE = {"hold-77", "typo", "cancelled", "fewer nodes"}
"""Not in every 200 seeds; in all of them together."""
COMMON = (
    "excluded nodes", "other partition", "fewer nodes", "storage away", "smaller micro-batches", "orphans", "released",
    "requeue refused", "requeued but held", "controller silent", "guard started", "resubmitted",
)  # fmt: skip


class Together:
    """What each chunk has counted, for the one that comes last, in whatever process: the whole is its affair."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(exist_ok=True)

    def add(self, first: int, ends: dict[bool, Counter[str]]) -> dict[bool, Counter[str]] | None:
        """The sums once all 2,000 seeds were played, None before."""
        mine = self.folder / f"{first}.new"
        mine.write_text(json.dumps([[guarded, end, n] for guarded, each in ends.items() for end, n in each.items()]))
        mine.rename(mine.with_suffix(".json"))
        played = list(self.folder.glob("*.json"))
        if len(played) < SEEDS // CHUNK:
            return None
        sums = {guarded: Counter[str]() for guarded in ends}
        for each in played:
            for guarded, end, count in json.loads(each.read_text()):
                sums[guarded][end] += count
        return sums


@pytest.fixture
def together(tmp_path_factory: pytest.TempPathFactory) -> Together:
    """One for all workers of a test run: xdist gives each a folder in the run's own."""
    own = tmp_path_factory.getbasetemp()
    return Together((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "simulation")


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In memory where that is possible: a seed writes and syncs some hundred small files."""
    monkeypatch.setattr(journal, "tell", lambda text: None)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder)


def tell(ends: dict[bool, Counter[str]]) -> None:
    """Every end, and how often."""
    for guarded, counted in ends.items():
        print(f"  {'with a guard' if guarded else 'without'}: {dict(counted.most_common())}")


def unseen(ends: Counter[str]) -> int:
    """How many ended with nobody of ours there."""
    return sum(count for end, count in ends.items() if end.startswith("unseen"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_no_run_is_lost_none_loops_and_no_two_attempts_share_a_lineage(
    first: int, scratch: Path, together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = {guarded: Counter[str]() for guarded in (False, True)}
    fired, longest = Counter[str](), 0
    for seed in range(first, first + CHUNK):
        monkeypatch.setenv("XDG_STATE_HOME", str(scratch / f"state-{seed}"))
        (scratch / str(seed)).mkdir()
        monkeypatch.chdir(scratch / str(seed))
        simulation = Simulation(seed)
        simulation.play()
        end, row, foreign = simulation.verdict(), simulation.free_of_loops(), simulation.two_writers()
        told = f"seed {seed}: {end}\n{simulation.story()}"
        assert not end.startswith("lost"), told
        assert row <= LONGEST, f"{row} starts in a row got nowhere; {told}"
        assert foreign == [], f"{foreign} are in the lineage; {told}"
        if end.startswith("unseen"):
            assert end.removeprefix("unseen: ") in UNSEEN[simulation.guarded], told
        ends[simulation.guarded][end] += 1
        fired += simulation.fired
        longest = max(longest, row)
    print(f"seeds {first} to {first + CHUNK - 1}: longest row {longest}; {dict(fired)}")
    tell(ends)
    assert all(counted["done"] and counted["held"] for counted in ends.values()), ends
    assert unseen(ends[True]) <= BY_CHANCE, ends
    sums = together.add(first, ends)
    if sums is not None:
        print(f"all {SEEDS} seeds:")
        tell(sums)
        assert unseen(sums[True]) <= MOST_UNSEEN * sums[True].total(), sums
    assert {name for name in (*FATES, *COMMON) if not fired[name]} <= RARE
