"""The job that we are in, submitted once more: its script, what it asked for and got, its log, and what it is told.

What we have changed of it ourselves is not what its user asked for: nodes that we keep off, a comment of ours, and a
limit that Slurm has lowered.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from hpcresume.config.slurm_options import parse_time_limit, slurm_time
from hpcresume.errors import HpcresumeError
from hpcresume.io.outputs import output_files
from hpcresume.io.paths import RunPaths
from hpcresume.launch.hands import Hands
from hpcresume.launch.journal import say
from hpcresume.launch.notes import MARK, Notes, read_notes
from hpcresume.launch.patience import look
from hpcresume.policy.job_facts import JobFacts
from hpcresume.slurm.accounting import asked_on_command_line
from hpcresume.slurm.asked import Asked, asked_for
from hpcresume.slurm.changes import expand_nodes
from hpcresume.slurm.commands import may_pass
from hpcresume.slurm.environment import SlurmEnvironment
from hpcresume.slurm.resubmit import batch_script, names_time, same_again, submit_again, working_directory
from hpcresume.slurm.sibling_list import can_note, told_behind
from hpcresume.slurm.submission import longest_time

__all__ = ["OnceMore", "submit_once_more"]

RETRY = 30.0
"""Seconds between two tries at a controller that does not answer."""
SUBMITIT = "submitit.core._submit"
"""In a batch script of submitit's, which finds the function, and puts the results, by the number of its job."""


@dataclass(frozen=True)
class OnceMore:
    """What is submitted.

    Attributes:
        slurm: the job.
        run: its run.
        why: what the new job is for.
        of: the job that it stands behind.
        words: further options of sbatch, which win over what the job got.
        full_limit: its full time limit, should Slurm have lowered it to its `--time-min`; "": not known.
        exclude: the nodes to keep off, the user's own and those that are suspect; None: the user's own.
        until: a controller that does not answer is asked again until then.
        known: what Slurm said of the job before, where there is no time to ask for what can be done without.
    """

    slurm: SlurmEnvironment
    run: RunPaths
    why: str
    of: str
    words: Sequence[str] = ()
    full_limit: str = ""
    exclude: str | None = None
    until: float = 0.0
    known: JobFacts | None = None


def submit_once_more(wanted: OnceMore, hands: Hands) -> str | None:
    """The new job's number; None, and said, when it cannot be submitted.

    The new job is told in its environment what it is for: what a file says may not be visible on its node yet. All
    tries are made with one script file (0600), by whose path a job is known that was made though nobody said so.
    """
    if not can_note(wanted.run.root, wanted.why, wanted.of):
        say("another job cannot be submitted: nobody would know of it")
        return None
    try:
        with tempfile.NamedTemporaryFile("w", prefix="hpcresume-", suffix=".sbatch") as script:
            return _until_answered(wanted, hands, script)
    except OSError as error:
        say(f"another job cannot be submitted: {error}")
        return None


def _until_answered(wanted: OnceMore, hands: Hands, script: IO[str]) -> str | None:
    options: list[str] | None = None
    tried = False
    while True:
        try:
            if options is None:
                options = _prepare(wanted, hands, script)
            if options is None:
                return None
            number = submit_again(Path(script.name), options, tried=tried, execute=hands.execute, sleep=hands.sleep)
        except HpcresumeError as error:
            tried = options is not None
            if not may_pass(str(error)) or hands.clock() >= wanted.until:
                say(f"another job cannot be submitted: {error}")
                return None
            say(f"{error}; asking again in {RETRY:g} s")
            hands.sleep(RETRY)
        else:
            task = hands.environ.get("SLURM_ARRAY_TASK_ID")
            return f"{number}_{task}" if task else number


