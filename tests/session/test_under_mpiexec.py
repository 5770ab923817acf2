"""Sessions on several real ranks: they stop together, whoever was told, and never wait for one that is gone."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from hpcresume.policy.samples import epoch_order
from tests.session.scripts import SHIM, decision, events
from tests.support.mpi import mpiexec
from tests.support.processes import run_together, torch_variables

pytestmark = [pytest.mark.mpi, pytest.mark.slow]

DRIVER = str(Path(__file__).with_name("mpi_driver.py"))


def start(n, run, out, scenario, *, timeout=60, track="", **options):
    """Run one attempt on `n` ranks; return mpiexec's result and what each rank wrote."""
    out.mkdir(exist_ok=True)
    for path in out.glob("rank-*.json"):
        path.unlink()
    argv = [*SHIM, sys.executable, DRIVER, str(run), str(out), scenario]
    done = mpiexec(n, argv, {"OPTIONS": json.dumps(options), "TRACK": track}, timeout)
    seen = [out / f"rank-{rank}.json" for rank in range(n)]
    return done, [json.loads(path.read_text()) if path.exists() else None for path in seen]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    done, seen = start(2, folder / "run", folder / "out", "none")
    assert done.returncode == 0, done.stderr
    return seen


@pytest.mark.parametrize("reaction", [0, 0.25])
def test_whichever_rank_is_warned_all_stop_at_one_step_and_the_resumed_bits_are_the_same(
    run, tmp_path, uninterrupted, reaction
):
    seen = [{"samples": {}, "losses": {}}, {"samples": {}, "losses": {}}]
    for scenario in ("warn:7@1", "warn:20@0", "none"):
        done, found = start(2, run, tmp_path / "out", scenario, reaction=reaction)
        for rank in range(2):
            for key in ("samples", "losses"):
                assert not set(seen[rank][key]) & set(found[rank][key]), "a step ran twice"
                seen[rank][key] |= found[rank][key]
        if scenario != "none":
            assert done.returncode == 75, done.stderr
            assert {one["end"] for one in found} == {"Stopped"}
            assert len({one["step"] for one in found}) == 1
        else:
            assert done.returncode == 0, done.stderr
    for rank in range(2):
        for key in ("samples", "losses"):
            assert seen[rank][key] == uninterrupted[rank][key]
        assert (found[rank]["final"], found[rank]["rng"]) == (uninterrupted[rank]["final"], uninterrupted[rank]["rng"])
    assert [events(run, n, "warning")[0]["rank"] for n in (1, 2)] == [1, 0]
    assert [len(events(run, n, "saved")) for n in (1, 2, 3)] == [1, 1, 1]


@pytest.mark.parametrize("scenario", ["raise:5@1", "exit:5@1", "raise:5@0"])
def test_an_exception_on_one_rank_ends_all_of_them_soon_and_is_recorded(run, tmp_path, scenario):
    began = time.monotonic()
    done, _ = start(2, run, tmp_path / "out", scenario)
    assert time.monotonic() - began < 30
    assert done.returncode not in (0, 75)
    rank = int(scenario[-1])
    name = "ledger.jsonl" if rank == 0 else "ledger.00001.jsonl"
    lines = [json.loads(x) for x in (run / "attempts/0001" / name).read_text().splitlines()]
    (event,) = [line for line in lines if line["event"] == "exception"]
    assert (event["rank"], event["step"]) == (rank, 5)
    assert f"rank {rank} ends the job" in done.stderr
    assert list((run / "generations").iterdir()) == []
    assert decision(run, 1) is None


@pytest.mark.parametrize("scenario", ["break:5@1", "finish:5@0"])
def test_ranks_that_do_not_leave_the_loop_together_are_named_to_everyone(run, tmp_path, scenario):
    """With a vote at every step; otherwise the others hang in the program's own reduction until the watchdog."""
    done, seen = start(2, run, tmp_path / "out", scenario, reaction=0, watchdog="20s")
    assert done.returncode not in (0, 75)
    assert [one["end"] for one in seen] == ["UsageError", "UsageError"]
    where = "left the loop in step 6" if scenario.startswith("break") else "finished at step 6"
    assert f"rank {scenario[-1]} {where}" in seen[0]["error"]
    assert list((run / "generations").iterdir()) == []


def test_a_rank_that_never_comes_to_a_vote_is_named_and_the_job_ends(run, tmp_path):
    began = time.monotonic()
    done, _ = start(2, run, tmp_path / "out", "hang:5@1", reaction=0, watchdog="3s")
    assert time.monotonic() - began < 40
    assert done.returncode not in (0, 75)
    assert "rank 1" in done.stderr
    assert "vote" in done.stderr
    (event,) = events(run, 1, "ranks-missing")
    assert event["missing"] == [1]


