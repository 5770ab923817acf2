"""Many small reads: threads where they wait, none where they would only share a processor."""

from __future__ import annotations

import threading
import time

import pytest

from hpcresume.io.readers import READERS, SAMPLE, read_each


class Seen:
    def __init__(self, seconds: float) -> None:
        self.seconds, self.threads = seconds, set()

    def __call__(self, item: int) -> int:
        self.threads.add(threading.get_ident())
        if self.seconds:
            time.sleep(self.seconds)
        return item * item


@pytest.mark.parametrize("count", [0, 1, SAMPLE, SAMPLE + 1, 100])
@pytest.mark.parametrize("seconds", [0.0, 0.002])
def test_each_is_read_in_order(count, seconds):
    assert read_each(Seen(seconds), range(count)) == [n * n for n in range(count)]


@pytest.mark.alone
def test_reads_that_wait_are_done_together_and_others_by_one_thread():
    waiting, working = Seen(0.01), Seen(0.0)
    began = time.perf_counter()
    read_each(waiting, range(SAMPLE + 10 * READERS))
    assert time.perf_counter() - began < (SAMPLE + 10 * READERS) * 0.01
    read_each(working, range(1000))
    assert len(waiting.threads) == READERS + 1
    assert working.threads == {threading.get_ident()}


def test_what_a_read_raises_is_raised():
    def fail(item: int) -> int:
        time.sleep(0.001)
        if item == 50:
            raise OSError("gone")
        return item

    with pytest.raises(OSError, match="gone"):
        read_each(fail, range(100))
