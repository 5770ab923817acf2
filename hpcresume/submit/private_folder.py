"""The folder of submitit's pickles, which are code: ours alone, made or refused."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from hpcresume.errors import RunDirectoryError
from hpcresume.io.durable import make_directory

__all__ = ["private_folder"]


def private_folder(folder: Path) -> Path:
    """Make the folder (0700, and so are parents that are missing) or accept one that is ours alone.

    What is unpickled from it runs as we. So nobody else may write to it, nor put another one in its place: a folder
    above it in which everybody may rename things is refused. One that belongs to a group or to another user is not:
    projects share such folders, and whoever owns them is trusted with what lies in them.

    Raises:
        RunDirectoryError: it is a link or no directory, another user's, or open to others; it lies where everybody
            can put another one in its place; or it cannot be made.
    """
    try:
        make_directory(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        facts = folder.lstat()
        above = [parent for parent in folder.resolve().parents if _anybody_may_rename(parent.stat())]
    except OSError as error:
        raise RunDirectoryError(f"the job folder cannot be made: {error.strerror}", where=str(folder)) from error
    wrong, hint = None, "another folder"
    if not stat.S_ISDIR(facts.st_mode):
        wrong = "is a link" if stat.S_ISLNK(facts.st_mode) else "is no directory"
    elif facts.st_uid != os.geteuid():
        wrong = f"belongs to user {facts.st_uid}"
    elif facts.st_mode & 0o077:
        wrong, hint = f"is open to others (mode {stat.S_IMODE(facts.st_mode):04o})", f"chmod 700 {folder}"
    elif above:
        wrong, hint = f"lies in {above[0]}, where everybody can put another one in its place", f"chmod o-w {above[0]}"
    if wrong:
        raise RunDirectoryError(f"the job folder {wrong}; its pickles are code", where=str(folder), hint=hint)
    return folder


def _anybody_may_rename(facts: os.stat_result) -> bool:
    """May all users write there, and rename what is not theirs? Not in /tmp, which has the sticky bit."""
    return bool(facts.st_mode & stat.S_IWOTH) and not facts.st_mode & stat.S_ISVTX
