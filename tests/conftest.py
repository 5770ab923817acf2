"""What every test may rely on, however pytest was started."""

from __future__ import annotations

import signal


def pytest_configure():
    """Ctrl-C works in what the tests start: a shell ignores it for what it starts in the background, and so do heirs."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
