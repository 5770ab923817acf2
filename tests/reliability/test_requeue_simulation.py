"""Row 14 of the reliability matrix: a fake Slurm, a fake clock, files and squeue that lag; 2,000 seeds.

Whatever ends its attempts, a run ends up finished, or held, or as a person wanted it; it never loops without
checkpoint progress; and no chain of generations holds what an older attempt committed behind a newer one's back.

A seed alone, with its story: python -m tests.reliability.simulated_run SEED
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import pytest

from hpcresume.launch import journal
from hpcresume.policy.budgets import DEFAULT_TOTAL
from tests.reliability.simulated_run import FATES, Simulation
from tests.support.sampling import sampled

SEEDS, CHUNK = 2000, 200
LONGEST = DEFAULT_TOTAL + 4
"""Starts in a row without progress: the budget of all causes, and four for micro-batches that go from 1 to 16."""

RARE = {"hold-77", "typo", "cancelled", "fewer nodes"}
"""Not in every 200 seeds; in all of them together."""
CHUNKS = sampled(range(0, SEEDS, CHUNK), lambda first: first == 0)
COMMON = (
    "excluded nodes", "other partition", "fewer nodes", "storage away", "smaller micro-batches", "orphans", "released",
    "requeue refused", "requeued but held", "controller silent", "guard started", "resubmitted",
)  # fmt: skip


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In memory where that is possible: a seed writes and syncs some hundred small files."""
    monkeypatch.setattr(journal, "tell", lambda text: None)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", CHUNKS)
def test_no_run_is_lost_none_loops_and_no_two_attempts_share_a_lineage(first: int, scratch: Path, monkeypatch):
    ends, fired, longest = Counter[str](), Counter[str](), 0
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
        ends[end] += 1
        fired += simulation.fired
        longest = max(longest, row)
    print(f"seeds {first} to {first + CHUNK - 1}: {dict(ends)}; longest row {longest}; {dict(fired)}")
    assert ends["done"] and ends["held"], ends
    assert {name for name in (*FATES, *COMMON) if not fired[name]} <= RARE
