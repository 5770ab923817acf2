"""A program that prepares signals and then becomes another: `python -S -I shim.py [options] -- COMMAND …`.

    --block USR1     add to the blocked signals; one that comes stays pending, also after exec (signal(7))
    --only-blocked   start from an empty mask instead of the inherited one
    --ignore USR1    ignore a signal until the command installs its own handler
    --default USR1   give a signal its default action back
    --end-with-parent TERM   have the kernel send this signal when the parent dies (prctl(2), PR_SET_PDEATHSIG)

Run by path, standard library only: it stands between mpiexec and the user's program where `env --block-signal`
(coreutils 8.31) is missing. Exits 127 when the command cannot be started.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


def _number(name: str) -> signal.Signals:
    return signal.Signals["SIG" + name]


def _prepare(words: list[str]) -> list[str]:
    """Apply the options in order; return the command."""
    blocked = set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    while words and words[0] != "--":
        option = words.pop(0)
        if option == "--only-blocked":
            blocked = set()
            continue
        number = _number(words.pop(0))
        if option == "--block":
            blocked.add(number)
        elif option == "--ignore":
            signal.signal(number, signal.SIG_IGN)
        elif option == "--default":
            signal.signal(number, signal.SIG_DFL)
        elif option == "--end-with-parent":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))
        else:
            raise SystemExit(f"shim: unknown option {option}")
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return words[1:]


def main(words: list[str]) -> None:
    """Prepare and become the command. Does not return."""
    command = _prepare(words)
    # Python itself ignores PIPE and XFSZ; a program expects to find the defaults.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        raise SystemExit(127) from None


if __name__ == "__main__":
    main(sys.argv[1:])
