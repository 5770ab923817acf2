"""Finds and reads a batch script as sbatch does, in the process that was called: its files are not the controller's.

`/dev/stdin`, `<(…)` and FIFOs mean something only there. Standard library only: `client_program` runs it by path.
"""

from __future__ import annotations

import os
import sys

__all__ = ["LONGEST", "find", "read"]

LONGEST = 4 << 20
"""Bytes that a script may have (max_script_size, slurm.conf(5)); one more is read, so that a longer one is noticed."""


def find(name: str, directory: str, cwd: str) -> str:
    """The script's path: in `directory` (--chdir) first, then where sbatch was called, then along PATH.

    What is found nowhere is named as in the first of them.
    """
    places = [directory, cwd]
    if not name.startswith(("/", "./", "../")):
        places += os.get_exec_path()
    for place in places:
        path = os.path.join(place, name)
        if os.access(path, os.R_OK):
            return path
    return os.path.join(directory, name)


def read(path: str | None) -> str | None:
    """The text, None when it cannot be opened. Without a path it comes on the standard input."""
    try:
        if path is None:
            return os.fsdecode(sys.stdin.buffer.read(LONGEST + 1))
        with open(path, "rb") as file:
            return os.fsdecode(file.read(LONGEST + 1))
    except IsADirectoryError:
        return ""  # as the real one, to which a directory is an empty script
    except (OSError, ValueError, AttributeError):
        return None
