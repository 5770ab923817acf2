"""An attempt that a newer one has overtaken notices and leaves, between saves too, and by force where it cannot."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

import hpcresume as hr
from hpcresume.errors import FencedError
from hpcresume.session import fence
from hpcresume.session.fence import Fence


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence, "FENCE_SECONDS", 0.05)
    monkeypatch.setattr(fence, "OTHERS_SECONDS", 0.05)


def claim(run: Path, attempt: int) -> None:
    """As another start of the job does it."""
    root = run / "attempts" / f"{attempt:04d}"
    root.mkdir()
    (root / "claim.json").write_text(json.dumps({"attempt": attempt}))


def test_an_overtaken_attempt_leaves_at_a_step_boundary_though_no_save_is_due(tmp_path):
    run, steps = tmp_path / "run", 0
    with (
        pytest.raises(FencedError, match="attempt 2 of this run has begun"),
        hr.session(run, every="1000000 steps", reaction=0) as s,
    ):
        s["x"] = 0
        for step in s.steps(1000):
            if step == 2:
                claim(run, 2)
            time.sleep(0.01)
            steps = step
    assert 2 <= steps < 900
    assert json.loads((run / "attempts/0001/decision.json").read_text())["decision"] == "come-back"
    assert os.listdir(run / "generations") == []
    assert not any(thread.name == "hpcresume fence" and thread.is_alive() for thread in threading.enumerate())


def test_an_overtaken_attempt_does_not_call_the_run_finished(tmp_path, monkeypatch):
    """The claim comes after its final save, and before DONE."""
    monkeypatch.setattr(fence, "FENCE_SECONDS", 1000.0)
    run = tmp_path / "run"

    class Late:
        def state_dict(self) -> dict[str, int]:
            return {}

        def load_state_dict(self, state: object) -> None:
            pass

    with pytest.raises(FencedError), hr.session(run) as s:
        s.track(late=Late())
        for _ in s.steps(3):
            pass
        assert len(os.listdir(run / "generations")) == 1
        claim(run, 2)
    assert not (run / "DONE").exists()
    assert json.loads((run / "attempts/0001/decision.json").read_text())["decision"] == "come-back"


def test_a_process_that_cannot_leave_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(fence, "LEAVE_SECONDS", 0.3)
    codes: list[int] = []
    watch = Fence(tmp_path / "claim.json", 1, 3, exit=codes.append)
    watch.start()
    time.sleep(0.2)
    assert not watch.overtaken
    (tmp_path / "claim.json").touch()
    watch.join(5)
    assert (watch.overtaken, codes) == (True, [FencedError.exit_code])


def test_one_that_has_left_is_not(tmp_path):
    codes: list[int] = []
    watch = Fence(tmp_path / "claim.json", 1, 0, exit=codes.append)
    (tmp_path / "claim.json").touch()
    watch.start()
    time.sleep(0.1)
    watch.close()
    watch.join(5)
    assert (watch.overtaken, codes) == (True, [])
