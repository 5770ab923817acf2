"""scancel: ends jobs, or sends them a signal (scancel(1))."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Sequence

from hpcresume.emulate.commands.call import Call, Reply
from hpcresume.emulate.commands.fields import STATES
from hpcresume.emulate.commands.filters import by_option, users_of
from hpcresume.emulate.controller import Controller
from hpcresume.emulate.getopt_long import OptionError, read_options
from hpcresume.emulate.jobs import Job
from hpcresume.emulate.option_tables import SCANCEL

__all__ = ["scancel", "signal_of"]

_ID = re.compile(r"([0-9]{1,10}(?:_(?:\[[0-9,-]+\]|[0-9]{1,9}|\*))?)(?:\.([0-9]{1,9}|batch))?")
_UNTOLD = frozenset({"nodelist", "wckey", "reservation"})
"""What jobs here have none of: a filter that were passed over would cancel every job."""


def signal_of(text: str) -> signal.Signals | None:
    """USR1, SIGUSR1, usr1 or 10."""
    try:
        return (
            signal.Signals(int(text)) if text.isdecimal() else signal.Signals["SIG" + text.upper().removeprefix("SIG")]
        )
    except (KeyError, ValueError):
        return None


def scancel(call: Call, controller: Controller) -> Reply:
    """Cancel or signal."""
    try:
        pairs, rest = read_options(call.words, SCANCEL, program="scancel", permute=True)
    except OptionError as error:
        return Reply(err=error.text, code=1)
    options = {name: value or "" for name, value in pairs}
    if "version" in options:
        return Reply(out=f"slurm {controller.settings.slurm}\n")
    number = signal_of(options["signal"]) if "signal" in options else None
    if "signal" in options and number is None:
        return Reply(err=f"Unknown job signal: {options['signal']}\n", code=1)
    untold = sorted(_UNTOLD & options.keys())
    if untold:
        return Reply(err=f"scancel: error: --{untold[0]} is not known to the emulated cluster\n", code=1)
    users = users_of(options.get("user", str(os.getuid())))
    if users.unknown:
        return Reply(err=f"scancel: error: Invalid user name: {users.unknown}\n", code=1)
    filters = {"user", "me", "jobname", "name", "partition", "state", "account", "qos"} & options.keys()
    if not rest and not filters:
        return Reply(err="scancel: error: No job identification provided\n", code=1)
    targets = _targets(rest, controller)
    if isinstance(targets, Reply):
        return targets
    if not rest:
        targets = [(job, None) for job in controller.jobs.values()]
    for job, step in targets:
        if not job.over and users.mine and _chosen(job, options):
            _deliver(job, step, number, options, controller)
    return Reply()


def _targets(words: Sequence[str], controller: Controller) -> list[tuple[Job, str | None]] | Reply:
    """The jobs and steps that are named. One that does not exist, or is over, is passed over in silence."""
    targets: list[tuple[Job, str | None]] = []
    for word in [part for text in words for part in re.split(r"[,\s](?![^\[]*\])", text) if part]:
        match = _ID.fullmatch(word)
        if match is None:
            return Reply(err=f"scancel: error: Invalid job id {word}\n", code=1)
        targets += [(job, match[2]) for job in controller.find(match[1])]
    return targets


def _chosen(job: Job, options: dict[str, str]) -> bool:
    if not by_option(options, "account", "qos")(job):
        return False
    name = options.get("jobname") or options.get("name")
    if name is not None and job.request.name not in name.split(","):
        return False
    if "partition" in options and job.partition.name not in options["partition"].split(","):
        return False
    if "state" in options:
        codes = {code: full for full, code in STATES.items()}
        states = {codes.get(text.upper(), text.upper()) for text in options["state"].split(",")}
        return job.state in states
    return True


def _deliver(
    job: Job, step: str | None, number: signal.Signals | None, options: dict[str, str], controller: Controller
) -> None:
    """Without a signal or with KILL the job ends; else who gets it is in the table of `docs/EMULATOR.md`."""
    batch, full = "batch" in options or step == "batch", "full" in options
    if step is not None and step != "batch":
        controller.runner.signal_step(job, int(step), number or signal.SIGTERM, ends=number in (None, signal.SIGKILL))
        return
    if number is None or (number is signal.SIGKILL and not batch):
        controller.cancel(job)
        return
    if job.running:
        controller.runner.send_signal(job, number, batch=batch, full=full)
