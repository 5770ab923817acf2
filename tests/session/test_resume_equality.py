"""A training preempted at any step ends with the same bits as one that was never interrupted."""

from __future__ import annotations

import signal

import pytest

import hpcresume as hr
from tests.session.trainings import STEPS, Record, plain, resumable

SIGNALS = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(scope="module", params=["sgd", "adamw"])
def reference(request):
    return request.param, plain(request.param)


def test_a_session_without_interruption_is_the_plain_loop(reference, run):
    kind, expected = reference
    record = Record()
    resumable(run, kind, record)
    assert record == expected


@pytest.mark.parametrize("at", range(STEPS))
def test_preempted_at_any_step_by_a_real_signal_the_bits_are_the_same(reference, run, warn, at):
    kind, expected = reference
    number, record, fired = SIGNALS[at % len(SIGNALS)], Record(), []

    def during(session, step):
        if step == at:
            warn(session, number)
            fired.append(step)

    if at < STEPS - 1:
        with pytest.raises(hr.Stopped) as stopped:
            resumable(run, kind, record, during=during)
        assert (stopped.value.code, stopped.value.step) == (75, at + 1)
        assert sorted(record.losses) == list(range(at + 1))
        resumable(run, kind, record)
    else:  # warned in the last step: the run finishes, since its final save is the one save there is time for
        resumable(run, kind, record, during=during)
    assert fired == [at]
    assert record == expected


def test_preempted_at_every_step_in_one_run_the_bits_are_the_same(reference, run, warn):
    kind, expected = reference
    record, attempts = Record(), 0
    while not (run / "DONE").exists():
        attempts += 1
        try:
            resumable(run, kind, record, during=lambda session, step: warn(session), keep=2)
        except hr.Stopped:
            continue
    assert attempts == STEPS
    assert record == expected
