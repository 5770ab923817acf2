"""The `hpcresume` command: finds the verb, runs it, and is the one place that shows an error.

Owns no logic and imports no verb before it is asked for, so that `--help` stays fast.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from hpcresume.cli.errors import show_error
from hpcresume.cli.interrupts import words_and_code
from hpcresume.cli.output import checked_output
from hpcresume.errors import HpcresumeError

__all__ = ["VERBS", "LazyGroup", "cli", "main"]

VERBS: dict[str, tuple[str, str]] = {
    "cancel": ("hpcresume.cli.cancel:command", "End the job of a run for good; --save lets it save first."),
    "demo": ("hpcresume.cli.demo:command", "Show the whole thing on this machine: no Slurm needed."),
    "doctor": ("hpcresume.cli.doctor:command", "Look whether this place is fit for a run, check by check."),
    "drill": ("hpcresume.cli.drill:command", "Preempt a running job of yours, and report what was lost."),
    "emulate": ("hpcresume.cli.emulate:command", "Run a training under a small Slurm-like scheduler here."),
    "init": ("hpcresume.cli.init:command", "Begin: a job.yaml, a train.py and a script that run at once."),
    "inspect": ("hpcresume.cli.inspect:command", "Show what a generation holds: facts, tensors, values."),
    "launch": ("hpcresume.cli.launch:command", "Start, warn, watch and requeue the ranks of a batch job."),
    "logs": ("hpcresume.cli.logs:command", "Show the logs of a run, stitched over its attempts."),
    "ls": ("hpcresume.cli.ls:command", "List the generations of a run."),
    "minislurm": ("hpcresume.cli.minislurm:command", "Start a real Slurm of several nodes on this machine."),
    "render": ("hpcresume.cli.render:command", "Make the batch script of a job.yaml, or explain its values."),
    "requeue": ("hpcresume.cli.requeue:command", "Start a run again that was held or has ended."),
    "status": ("hpcresume.cli.status:command", "Tell what runs are doing and what happens next."),
    "submit": ("hpcresume.cli.submit:command", "Submit a job.yaml, by sbatch or submitit, after a preflight."),
    "verify": ("hpcresume.cli.verify:command", "Read every byte and compare it with its digest."),
    "watch": ("hpcresume.cli.watch:command", "Watch a run until it is done or needs somebody."),
    "why": ("hpcresume.cli.why:command", "Tell why each attempt of a run ended, with the evidence."),
}
"""Verb → ("module:attribute", one line for `--help`). The module is imported when the verb is used."""


class LazyGroup(click.Group):
    """A group whose verbs are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names of the verbs, in the order of the help."""
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return one verb, or None when there is no such verb."""
        if cmd_name not in VERBS:
            return None
        module, _, attribute = VERBS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; for one that does not exist, name the nearest that does."""
        if args[0] not in VERBS:
            import difflib

            near = difflib.get_close_matches(args[0], VERBS, n=1)
            if near:
                raise click.UsageError(f"No such verb {args[0]!r}; did you mean {near[0]}?", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of verbs from the table, without importing any."""
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, VERBS[verb][1]) for verb in sorted(VERBS)])


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        click.echo(f"hpcresume {version('hpcresume')}")
    except PackageNotFoundError:
        click.echo("hpcresume (not installed: run from a source tree)")
    ctx.exit()


@click.group(
    cls=LazyGroup,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 2 wrong command line, 64-78 one per family of errors, 72 no output, 75 come back, "
    "77 do not requeue, 130 Ctrl-C, 143 TERM. HPCRESUME_TRACEBACK=1 does what --traceback does.",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
              help="Print the version and exit.")  # fmt: skip
@click.option("--traceback", is_flag=True, expose_value=False,
              help="Show where in the code an error was raised (works after any verb too).")  # fmt: skip
def cli() -> None:
    """Collective checkpoint and resume for torch and MPI jobs on Slurm."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code. Never raises for what a user can cause.

    Words after `--` belong to the user's own program and are not looked at.
    """
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    end = words.index("--") if "--" in words else len(words)
    own, others = words[:end], words[end:]
    traceback = "--traceback" in own or os.environ.get("HPCRESUME_TRACEBACK", "") not in ("", "0")
    words = [word for word in own if word != "--traceback"] + others
    try:
        with checked_output(needed="launch" not in own):  # what that says, it says on standard error
            code = cli.main(args=words, prog_name="hpcresume", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except (HpcresumeError, click.ClickException, OSError) as error:
        return show_error(error, as_json="--json" in own, traceback=traceback)
    except (KeyboardInterrupt, click.Abort) as error:
        words_said, code = words_and_code(error)
        click.echo(words_said, err=True)
        return code
