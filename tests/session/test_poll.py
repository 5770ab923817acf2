"""`s.poll()`: a long phase learns that time is short; the step it belongs to still ends, and is what is saved."""

from __future__ import annotations

import numpy as np
import pytest

import hpcresume as hr
from tests.session.scripts import events


def train(run, total, evaluate, *, reaction=60):
    """A step trains and then evaluates; what both did is recorded in tracked state."""
    weights, done = np.zeros(1), []
    with hr.session(run, every="1000 steps", reaction=reaction) as s:
        s.track(weights=weights, done=done)
        for step in s.steps(total):
            weights += step
            evaluate(s, step)
            done.append(step)  # the last line of the step: it runs whatever poll said
    return weights[0], done


@pytest.mark.parametrize("collective", [False, True])
def test_a_warning_in_an_evaluation_is_seen_there_and_the_finished_step_is_saved_at_its_end(run, warn, collective):
    batches = []

    def evaluate(s, step):
        for batch in range(100):
            if step == 5 and batch == 3:
                warn(s)
            if s.poll(collective=collective):
                break
            batches.append((step, batch))

    with pytest.raises(hr.Stopped) as stopped:
        train(run, 10, evaluate, reaction=60 if collective else 0)
    assert stopped.value.step == 6
    assert [b for s, b in batches if s == 5] == [0, 1, 2]
    assert len(events(run, 1, "saved")) == len(events(run, 1, "warning")) == 1
    assert train(run, 10, lambda s, step: None) == (45, list(range(10)))


def test_polling_costs_no_save_and_no_stop_while_nobody_is_warned(run):
    answers = []
    train(run, 10, lambda s, step: answers.extend([s.poll(), s.poll(collective=True)]))
    assert answers == [False] * 20
    assert [event["step"] for event in events(run, 1, "saved")] == [10]


def test_a_poll_before_the_loop_hears_a_warning_and_the_loop_then_stops_before_its_first_step(run, warn):
    with pytest.raises(hr.Stopped) as stopped, hr.session(run) as s:
        s["x"] = 1
        warn(s)
        assert s.poll(collective=True)
        for _ in s.steps(5):
            pytest.fail("a step ran")
    assert stopped.value.step == 0
    assert len(events(run, 1, "saved")) == len(events(run, 1, "warning")) == 1


def test_an_evaluation_can_be_repeated_by_the_next_attempt_through_a_tracked_value(run, warn):
    """The pattern that the documentation of `poll` proposes."""
    evaluated = []

    def attempt(at):
        with hr.session(run, reaction=0) as s:
            s.track(pending=-1)
            for step in s.steps(6):
                if s["pending"] >= 0 or step == 3:
                    s["pending"] = step if s["pending"] < 0 else s["pending"]
                    if step == at:
                        warn(s)
                    if not s.poll(collective=True):
                        evaluated.append(s["pending"])
                        s["pending"] = -1

    with pytest.raises(hr.Stopped):
        attempt(3)
    assert evaluated == []
    attempt(None)
    assert evaluated == [3]
