"""What every test may rely on, however pytest was started and whatever ran before."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD, signal.SIGCONT)


def pytest_configure():
    """Ctrl-C works in what the tests start; a shell ignores it, heritably, for what it starts in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """.ci/run ends with what was skipped, and why; of a long log nobody reads the middle."""
    told = os.environ.get("HPCRESUME_TOLD_SKIPS")
    if not told:
        return
    skipped: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        where, reason = report.nodeid, report.longrepr
        if isinstance(reason, tuple):
            where, reason = report.nodeid.partition("::")[0], str(reason[2]).removeprefix("Skipped: ")
        skipped[f"{where}: {reason}"] += 1
    with Path(told).open("a") as file:
        file.writelines(f"{count} skipped in {line}\n" for line, count in sorted(skipped.items()))


@pytest.fixture(autouse=True)
def _signals_stay_as_they_were() -> Iterator[None]:
    """A verb that ran in this process may have blocked signals; what later tests start would inherit that."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    handlers = {number: signal.getsignal(number) for number in ALL}
    yield
    for number, handler in handlers.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
