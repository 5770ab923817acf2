"""How an error looks on the command line: what happened, where, what to try, and its exit code.

Knows the error tree and click's own errors; decides nothing else.
"""

from __future__ import annotations

import json
import traceback as tracebacks
from dataclasses import dataclass, replace

import click

from hpcresume.cli.output import OutputError, printable
from hpcresume.errors import HpcresumeError
from hpcresume.io.hints import hint_for

__all__ = ["EXIT_OUTPUT", "Shown", "complain", "describe", "show_error"]

EXIT_USAGE = 2
"""Wrong command line: what click and argparse use."""
EXIT_IO = 74
"""EX_IOERR of sysexits.h: an operating system error that no layer below turned into a typed one."""

EXIT_OUTPUT = 72
"""EX_OSFILE of sysexits.h: standard output is closed or cannot be written. No error of ours has this code."""


@dataclass(frozen=True)
class Shown:
    """What is shown of an error, whatever its kind."""

    kind: str
    what: str
    where: str
    hint: str
    exit_code: int


def describe(error: HpcresumeError | click.ClickException | OSError) -> Shown:
    """Reduce any error that the command line shows to the same five things."""
    kind = type(error).__name__
    if isinstance(error, HpcresumeError):
        return Shown(kind, error.what, error.where, error.hint, error.exit_code)
    if isinstance(error, click.ClickException):
        verb = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "hpcresume"
        what = error.format_message().rstrip(".")
        return Shown(kind, what, verb, f"{verb} --help", EXIT_USAGE)
    what = error.strerror or str(error)
    if isinstance(error, OutputError):
        return Shown(kind, what, "standard output", hint_for(error.errno, otherwise="> FILE, or | cat"), EXIT_OUTPUT)
    hint = hint_for(error.errno, otherwise="--traceback shows where this came from")
    return Shown(kind, what, str(error.filename or ""), hint, EXIT_IO)


def show_error(error: HpcresumeError | click.ClickException | OSError, *, as_json: bool, traceback: bool) -> int:
    """Show an error on stderr (and as one JSON object on stdout when asked); return its exit code."""
    shown = describe(error)
    if traceback:
        click.echo("".join(tracebacks.format_exception(error)), err=True, nl=False)
    _echo(shown)
    if as_json and not isinstance(error, OutputError):
        fields = {"kind": shown.kind, "what": shown.what, "where": shown.where, "try": shown.hint}
        click.echo(json.dumps({"error": fields, "exit_code": shown.exit_code}))
    return shown.exit_code


def complain(error: HpcresumeError) -> int:
    """Show what went wrong beside a result that is shown all the same; return the exit code."""
    shown = describe(error)
    _echo(replace(shown, what=printable(shown.what), where=printable(shown.where), hint=printable(shown.hint)))
    return shown.exit_code


def _echo(shown: Shown) -> None:
    click.echo(f"error: {shown.what}", err=True)
    if shown.where:
        click.echo(f"where: {shown.where}", err=True)
    if shown.hint:
        click.echo(f"try:   {shown.hint}", err=True)
