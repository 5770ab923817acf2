"""Where the `hpcresume` command begins, and `python -m hpcresume`, which is the same.

Until the command line is imported and can answer for itself, Ctrl-C ends the process as it ends any program: without
Python's traceback.
"""

from __future__ import annotations

import signal

__all__ = ["main"]


def main() -> int:
    """Import the command line and run it; return the exit code."""
    # Where it is ignored, as in the background of a shell script, it stays so.
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from hpcresume.cli.main import main as run

    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()


if __name__ == "__main__":
    raise SystemExit(main())
