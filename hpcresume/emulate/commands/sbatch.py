"""sbatch: reads the script and its options, puts the job in the queue."""

from __future__ import annotations

import time

from hpcresume.emulate.commands.call import Call, Reply, ScriptText, Wanted
from hpcresume.emulate.controller import Controller
from hpcresume.emulate.getopt_long import OptionError, read_options
from hpcresume.emulate.option_tables import SBATCH
from hpcresume.emulate.sbatch_request import on_nodes_here, read_submission

__all__ = ["sbatch"]


class _Needs(Exception):
    """Somebody who sees the caller's files must read the script first."""

    def __init__(self, wanted: Wanted) -> None:
        super().__init__(wanted)
        self.wanted = wanted


def sbatch(call: Call, controller: Controller) -> Reply:
    """Submit a script."""
    if any(name in ("version", "help", "usage") for name, _ in read_options(call.words, SBATCH, program="sbatch")[0]):
        return _about(call, controller)

    def read(wanted: Wanted) -> ScriptText:
        if call.script is None:
            raise _Needs(wanted)
        return call.script

    try:
        submission = read_submission(call.words, call.environ, cwd=call.cwd, now=time.time(), read=read)
        if submission.test_only:
            return Reply(err="sbatch: Job would start now\n")
        request, note = on_nodes_here(submission.request, controller.nodes)
        jobs = controller.submit(request)
    except _Needs as needs:
        return Reply(wanted=needs.wanted)
    except OptionError as error:
        return Reply(err=error.text, code=error.code)
    number = jobs[0].number if jobs[0].array is None else jobs[0].array
    text = f"{number}\n" if submission.parsable else f"Submitted batch job {number}\n"
    wait = tuple(job.number for job in jobs) if submission.wait else ()
    out = "" if submission.quiet and not submission.parsable else text
    return Reply(out=out, err=f"sbatch: {note}\n" if note else "", wait_for=wait)


def _about(call: Call, controller: Controller) -> Reply:
    if any(word in ("-V", "--version") for word in call.words):
        return Reply(out=f"slurm {controller.settings.slurm}\n")
    return Reply(out="Usage: sbatch [OPTIONS(0)...] [ : [OPTIONS(N)...]] script(0) [args(0)...]\n")