def test_a_healthy_save_may_take_longer_than_ranks_wait_for_each_other(run, tmp_path):
    """The bound grows with the bytes: 48 MB are given 4.8 s more than the 2 s of the option."""
    done, _ = start(2, run, tmp_path / "out", "slow-save", track="large", watchdog="2s", every="15 steps")
    assert done.returncode == 0, done.stderr
    slow = [event["seconds"] for event in events(run, 1, "saved")]
    assert max(slow) > 5, "the save was not slow"
    assert events(run, 1, "ranks-missing") == []


def test_the_same_session_runs_on_torchs_own_ranks(run, tmp_path):
    """Two processes with the variables of torchrun, over gloo."""
    script = tmp_path / "train.py"
    script.write_text(TORCH_RANKS)
    for end in ("stop", "go on"):
        done = run_together([sys.executable, str(script), str(run), end], torch_variables(2), timeout=90)
        assert [one.returncode for one in done] == ([75, 75] if end == "stop" else [0, 0]), done[0].stderr
    assert events(run, 1, "claimed")[0]["backend"] == "torch"
    assert [event["step"] for n in (1, 2) for event in events(run, n, "saved")] == [4, 10]
    assert [one.stdout for one in done] == ["45.0\n", "45.0\n"]


TORCH_RANKS = """
import os, signal, sys
import torch
import hpcresume as hr
weights = torch.zeros(1)
with hr.session(sys.argv[1], reaction=0, every="1000 steps") as s:
    s.track(weights=weights)
    for step in s.steps(10):
        weights += step
        if sys.argv[2] == "stop" and step == 3 and s.rank == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
            while not s.poll():
                pass
print(weights.item())
"""


def test_break_and_finish_on_all_ranks_are_one_save_at_that_step(run, tmp_path):
    done, seen = start(2, run, tmp_path / "out", "break:5")
    assert ([one["end"] for one in seen], [one["step"] for one in seen]) == (["Stopped"] * 2, [6, 6])
    done, seen = start(2, run, tmp_path / "out", "finish:9", reaction=60)
    assert done.returncode == 0, done.stderr
    assert [max(map(int, one["samples"])) for one in seen] == [9, 9]
    assert [event["step"] for n in (1, 2) for event in events(run, n, "saved")] == [6, 10]


def test_a_collective_poll_tells_all_ranks_what_one_was_told_and_the_step_is_the_last(run, tmp_path):
    _, seen = start(2, run, tmp_path / "out", "poll:8@1", reaction=60)
    assert [one["step"] for one in seen] == [10, 10], "warned in step 8, told to all in step 9, which then ends"
    assert seen[0]["poll"] == [[False, False, False]] * 9 + [[False, True, True]]
    assert seen[1]["poll"] == [[False, False, False]] * 9 + [[True, True, True]]


def test_ranks_that_track_different_things_are_told_so_before_training(run, tmp_path):
    done, seen = start(2, run, tmp_path / "out", "none", track="uneven")
    assert done.returncode not in (0, 75)
    assert [one["end"] for one in seen] == ["RankStructureError"] * 2
    assert "extra" in seen[0]["error"]
    assert [one["samples"] for one in seen] == [{}, {}]


def test_on_other_numbers_of_ranks_no_sample_is_missed_or_repeated_and_what_changed_is_said(run, tmp_path):
    taken = []
    for n, scenario in ((2, "break:4"), (3, "break:9"), (1, "none")):
        done, seen = start(n, run, tmp_path / "out", scenario)
        assert done.returncode in (0, 75), done.stderr
        steps = sorted(map(int, seen[0]["samples"]))
        taken += [item for step in steps for one in seen for item in one["samples"][str(step)]]
    epochs = len(taken) // 50 + 1
    assert taken == [i for epoch in range(epochs) for i in epoch_order(50, 11, epoch).tolist()][: len(taken)]
    assert len(taken) == 5 * 2 * 3 + 5 * 3 * 3 + 30 * 1 * 3
    for attempt, pair in ((2, (2, 3)), (3, (3, 1))):
        (event,) = events(run, attempt, "rng-derived")
        assert (event["from_world_size"], event["world_size"]) == pair
        assert events(run, attempt, "restored")[0]["world_size_changed"] is True


def test_rank_local_state_of_another_world_size_is_refused_by_name(run, tmp_path):
    start(2, run, tmp_path / "out", "break:4", track="local")
    done, seen = start(1, run, tmp_path / "out", "none", track="local")
    assert done.returncode not in (0, 75)
    assert seen[0]["end"] == "WorldSizeError"
    assert "objects['local']" in seen[0]["error"]
    done, seen = start(2, run, tmp_path / "out", "none", track="local")
    assert (done.returncode, sorted(map(int, seen[0]["samples"]))) == (0, list(range(5, 40)))
