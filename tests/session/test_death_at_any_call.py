"""A session that dies at any of its calls to the filesystem: the next one goes on from what was committed."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

import hpcresume as hr
from hpcresume.checkpoint import attempts
from hpcresume.io.files import substituted
from hpcresume.testing.faults import FaultyFiles, SimulatedCrash
from tests.support.sampling import sampled

STEPS = 4


def train(run):
    """Sums up its steps, with a commit after every second one; the steps that were run, and the sum."""
    weights, steps = np.zeros(2), []
    with hr.session(run, every="2 steps", reaction=0, keep=1) as s:
        s.track(weights=weights)
        for step in s.steps(STEPS):
            steps.append(step)
            weights += step
    return steps, weights.tolist()


def committed(run):
    """The newest step that is visible in the run, 0 without any."""
    names = [path.name for path in (run / "generations").glob("g*")] if run.is_dir() else []
    return max((int(name[1:13]) for name in names), default=0)


@pytest.mark.slow
@pytest.mark.parametrize("after", sampled([False, True], lambda after: not after), ids=["before", "after"])
def test_the_next_session_finishes_the_run_from_the_newest_commit(tmp_path, monkeypatch, after):
    monkeypatch.setattr(attempts, "CLAIM_SECONDS", 0.01)
    recorder = FaultyFiles()
    with substituted(recorder):
        assert train(tmp_path / "healthy") == (list(range(STEPS)), [6.0, 6.0])
    reached = set()
    for n, call in enumerate(recorder.log):
        run = tmp_path / f"run{n}"
        faulty = FaultyFiles(n, "crash", after=after)
        with substituted(faulty), pytest.raises(SimulatedCrash):
            train(run)
        faulty.assert_fired()
        begin, done = committed(run), (run / "DONE").exists()
        assert begin == STEPS or not done, f"finished without its last state, at {call}"
        with pytest.raises(hr.RunFinished) if done else contextlib.nullcontext():
            steps, weights = train(run)
            assert steps == list(range(begin, STEPS)), f"killed at {call}"
            assert weights == [6.0, 6.0]
        assert (run / "DONE").exists()
        loaded = hr.load(run)
        assert (loaded.generation.step, hr.Generations(run).damaged()) == (STEPS, [])
        reached.add((begin, done))
    assert reached == {(0, False), (2, False), (4, False), (4, True)}
    print(f"a session killed {'after' if after else 'before'} each of {len(recorder.log)} calls: all finished")
