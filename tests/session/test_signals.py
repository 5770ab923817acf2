"""Warnings are heard whatever the main thread does, and kept away from everything that it starts."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import hpcresume as hr
from hpcresume.errors import ConfigError, UsageError
from hpcresume.session.signals import SignalWatch, signal_numbers
from hpcresume.session.warnings_seen import WarningsSeen
from tests.session.scripts import events

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

ALL = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP)


def eventually(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.001)


@pytest.fixture
def watch():
    seen = WarningsSeen()
    found = SignalWatch(ALL, seen)
    found.seen = seen
    found.arm()
    yield found
    found.disarm()


@pytest.mark.parametrize("number", ALL)
def test_every_warning_signal_is_noted_with_its_time(watch, number):
    before = time.monotonic()
    os.kill(os.getpid(), number)
    eventually(lambda: watch.seen)
    assert watch.seen.first.signal == number
    assert before <= watch.seen.first.at <= time.monotonic()


def test_a_thousand_signals_end_nothing_and_the_first_one_counts(watch):
    os.kill(os.getpid(), signal.SIGUSR2)
    eventually(lambda: watch.seen)
    first = watch.seen.first
    for _ in range(1000):
        for number in ALL:
            os.kill(os.getpid(), number)
    eventually(lambda: watch.seen.arrivals > 4)
    assert watch.seen.first == first
    assert first.signal == signal.SIGUSR2


def test_a_warning_is_heard_while_the_main_thread_sits_in_c_code(watch):
    """`time.sleep` would do: but a C call that never returns to the interpreter is what a collective is."""
    import ctypes

    libc = ctypes.PyDLL(None)  # PyDLL keeps the interpreter's lock: nothing of Python runs meanwhile
    pid = os.fork()
    if pid == 0:
        time.sleep(0.2)
        os.kill(os.getppid(), signal.SIGUSR1)
        os._exit(0)
    began = time.monotonic()
    libc.usleep(ctypes.c_uint(500_000))
    returned = time.monotonic()
    os.waitpid(pid, 0)
    assert returned - began >= 0.5, "the signal must not have cut the call short: it is blocked in this thread"
    eventually(lambda: watch.seen)


def test_a_warning_is_noted_at_once_while_c_code_runs_without_the_lock(watch):
    noted = []
    listener = threading.Thread(target=lambda: (eventually(lambda: watch.seen), noted.append(time.monotonic())))
    listener.start()
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    import ctypes

    ctypes.CDLL(None).usleep(ctypes.c_uint(600_000))
    returned = time.monotonic()
    listener.join()
    timer.join()
    assert noted[0] < returned - 0.3


def test_a_foreign_handler_is_reported_replaced_and_given_back():
    called = []

    def foreign(number, frame):
        called.append(number)

    signal.signal(signal.SIGUSR1, foreign)
    seen = WarningsSeen()
    watch = SignalWatch(ALL, seen)
    texts = watch.arm()
    assert len(texts) == 1
    assert "SIGUSR1" in texts[0]
    assert "foreign" in texts[0]
    os.kill(os.getpid(), signal.SIGUSR1)
    eventually(lambda: seen)
    assert called == []
    watch.disarm()
    assert signal.getsignal(signal.SIGUSR1) is foreign
    os.kill(os.getpid(), signal.SIGUSR1)
    eventually(lambda: called)


def test_a_handler_installed_later_is_taken_back_and_no_warning_is_lost_meanwhile(watch):
    signal.signal(signal.SIGTERM, lambda *_: None)
    os.kill(os.getpid(), signal.SIGTERM)
    eventually(lambda: watch.seen)
    texts = watch.check()
    assert len(texts) == 1
    assert "SIGTERM" in texts[0]
    assert watch.check() == []


def test_a_wakeup_descriptor_of_somebody_else_still_gets_every_signal_and_is_given_back():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        before = signal.set_wakeup_fd(theirs.fileno())
        try:
            seen = WarningsSeen()
            watch = SignalWatch(ALL, seen)
            assert "wake-up" in watch.arm()[0]
            os.kill(os.getpid(), signal.SIGUSR1)
            eventually(lambda: seen)
            time.sleep(0.05)
            assert ours.recv(100) == bytes([signal.SIGUSR1])
            watch.disarm()
        finally:
            assert signal.set_wakeup_fd(before) == theirs.fileno()


def test_a_wakeup_descriptor_set_later_is_found_at_the_next_vote(watch):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno())
        os.kill(os.getpid(), signal.SIGUSR1)
        eventually(lambda: watch.seen)  # the Python handler is the second way
        assert "wake-up" in watch.check()[0]
        os.kill(os.getpid(), signal.SIGUSR1)
        eventually(lambda: watch.seen.arrivals)


def test_mask_and_handlers_are_as_before_except_that_a_late_warning_no_longer_kills():
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    watch = SignalWatch(ALL, WarningsSeen())
    watch.arm()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask | {signal.SIGUSR1, signal.SIGUSR2}
    watch.disarm()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask
    assert [signal.getsignal(n) for n in ALL] == [signal.SIG_IGN, signal.SIG_IGN, signal.SIG_DFL, signal.SIG_DFL]
    os.kill(os.getpid(), signal.SIGUSR1)
    assert not [t for t in threading.enumerate() if t.name == "hpcresume signals"]


def test_hup_stays_ignored_under_nohup():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    seen = WarningsSeen()
    watch = SignalWatch(ALL, seen)
    watch.arm()
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGUSR1)
    eventually(lambda: seen)
    watch.disarm()
    assert seen.first.signal == signal.SIGUSR1
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


SHIMMED = """
import os, signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.kill(os.getpid(), signal.SIGUSR1)
from hpcresume.session.signals import SignalWatch
from hpcresume.session.warnings_seen import WarningsSeen
seen = WarningsSeen()
watch = SignalWatch((signal.SIGUSR1,), seen)
watch.arm()
until = time.monotonic() + 10
while not seen and time.monotonic() < until:
    time.sleep(0.01)
