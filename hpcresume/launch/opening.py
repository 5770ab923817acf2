"""The first lines of an attempt's record: what became of the attempt before it, and whether a person let it begin."""

from __future__ import annotations

from hpcresume.launch.closing import close_predecessor, closed_by
from hpcresume.launch.journal import Journal, say
from hpcresume.launch.options import LaunchOptions
from hpcresume.launch.predecessors import made_from
from hpcresume.launch.records import was_released
from hpcresume.launch.rendezvous import Claimed
from hpcresume.slurm.environment import SlurmEnvironment

__all__ = ["open_record"]


def open_record(
    journal: Journal, claimed: Claimed, slurm: SlurmEnvironment, options: LaunchOptions, *, supervised: bool = True
) -> None:
    """From now on the journal is the attempt's. An attempt before it that was cut off is closed.

    Args:
        journal: this start's.
        claimed: the attempt that it became.
        slurm: its job.
        options: what the user asked for.
        supervised: the attempts of this run have a supervisor beside them.
    """
    journal.attach(claimed.paths.supervisor)
    for each in made_from(options.after):
        journal.record("made-from", **each)
    restarted = slurm.job_id if slurm.restart_count > 0 else None
    try:
        before = close_predecessor(claimed.run, claimed.number, restarted_job=restarted, supervised=supervised)
        before = before or closed_by(claimed.run, claimed.number)
        if was_released(claimed.run, claimed.number, by_hand=options.release or restarted is None):
            journal.record("released")
    except OSError as error:
        say(f"the end of the attempt before cannot be recorded: {error}")
        return
    if before is not None:
        journal.record("predecessor", attempt=before.attempt, cause=before.cause.value)
