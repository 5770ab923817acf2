"""What squeue, sacct and scancel may be asked for: users, accounts, spans of time. Pure but for the user database."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Mapping

from hpcresume.emulate.jobs import Job

__all__ = ["Users", "by_option", "during", "users_of"]


class Users:
    """The users that were named: is the cluster's only one, ourselves, among them, and who does not exist?"""

    def __init__(self, mine: bool, unknown: str) -> None:
        self.mine = mine
        self.unknown = unknown


def users_of(text: str) -> Users:
    """Users of `me,17,someone`; `unknown` is the first that this machine has not, "" without any."""
    mine, unknown = False, ""
    for name in filter(None, text.split(",")):
        number = _number(name)
        if number is None:
            unknown = unknown or name
        mine = mine or number == os.getuid()
    return Users(mine, unknown)


def _number(name: str) -> int | None:
    try:
        return int(name) if name.isascii() and name.isdecimal() else pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        return None


def by_option(options: Mapping[str, str], *names: str) -> Callable[[Job], bool]:
    """Does a job have what these options ask for, each a list between commas, of the job's own options?"""
    wanted = {name: options[name].lower().split(",") for name in names if name in options}
    return lambda job: all(job.request.shown.get(name, "").lower() in words for name, words in wanted.items())


def during(start: float | None, end: float | None) -> Callable[[Job], bool]:
    """Was a job in the cluster at any moment from `start` to `end`? None is open."""

    def inside(job: Job) -> bool:
        over = job.end if job.over else None
        return (end is None or job.submitted <= end) and (start is None or over is None or over >= start)

    return inside
