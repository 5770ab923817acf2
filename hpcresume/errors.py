"""The whole error tree, drawn here so that nobody has to search for it.

HpcresumeError                       exit code 70
├── ConfigError                      78  a value the user gave is wrong
│   └── NonFiniteError                   NaN or infinity where none may be
├── UsageError                       64  the API was called in the wrong order
│   ├── SessionOpenError                 a second session in one process
│   └── TrackingClosedError              track() after steps() began
├── StateError                       65  the state cannot be saved or does not fit
│   ├── UntrackableError                 a value of a kind we refuse, with its path in the tree
│   ├── RankStructureError               ranks hold trees of different shape
│   ├── SliceError                       slices of a global array overlap, leave a hole, or do not fit
│   ├── ModelChangedError                missing, extra or reshaped tensors, all named
│   ├── WorldSizeError                   rank-local state of another world size
│   ├── SampleCountError                 the data set changed its length
│   └── RestoreMismatchError             an object came back different from what was saved
├── RunError                         73  the run directory
│   ├── RunDirectoryError                missing, read-only, not a run, unwritable
│   ├── FormatVersionError               written by another format version
│   └── RunBusyError                     another live job holds the run
├── CheckpointError                  74  generations
│   ├── SaveError                        a generation was not committed
│   │   ├── NoSpaceError                     the filesystem is full, or a quota is reached
│   │   ├── GenerationConflictError          same step and attempt, other content
│   │   └── FencedError                      a newer attempt has begun; this one may not commit
│   ├── DamagedError                     bytes do not match their digest: generation, tensor, offset
│   ├── StorageAwayError                 the storage does not answer now; nothing is known of what lies on it
│   ├── NoGenerationError                nothing was ever committed here
│   └── NoUsableGenerationError          generations exist and none of them verifies
├── RanksError                       71  ranks and their backend
│   ├── SilentSingletonsError            N processes that each believe to be alone
│   ├── RanksMissingError                a collective was not reached by everyone in time
│   └── PeerFailureError                 another rank failed
└── SlurmError                       69  a Slurm command is missing, hangs, fails, or answers garbage
    └── ClusterError                     a Slurm of this machine's own (minislurm) cannot start, or is not what it was

Every error says what happened, where, and what to try. It is raised once and shown once.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "ClusterError",
    "ConfigError",
    "DamageWarning",
    "DamagedError",
    "FencedError",
    "FormatVersionError",
    "GenerationConflictError",
    "HpcresumeError",
    "HpcresumeWarning",
    "ModelChangedError",
    "NoGenerationError",
    "NoSpaceError",
    "NoUsableGenerationError",
    "NonFiniteError",
    "PeerFailureError",
    "RankStructureError",
    "RanksError",
    "RanksMissingError",
    "RestoreMismatchError",
    "RunBusyError",
    "RunDirectoryError",
    "RunError",
    "SampleCountError",
    "SaveError",
    "SessionOpenError",
    "SilentSingletonsError",
    "SliceError",
    "SlurmError",
    "StateError",
    "StorageAwayError",
    "TrackingClosedError",
    "UntrackableError",
    "UsageError",
    "WorldSizeError",
]


class HpcresumeError(Exception):
    """Base of every error: `what` happened, `where`, and what to `hint` at trying.

    Attributes:
        what: one sentence, what happened.
        where: the file, tensor path, rank or option concerned, or "".
        hint: what the user can do about it, or "".
        exit_code: what the command line exits with when this error ends it.
    """

    exit_code = 70

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what, where, hint)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        where = f" ({self.where})" if self.where else ""
        hint = f"; try: {self.hint}" if self.hint else ""
        return f"{self.what}{where}{hint}"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), dict(vars(self))))


def _rebuild(kind: type[HpcresumeError], fields: dict[str, object]) -> HpcresumeError:
    error = kind(str(fields["what"]), where=str(fields["where"]), hint=str(fields["hint"]))
    vars(error).update(fields)
    return error


class ConfigError(HpcresumeError):
    """A value the user gave is wrong."""

    exit_code = 78


class NonFiniteError(ConfigError):
    """A number is NaN or infinite where none may be."""


class UsageError(HpcresumeError):
    """The API was called in the wrong order."""

    exit_code = 64


class SessionOpenError(UsageError):
    """A second session was opened in one process."""


class TrackingClosedError(UsageError):
    """`track` was called after `steps` began."""


class StateError(HpcresumeError):
    """The state cannot be saved, or does not fit what is saved."""

    exit_code = 65


class UntrackableError(StateError):
    """A value of a kind that is refused; `where` is its path in the tree."""


class RankStructureError(StateError):
    """Ranks hold trees of different shape; `where` names the rank and the path."""


class SliceError(StateError):
    """Slices of a global array overlap, leave a hole, or do not fit."""


class ModelChangedError(StateError):
    """The state to restore into has missing, extra or reshaped tensors, all of them named."""


class WorldSizeError(StateError):
    """Rank-local state was saved by another number of ranks."""


class SampleCountError(StateError):
    """The data set has another length than the one whose position was saved."""


class RestoreMismatchError(StateError):
    """An object took its saved state and then reported another one."""


class RunError(HpcresumeError):
    """Something is wrong with the run directory."""

    exit_code = 73


class RunDirectoryError(RunError):
    """The run directory is missing, read-only, unwritable, or not a run."""


class FormatVersionError(RunError):
    """The run was written by another format version."""


class RunBusyError(RunError):
    """Another live job holds the run."""


class CheckpointError(HpcresumeError):
    """Something is wrong with a generation."""

    exit_code = 74


class SaveError(CheckpointError):
    """A generation was not committed; earlier ones are untouched."""


class NoSpaceError(SaveError):
    """The filesystem is full, or a quota is reached."""


class GenerationConflictError(SaveError):
    """A generation of the same step and attempt exists with other content."""


class FencedError(SaveError):
    """A newer attempt of the run has begun; this one may not commit any more."""


class DamagedError(CheckpointError):
    """Bytes of a generation do not match their digest.

    Attributes:
        generation: name of the generation.
        tensor: name of the tensor, or "" for metadata.
        offset: byte offset in the file of the first bad unit, or -1.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        hint: str = "",
        generation: str = "",
        tensor: str = "",
        offset: int = -1,
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.generation = generation
        self.tensor = tensor
        self.offset = offset


class StorageAwayError(CheckpointError):
    """The storage does not answer now. That says nothing of what lies on it: no generation is given up for it."""


class NoGenerationError(CheckpointError):
    """Nothing was ever committed in this run."""


class NoUsableGenerationError(CheckpointError):
    """Generations exist and none of them verifies; never a silent start from zero."""


class RanksError(HpcresumeError):
    """Something is wrong with the ranks or their backend."""

    exit_code = 71


class SilentSingletonsError(RanksError):
    """N processes were started and each believes to be alone."""


class RanksMissingError(RanksError):
    """A collective was not reached by every rank in time; the missing ones are named."""


class PeerFailureError(RanksError):
    """Another rank failed."""


class SlurmError(HpcresumeError):
    """A Slurm command is missing, hangs, fails, or answers garbage."""

    exit_code = 69


class ClusterError(SlurmError):
    """A Slurm of this machine's own (`hpcresume minislurm`) cannot start, or is not what it was."""


class HpcresumeWarning(UserWarning):
    """Base of every warning that goes through `warnings`."""


class DamageWarning(HpcresumeWarning):
    """A generation was damaged and an older one was used instead."""
