"""Ten preemptions of fresh processes at 2 ranks by a real USR1: the same bits as a plain loop without hpcresume."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.session.scripts import SHIM, events
from tests.support.mpi import mpiexec

pytestmark = [pytest.mark.mpi, pytest.mark.slow]

DRIVER = str(Path(__file__).with_name("torch_driver.py"))
SHOTS = {"sgd": ["0@0", "4@1", "11@0", "12@1", "27@0"], "adamw": ["1@1", "2@0", "8@1", "20@0", "28@1"]}


def start(kind, out, *args):
    out.mkdir(exist_ok=True)
    done = mpiexec(2, [*SHIM, sys.executable, DRIVER, kind, str(out), *args], timeout=120)
    lines = [(out / f"rank-{rank}.jsonl").read_text().splitlines() for rank in range(2)]
    return done, [[json.loads(line) for line in one] for one in lines]


@pytest.mark.parametrize("kind", SHOTS)
def test_five_times_preempted_the_steps_and_the_final_bytes_are_those_of_the_plain_loop(run, tmp_path, kind):
    done, expected = start(kind, tmp_path / "plain")
    assert done.returncode == 0, done.stderr
    for shot in SHOTS[kind]:
        done, _ = start(kind, tmp_path / "out", str(run), shot)
        assert done.returncode == 75, done.stderr
    done, seen = start(kind, tmp_path / "out", str(run), "never")
    assert done.returncode == 0, done.stderr
    assert seen == expected
    for attempt, shot in enumerate(SHOTS[kind], start=1):
        (event,) = events(run, attempt, "warning")
        assert f"{event['step'] - 1}@{event['rank']}" == shot
        assert [saved["step"] for saved in events(run, attempt, "saved")] == [event["step"]]
