"""Runs a short command within a time that holds even where the command cannot be killed."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping, Sequence

__all__ = ["run_bounded"]

LAST = 2.0
"""Seconds for a killed command to go."""

_left: list[subprocess.Popen[bytes]] = []
"""Those that did not go: reaped when they have, by the next call."""


def run_bounded(
    arguments: Sequence[str], timeout: float, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run an argument list with nothing on stdin; capture stdout and stderr.

    `subprocess.run` kills a command that takes too long, and then waits for it without limit: a program that lies on,
    or writes to, a filesystem that no longer answers sleeps uninterruptibly and does not go.

    Args:
        arguments: the program and its arguments.
        timeout: seconds; the call takes at most two more.
        environ: the command's environment; by default this process's.

    Raises:
        OSError: the program is missing or cannot be run.
        ValueError: an argument holds a NUL.
        subprocess.TimeoutExpired: it took too long; it was killed, and left behind where it could not be.
    """
    _left[:] = [process for process in _left if process.poll() is None]
    process = subprocess.Popen(list(arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=environ)  # fmt: skip
    try:
        out, err = process.communicate(timeout=timeout)
    except BaseException:
        _leave(process)
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _leave(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(LAST)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    if process.returncode is None:
        _left.append(process)