watch.disarm()
assert signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, [])
print(seen.first.signal)
"""


def test_signals_that_came_while_the_shim_blocked_them_are_delivered_on_arming():
    """In a process of its own: in pytest's, other threads would take a signal that only this one has blocked."""
    done = subprocess.run([sys.executable, "-c", SHIMMED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, f"{int(signal.SIGUSR1)}\n"), done.stderr


CHILD = (
    "import signal, sys, time\nsys.stdout.write('up')\nsys.stdout.flush()\nsys.stdin.read()\n"
    "sys.stdout.write(str(len(signal.sigpending())))"
)


def test_a_subprocess_survives_a_warning_to_the_whole_step(watch):
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.read(2) == b"up"
    child.send_signal(signal.SIGUSR1)
    child.send_signal(signal.SIGUSR2)
    out, _ = child.communicate(timeout=10)
    assert (child.returncode, out) == (0, b"2"), "both signals came, and wait behind the blocked mask"


def _until_told(queue, answers):
    answers.put(os.getpid())
    answers.put(queue.get(timeout=20))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_multiprocessing_survive_a_warning_to_the_whole_step(watch, method):
    context = multiprocessing.get_context(method)
    queue, answers = context.Queue(), context.Queue()
    worker = context.Process(target=_until_told, args=(queue, answers))
    worker.start()
    pid = answers.get(timeout=20)
    os.kill(pid, signal.SIGUSR1)
    os.kill(pid, signal.SIGUSR2)
    queue.put("still here")
    assert answers.get(timeout=20) == "still here"
    worker.join(20)
    assert worker.exitcode == 0
    assert not watch.seen


@pytest.mark.parametrize("number", ALL)
def test_a_signal_to_a_forked_child_never_reaches_the_parent(watch, number):
    pid = os.fork()
    if pid == 0:
        os.kill(os.getpid(), number)
        time.sleep(0.05)
        os._exit(7)
    _, status = os.waitpid(pid, 0)
    died_of = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    assert died_of == (0 if number in (signal.SIGUSR1, signal.SIGUSR2) else number)
    time.sleep(0.05)
    assert not watch.seen
    os.kill(os.getpid(), signal.SIGUSR1)
    eventually(lambda: watch.seen)


def test_a_fork_in_another_thread_is_shielded_too(watch):
    statuses = []

    def fork():
        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGUSR1)
            os._exit(3)
        statuses.append(os.waitpid(pid, 0)[1])

    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
    assert os.waitstatus_to_exitcode(statuses[0]) == 3
    assert not watch.seen


def test_a_child_that_leaves_through_the_block_touches_nothing_of_the_parent(run, warn):
    with pytest.raises(hr.Stopped), hr.session(run, every="1000 steps") as s:
        for step in s.steps(10):
            if step == 3:
                pid = os.fork()
                if pid == 0:
                    try:
                        s.__exit__(None, None, None)
                    finally:
                        os._exit(0)
                os.waitpid(pid, 0)
                assert not (run / "attempts" / "0001" / "decision.json").exists()
                warn(s)
    assert (run / "attempts" / "0001" / "decision.json").exists()


@pytest.mark.parametrize("number", ALL)
def test_a_library_that_takes_a_signal_in_mid_training_is_reported_and_the_warning_still_stops_the_run(run, number):
    called = []
    with pytest.raises(hr.Stopped), hr.session(run, reaction=0) as s:
        for step in s.steps(10**9):
            if step == 2:
                signal.signal(number, lambda *_: called.append(1))
                os.kill(os.getpid(), number)
    assert events(run, 1, "warning")[0]["signal"] == number.name
    (event,) = events(run, 1, "foreign-handler")
    assert number.name in event["text"]
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.SIG_IGN)


@pytest.mark.parametrize(("number", "recorded"), [(signal.SIGTERM, ["SIGTERM"]), (signal.SIGUSR1, [])])
def test_the_end_sequence_is_recorded_as_it_comes_and_not_at_the_next_step_boundary(run, number, recorded):
    """In the midst of a long step or save nobody may be left to say so later: KILL follows."""
    with pytest.raises(hr.Stopped), hr.session(run, reaction=0) as s:
        for step in s.steps(10**9):
            if step == 2:
                os.kill(os.getpid(), number)
                eventually(lambda: s._seen.arrivals)
                if recorded:
                    eventually(lambda: events(run, 1, "end-heard"))
                assert events(run, 1, "warning") == []
    assert [event["signal"] for event in events(run, 1, "end-heard")] == recorded


def test_a_session_outside_the_main_thread_is_refused_and_says_why(run):
    errors = []

    def body():
        try:
            hr.session(run).__enter__()
        except UsageError as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert "main thread" in str(errors[0])
    assert not run.exists()


@pytest.mark.parametrize("bad", ["USR1", 5, ["KILL"], ["STOP"], ["CHLD"], ["nonsense"], [10], [None]])
def test_what_cannot_be_a_warning_is_refused(bad):
    with pytest.raises(ConfigError) as caught:
        signal_numbers(bad)
    assert caught.value.where == "signals"


def test_names_of_signals_are_taken_with_and_without_sig():
    assert signal_numbers(["USR1", "SIGTERM", "usr1"]) == (signal.SIGUSR1, signal.SIGTERM)
