"""What a drill takes for the answer to its order, among all that the run's ledger tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcresume.io.paths import RunPaths
from hpcresume.ops.drill import _look
from hpcresume.ops.drill_report import DrillReport

AT = 1000.0
WARNING = {"t": AT + 0.4, "event": "warning", "step": 72}


def saved(t: float, step: int, seconds: float) -> dict[str, Any]:
    generation = f"g{step:012d}-a0001"
    return {"t": t, "event": "saved", "generation": generation, "step": step, "seconds": seconds}


@pytest.mark.parametrize(
    ("ledger", "step", "after"),
    [
        ([saved(AT - 0.5, 70, 0.2)], None, None),
        ([saved(AT + 0.3, 70, 9.0)], None, None),
        ([saved(AT + 0.3, 70, 9.0), WARNING], None, None),
        ([saved(AT - 0.5, 70, 0.2), WARNING], None, None),
        ([saved(AT - 0.5, 70, 0.2), WARNING, saved(AT + 2.0, 72, 1.5)], 72, 2.0),
        ([saved(AT + 0.2, 70, 0.25)], 70, 0.2),
        ([WARNING, saved(AT + 2.0, 72, 9.0)], 72, 2.0),
    ],
    ids=["before", "begun-before", "begun-before-the-warning", "then-warned", "two", "clocks-differ", "warned"],
)
def test_only_a_save_that_the_order_can_have_brought_about_is_its_answer(
    ledger: list[dict[str, Any]], step: int | None, after: float | None, tmp_path: Path
) -> None:
    run = RunPaths(tmp_path)
    paths = run.attempt(1)
    paths.ledger.parent.mkdir(parents=True)
    paths.ledger.write_text("".join(json.dumps(line) + "\n" for line in ledger))
    seen = _look(run, DrillReport("scancel --batch --signal=USR1 7", True, 1, 70), AT)
    assert seen.saved_step == step
    assert seen.saved_after == (pytest.approx(after) if after is not None else None)
