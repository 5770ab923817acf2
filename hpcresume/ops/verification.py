"""Verifying generations: every byte of one, or of all that a run has committed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpcresume.errors import FormatVersionError, HpcresumeError, NoGenerationError, RunError, StorageAwayError
from hpcresume.model import Skipped, VerifyReport
from hpcresume.ops.targets import Target

__all__ = ["EXIT_DAMAGED", "Progress", "as_json", "size_on_disk", "verify_all"]

EXIT_DAMAGED = 74
"""The exit code of DamagedError's family."""

Progress = Callable[[str, int, int], None]
"""Called with the generation's name, bytes done and bytes in all of this generation."""


def verify_all(target: Target, progress: Progress) -> list[VerifyReport]:
    """Verify what the target names, one after the other; nothing that is wrong with one ends it.

    Raises:
        NoGenerationError: the run has committed nothing, so there is nothing to vouch for.
        RunDirectoryError, NoUsableGenerationError: it has, and all of it is gone.
    """
    names = target.names()
    if not names:
        target.generations.check_not_lost()
        raise NoGenerationError(
            "nothing was ever committed in this run", where=str(target.run.root), hint="hpcresume ls RUN"
        )
    return [_verify_one(target, name, progress) for name in names]


def _verify_one(target: Target, name: str, progress: Progress) -> VerifyReport:
    try:
        return target.generations.verify(name, progress=lambda done, total: progress(name, done, total))
    except FormatVersionError as error:
        return VerifyReport(name, 0, 0, (Skipped(name, error.what),))
    except (RunError, StorageAwayError, OSError) as error:
        return VerifyReport(name, 0, 0, (Skipped(name, f"cannot be read: {_why(error)}"),))


def _why(error: HpcresumeError | OSError) -> str:
    what = error.what if isinstance(error, HpcresumeError) else error.strerror or str(error)
    where = error.where if isinstance(error, HpcresumeError) else error.filename
    return f"{what} ({where})" if where else what


def size_on_disk(target: Target) -> int:
    """Bytes of the data files of all generations to verify, for a progress bar: never an error."""
    return sum(_size(target.run.generations / name) for name in target.names())


def _size(directory: Path) -> int:
    try:
        return sum(path.stat().st_size for path in directory.iterdir() if path.suffix == ".h5")
    except OSError:
        return 0


def as_json(target: Target, reports: list[VerifyReport]) -> dict[str, Any]:
    """The object that `hpcresume verify --json` prints; its keys are documented in the verb's help."""
    return {
        "run": str(target.run.root),
        "ok": all(report.ok for report in reports),
        "generations": [
            {
                "name": report.generation,
                "ok": report.ok,
                "units": report.units,
                "bytes": report.nbytes,
                "damage": [
                    {"reason": each.reason, "tensor": each.tensor, "offset": each.offset} for each in report.damage
                ],
            }
            for report in reports
        ],
    }
