"""What every test may rely on, however pytest was started."""

from __future__ import annotations

import signal


def pytest_configure():
    """Ctrl-C works in what the tests start; a shell ignores it, heritably, for what it starts in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