def _prepare(wanted: OnceMore, hands: Hands, script: IO[str]) -> list[str] | None:
    """Write the script and gather sbatch's options; None, and said, for a job that cannot go on as another one."""
    job_id = wanted.slurm.job_id or ""
    text = batch_script(job_id, execute=hands.execute, sleep=hands.sleep)
    if SUBMITIT in text:
        say("another job cannot go on instead: submitit knows this one by its number")
        return None
    directory = working_directory(job_id, execute=hands.execute, sleep=hands.sleep)
    asked = asked_for(job_id, execute=hands.execute, sleep=hands.sleep)
    notes = read_notes(wanted.run.root)
    notes = notes if notes.job_id == job_id else Notes()
    hurry = wanted.known is not None
    facts = wanted.known if hurry else look(job_id, hands)
    limit = _that_fits(_limit(wanted, asked, text, facts), wanted.words, hands)
    mine = [*limit, *_requeue(facts), *([] if hurry else _signal(job_id, hands)), *_comment(asked, notes)]
    told = told_behind(hands.environ.get("SLURM_EXPORT_ENV", "ALL"), wanted.why, wanted.of)
    script.write(text)
    script.flush()
    asked = _with_excluded(asked, wanted.exclude) if wanted.exclude is not None else _as_theirs(asked, notes, hands)
    return [*same_again(hands.environ, directory, asked), *mine, *_same_log(), told, *wanted.words]


def _limit(wanted: OnceMore, asked: Asked, script: str, facts: JobFacts | None) -> list[str]:
    """The time limit. A job with `--time-min` may have had it lowered for this start alone."""
    words = [f"--time-min={slurm_time(facts.least)}"] if facts is not None and facts.least is not None else []
    if facts is not None and facts.least is not None and facts.limit is not None and facts.limit <= facts.least:
        if wanted.full_limit:
            return [*words, f"--time={wanted.full_limit}"]
        if names_time(script):
            return words
    # Without a limit there is nothing to ask for: it may be the partition's own.
    return [*words, f"--time={asked.time}"] if asked.time not in ("", "UNLIMITED") else words


def _that_fits(limit: list[str], words: Sequence[str], hands: Hands) -> list[str]:
    """The limit, where another partition is asked for at most that one's: a longer job would wait there for ever."""
    name = next((word.partition("=")[2] for word in words if word.startswith("--partition=")), "")
    most = longest_time(name, execute=hands.execute) if name else None
    if most is None:
        return limit
    named = [word.partition("=")[::2] for word in limit]
    return [f"{option}={slurm_time(min(most, parse_time_limit(value) or most))}" for option, value in named]


def _requeue(facts: JobFacts | None) -> list[str]:
    """May it be requeued, as far as that is known?"""
    words = {True: ["--requeue"], False: ["--no-requeue"], None: []}
    return words[facts.requeueable if facts is not None else None]


def _signal(job_id: str, hands: Hands) -> list[str]:
    """The warning that was asked for beside the script, which accounting alone knows."""
    asked = asked_on_command_line(job_id, execute=hands.execute, sleep=hands.sleep)
    return [] if asked is None else [f"--signal={'B:' * asked.batch}{asked.name}@{asked.lead:.0f}"]


def _comment(asked: Asked, notes: Notes) -> list[str]:
    comment = notes.comment if notes.comment is not None else asked.comment
    return [f"--comment={comment}"] if comment and comment.isprintable() and not comment.startswith(MARK) else []


def _as_theirs(asked: Asked, notes: Notes, hands: Hands) -> Asked:
    """Without the nodes that we keep the job off: how long they stay suspect is for the run to know."""
    if not notes.excluded or "exclude" not in asked.known:
        return asked
    nodes = expand_nodes(asked.known["exclude"], execute=hands.execute, sleep=hands.sleep)
    return _with_excluded(asked, ",".join(node for node in nodes or () if node not in notes.excluded))


def _with_excluded(asked: Asked, nodes: str) -> Asked:
    known = {name: value for name, value in asked.known.items() if name != "exclude"}
    return replace(asked, known={**known, "exclude": nodes} if nodes else known)


def _same_log() -> list[str]:
    """One log for all jobs of the run: the file that this batch step writes, whatever pattern it was made from."""
    logs = [str(each["path"]) for each in output_files()]
    if not logs or not all(path.isprintable() for path in logs):
        return []
    names = zip(("--output", "--error"), logs, strict=False)
    return ["--open-mode=append", *(f"{name}={path.replace('%', '%%')}" for name, path in names)]
