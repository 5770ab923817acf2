"""The whole look, in an order in which what is quick comes first; each part gives its findings as they are there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hpcresume.errors import HpcresumeError, RunDirectoryError, SlurmError
from hpcresume.ops.doctor.cluster import cluster_findings, job_findings
from hpcresume.ops.doctor.finding import Finding, bad, ok, unknown
from hpcresume.ops.doctor.given import given_time, qos_if_it_counts
from hpcresume.ops.doctor.mounts import kind_finding, mount_of
from hpcresume.ops.doctor.mpi import PROGRAM, hdf5_finding, library_finding, try_start, world_findings
from hpcresume.ops.doctor.node_program import facts
from hpcresume.ops.doctor.nodes import Survey, node_findings, step_words, survey
from hpcresume.ops.doctor.storage import (
    nearest_folder,
    rename_finding,
    scratch,
    space_finding,
    speed_findings,
    time_finding,
)
from hpcresume.ops.doctor.subject import Subject
from hpcresume.ops.doctor.timing import time_findings
from hpcresume.slurm.configuration import Configuration, read_configuration
from hpcresume.slurm.environment import SlurmEnvironment
from hpcresume.slurm.submission import Partition, partition

__all__ = ["Bounds", "examine", "job_part"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class Bounds:
    """How much the look at the filesystem may write, and for about how many seconds; 0 bytes: it writes nothing."""

    nbytes: int = 64 << 20
    seconds: float = 5.0


def examine(subject: Subject, bounds: Bounds, say: Say) -> Iterator[Finding]:
    """Look at everything.

    Args:
        subject: the run, the folder, or this place.
        bounds: of what is written.
        say: told what is done, before what may take a while.

    Raises:
        RunDirectoryError: the folder cannot be used at all.
    """
    slurm = SlurmEnvironment.from_environ(os.environ)
    yield from _slurm_part(subject)
    yield _environment()
    yield hdf5_finding()
    say("starting ranks by MPI")
    alone = library_finding(try_start(PROGRAM, {}))
    yield alone
    if alone.verdict == "ok":
        yield from world_findings(slurm, srun_offers=shutil.which("srun") is not None)
    yield from _folder_part(subject, bounds, slurm, say)


def _slurm_part(subject: Subject) -> Iterator[Finding]:
    """What Slurm's commands tell, and what that leaves for a save."""
    if shutil.which("scontrol") is None:
        what = "there is no scontrol here: this is no machine with Slurm's commands"
        hint = "on a login node this tells more; here everything works but the queue (hpcresume emulate plays one)"
        yield unknown("slurm", "Slurm", what, hint)
        yield from time_findings(subject.measured, mode="", grace=None, kill_wait=None, asked=None, limited=False)
        return
    found, refusal = _configuration()
    if found is None:
        yield refusal
    wanted = subject.partition or os.environ.get("SLURM_JOB_PARTITION")
    part = None
    if found is not None:
        part, other = _partition(wanted)
        if other is not None:
            yield other
        yield from cluster_findings(found, part)
    if subject.job is not None:
        yield from job_findings(subject.requeueable, subject.job.id)
    qos = qos_if_it_counts(found, subject.job.id) if found is not None and subject.job is not None else None
    given = given_time(found, part, qos)
    yield from time_findings(
        subject.measured,
        mode=given.mode,
        grace=given.grace,
        kill_wait=given.kill_wait,
        asked=subject.lead,
        limited=subject.job is not None and subject.job.end is not None,
    )


def _configuration() -> tuple[Configuration | None, Finding]:
    try:
        return read_configuration(), ok("slurm", "configuration", "scontrol shows it")
    except SlurmError as error:
        return None, unknown("slurm", "configuration", error.what, "is slurmctld up? scontrol ping")


def _partition(name: str | None) -> tuple[Partition | None, Finding | None]:
    try:
        found = partition(name)
    except SlurmError as error:
        return None, unknown("slurm", "partition", error.what, "sinfo")
    if found is not None:
        return found, None
    if name is None:
        return None, unknown("slurm", "partition", "there is no default partition", "hpcresume doctor --partition NAME")
    return None, bad("slurm", "partition", f"there is no partition {name}", "sinfo lists them")


def _environment() -> Finding:
    seen = facts()
    versions = ", ".join(f"{name} {version or 'not installed'}" for name, version in seen["versions"].items())
    return ok("environment", "environment", f"Python {seen['python']}, {versions}")


def job_part(folder: Path, slurm: SlurmEnvironment) -> tuple[list[Finding], dict[str, float]]:
    """What only a job can tell: its MPI, and its nodes, which meet in `folder`; and how far ahead each node's clock is.

    Raises:
        OSError: the folder cannot be used.
    """
    library = library_finding(try_start(PROGRAM, {}))
    found = [replace(library, name="library on a node")]
    if library.verdict == "ok":
        found += world_findings(slurm, srun_offers=shutil.which("srun") is not None)
    answers, seen = _meet(folder, slurm)
    found.append(kind_finding(mount_of(folder), many_nodes=True, seen_by_others=seen))
    found += node_findings(answers, facts(), in_job=True)
    return found, {node.host: node.skew for node in answers.nodes}


def _meet(meeting: Path, slurm: SlurmEnvironment) -> tuple[Survey, bool | None]:
    """Every node of the job, or another process here; and whether other nodes, if any, saw what we wrote."""
    count = slurm.nnodes or 1
    by_srun = slurm.in_job and shutil.which("srun") is not None
    answers = survey(meeting, step_words(count) if by_srun else (), count if by_srun else 1)
    seen = not answers.problem and len(answers.nodes) == count
    return answers, seen if by_srun and count > 1 else None


def _folder_part(subject: Subject, bounds: Bounds, slurm: SlurmEnvironment, say: Say) -> Iterator[Finding]:
    """The filesystem of the folder, and the nodes, which meet on it."""
    try:
        folder = nearest_folder(subject.path)
    except RunDirectoryError as error:
        yield bad("folder", "folder", f"{error.what} ({error.where})", error.hint)
        return
    many = shutil.which("sbatch") is not None
    mount = mount_of(folder)
    if bounds.nbytes <= 0:
        yield kind_finding(mount, many_nodes=many)
        yield space_finding(folder, subject.measured.nbytes)
        return
    try:
        with scratch(folder) as place:
            yield from _tried(place, subject, bounds, slurm, say, many)
    except RunDirectoryError as error:
        yield bad("folder", "folder", f"{error.what} ({error.where})", error.hint)


def _tried(
    folder: Path, subject: Subject, bounds: Bounds, slurm: SlurmEnvironment, say: Say, many: bool
) -> Iterator[Finding]:
    mount = mount_of(folder)
    yield rename_finding(folder)
    yield time_finding(folder)
    yield space_finding(folder, subject.measured.nbytes)
    yield from speed_findings(folder, bounds.nbytes, bounds.seconds, subject.measured.nbytes, say)
    say(f"asking {slurm.nnodes or 1} nodes" if slurm.in_job else "asking another process")
    meeting = folder / "meeting"
    meeting.mkdir(mode=0o700)
    try:
        answers, seen = _meet(meeting, slurm)
    except (OSError, HpcresumeError, ValueError) as error:
        yield unknown("folder", "seen by others", f"could not be tried: {error}")
        return
    yield kind_finding(mount, many_nodes=many, seen_by_others=seen)
    yield from node_findings(answers, facts(), in_job=slurm.in_job)
    if many and seen is None:
        what = "whether all nodes have the same Python, packages and clock is not known: this is no job of several"
        yield unknown("environment", "alike on all nodes", what, "hpcresume doctor --probe, or run it in a job")
