"""Ranks that do not do the same: one is late, stands still, fails, or was given other things. Real processes."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from tests.session.scripts import SHIM, decision, events
from tests.support.mpi import mpiexec
from tests.support.sampling import sampled

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(120)]

DRIVER = str(Path(__file__).with_name("peers_driver.py"))
"""Not imported: it would start MPI, with its threads, in the process of the tests."""

PLACES = (
    "open the run", "begin", "restore", "restore, reading", "probe", "vote", "agree on the deadline",
    "save step 4", "save step 4, reading back", "finish", "write DONE", "exit",
)  # fmt: skip
"""The driver's, each up to the comma what the watchdog calls it."""
SAMPLED = {"open the run", "restore, reading", "save step 4", "exit"}


def drive(scenario, run, tmp_path, *more, ranks=2, timeout=60):
    """Run a scenario; mpiexec's result, and what each rank that came to its end had to say."""
    argv = [*SHIM, sys.executable, DRIVER, scenario, str(run), str(tmp_path), *more]
    done = mpiexec(ranks, argv, timeout=timeout)
    paths = [tmp_path / f"{scenario}-{rank}.json" for rank in range(ranks)]
    return done, [json.loads(path.read_text()) if path.exists() else None for path in paths]


def test_a_run_is_finished_only_when_every_rank_has_come_through_the_block(run, tmp_path):
    done, seen = drive("late_error", run, tmp_path)
    assert done.returncode not in (0, 75)
    assert seen == [None, None], "both were ended"
    assert not (run / "DONE").exists()
    assert decision(run, 1) is None
    assert "the last line of the block" in done.stderr


def test_no_rank_leaves_the_block_before_every_other_has_closed_its_files(run, tmp_path):
    """A rank that ends early may take the others with it: srun -K and mpiexec kill what is left."""
    done, seen = drive("slow_to_leave", run, tmp_path)
    assert done.returncode == 0, done.stderr
    closed, left = zip(*seen, strict=True)
    assert closed[1] - closed[0] > 1, "rank 1 was not slow"
    assert min(left) >= closed[1]


@pytest.mark.parametrize("place", sampled(PLACES, SAMPLED.__contains__))
def test_wherever_a_rank_stands_still_it_is_named_and_the_others_end_soon(run, tmp_path, place):
    began = time.monotonic()
    done, seen = drive("stopped", run, tmp_path, place, timeout=30)
    assert time.monotonic() - began < 28
    assert done.returncode == 71, done.stderr
    assert seen[0] is None, "it was ended where it waited"
    waited_for = place.partition(",")[0]
    if place == "open the run":  # there is no directory yet in which ranks could say that they are there
        assert "some of 2 ranks have not reached 'open the run' after 3 s" in done.stderr
        return
    assert f"rank 1 has not reached {waited_for!r} after 3" in done.stderr
    assert [event["missing"] for event in events(run, 1, "ranks-missing")] == [[1]]
    assert len(list((run / "generations").glob("g*"))) == (place in ("finish", "write DONE", "exit"))
    if place not in ("write DONE", "exit"):
        assert not (run / "DONE").exists()


def test_streams_and_arrays_that_differ_between_ranks_are_refused_before_training(run, tmp_path):
    done, seen = drive("differing", run, tmp_path)
    assert done.returncode == 0, done.stderr
    assert {name: kind for name, (kind, *_) in seen[0].items()} == {
        **dict.fromkeys(("seed", "batch_size", "length", "shuffle", "shape", "dtype"), "RankStructureError"),
        "order": "done",
    }
    assert seen[1] == seen[0], "told alike to both"
    assert {name: steps for name, (_, _, steps) in seen[0].items() if steps} == {"order": [0]}
    for name, named in (("seed", ("3", "4")), ("batch_size", ("2", "3")), ("length", ("10", "11"))):
        text = seen[0][name][1]
        assert "rank 1" in text
        assert all(word in text for word in named), text
    for name in ("shape", "dtype"):
        assert "x" in seen[0][name][1]
        assert decision(f"{run}-{name}", 1)["decision"] == "hold"


def test_copies_that_drift_apart_are_said_once_to_people(run, tmp_path):
    done, _ = drive("drifting", run, tmp_path)
    assert done.returncode == 75, done.stderr
    assert len(events(run, 1, "saved")) >= 3
    assert done.stderr.count("differ between ranks") == 1
    assert "weights" in done.stderr


def test_that_the_world_has_another_size_than_the_saved_one_is_said_to_people(run, tmp_path):
    from tests.session.test_under_mpiexec import start

    start(2, run, tmp_path / "out", "break:4")
    done, _ = start(1, run, tmp_path / "out", "none")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("saved by 2 ranks and now on 1") == 1
    assert "random numbers differ" in done.stderr
