from __future__ import annotations

import signal

import pytest

from hpcresume.launch import ranks
from hpcresume.launch.ranks import Warner

USR1, USR2 = int(signal.SIGUSR1), int(signal.SIGUSR2)


class Launcher:
    """A launcher whose progress and time the test decides."""

    def __init__(self, monkeypatch) -> None:
        self.sent: list[int] = []
        self.listening = self.claimed = False
        self.now = 100.0
        monkeypatch.setattr(ranks.time, "monotonic", lambda: self.now)
        self.warner = Warner(self.sent.append, lambda: self.listening, lambda: self.claimed)


@pytest.fixture
def launcher(monkeypatch):
    return Launcher(monkeypatch)


def test_a_warning_waits_until_all_ranks_can_take_it(launcher):
    launcher.listening = True
    launcher.warner.warn(USR1)
    launcher.warner.advance()
    assert (launcher.sent, launcher.warner.waiting) == ([], True)
    launcher.claimed = True
    launcher.warner.advance()
    launcher.warner.advance()
    assert (launcher.sent, launcher.warner.waiting) == ([USR1], False)


def test_once_the_attempt_is_claimed_every_warning_goes_through_at_once(launcher):
    launcher.claimed = True
    launcher.warner.warn(USR1)
    launcher.warner.warn(USR2)
    assert launcher.sent == [USR1, USR2]


def test_a_program_without_a_session_gets_its_warning_after_a_while_and_again_if_it_opens_one(launcher):
    launcher.warner.warn(USR1)
    launcher.now += ranks.PATIENCE + 1
    launcher.warner.advance()
    assert launcher.sent == []
    launcher.listening = True
    launcher.warner.advance()
    launcher.warner.advance()
    assert launcher.sent == [USR1]
    launcher.claimed = True
    launcher.warner.advance()
    assert (launcher.sent, launcher.warner.waiting) == ([USR1, USR1], False)


def test_nothing_is_sent_without_a_warning(launcher):
    launcher.claimed = launcher.listening = True
    launcher.warner.advance()
    assert (launcher.sent, launcher.warner.warned, launcher.warner.waiting) == ([], False, False)
