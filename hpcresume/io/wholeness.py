"""Whether a filesystem works as a whole, asked before anything is concluded from a file that is missing from it.

A distributed filesystem that has lost one of its servers may say "no such file" of what lies there (seen: GlusterFS),
just as if it had been removed. But it cannot rename a directory, which every server knows.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path

from hpcresume.io.files import files
from hpcresume.io.hints import is_away

__all__ = ["refusal"]

_SICK = (errno.EIO, errno.ESTALE)
"""What else a storage that fails says. A full or read-only one is whole."""


def refusal(directory: Path) -> OSError | None:
    """Why directories in this one cannot be made and renamed now, as a commit would; None when they can."""
    name = f".probe-{os.getpid()}-{secrets.token_hex(4)}"  # swept by the next attempt, should it stay
    probe = directory / name
    try:
        files().mkdir(probe)
        try:
            files().rename(probe, directory / f"{name}0")
            probe = directory / f"{name}0"
        finally:
            with contextlib.suppress(OSError):
                files().rmdir(probe)
    except OSError as error:
        return error if is_away(error.errno) or error.errno in _SICK else None
    return None
