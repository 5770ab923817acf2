"""Doing a step of the protocol on all ranks: local work, then a vote, so that all succeed or all raise.

Owns how an operating-system error becomes an error of ours. Knows no file format.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from hpcresume.comm.ranks import Ranks
from hpcresume.comm.vote import vote
from hpcresume.errors import HpcresumeError, NoSpaceError, SaveError, StorageAwayError
from hpcresume.io.hints import hint_for, is_away

__all__ = ["Outcome", "as_typed", "together"]

_FULL = (errno.ENOSPC, errno.EDQUOT)


def as_typed(phase: str, error: Exception, kind: type[HpcresumeError] = SaveError) -> HpcresumeError:
    """The typed error for what went wrong on this rank: `kind`, or `NoSpaceError` when there is no space left, or
    `StorageAwayError`, where that is a `kind`, when the storage cannot be reached.
    """
    if isinstance(error, HpcresumeError):
        return error
    if not isinstance(error, OSError):
        return kind(f"could not {phase}: {type(error).__name__}: {error}")
    where = str(error.filename or "")
    if error.errno in _FULL:
        what = f"no space left to {phase}: {error.strerror or error}"
        return NoSpaceError(what, where=where, hint="free space or raise the quota")
    hint = hint_for(error.errno, otherwise="look at the filesystem, then try again")
    if is_away(error.errno) and issubclass(StorageAwayError, kind):
        kind = StorageAwayError
    return kind(f"could not {phase}: {error.strerror or error}", where=where, hint=hint)


class Outcome:
    """The error of this rank's part of a phase; a block sets it where it must not raise."""

    error: BaseException | None = None


@contextlib.contextmanager
def together(ranks: Ranks, phase: str, kind: type[HpcresumeError] = SaveError) -> Iterator[Outcome]:
    """Collective. Run the block on every rank (no collective call inside), then vote.

    An exception that is not ours becomes a `kind`.

    Raises:
        HpcresumeError: the block failed on some rank; the same class on all, naming the rank.
    """
    outcome = Outcome()
    try:
        yield outcome
        if isinstance(outcome.error, Exception):
            raise outcome.error
    except Exception as error:  # noqa: BLE001 - every failure of one rank must become a vote
        outcome.error = as_typed(phase, error, kind)
        if outcome.error is not error:
            outcome.error.__cause__ = error
    except BaseException as error:  # noqa: BLE001 - raised again by the vote
        outcome.error = error
    vote(ranks, phase, outcome.error)
