"""Who we are, also where the system has no name for our number, as in many containers."""

from __future__ import annotations

import getpass
import os

__all__ = ["user_name"]


def user_name() -> str:
    """The user's name, or the number where there is none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())
