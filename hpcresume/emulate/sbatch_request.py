"""From sbatch's command line, environment and script to one checked request. Pure but for the clock that is passed.

The command line wins over the environment, and that over the script's #SBATCH lines (sbatch(1)). Messages are
those of the real program, watched on 22.05.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from hpcresume.config.timetable import SignalPlan, parse_signal
from hpcresume.emulate import script_file
from hpcresume.emulate.commands.call import ScriptText, Wanted
from hpcresume.emulate.getopt_long import OptionError, read_options
from hpcresume.emulate.hostlist import compress, expand
from hpcresume.emulate.option_tables import SBATCH, SBATCH_ENVIRON
from hpcresume.emulate.request import ArrayPlan, JobRequest
from hpcresume.emulate.script import check_script, directives
from hpcresume.emulate.slurm_time import parse_begin, parse_limit
from hpcresume.errors import ConfigError

__all__ = ["Submission", "exported", "on_nodes_here", "parse_array", "read_here", "read_submission", "refused", "whole"]

MAX_ARRAY = 1001
"""MaxArraySize, slurm.conf(5): the highest index is one less."""
_NO = "no-requeue"
_HETEROGENEOUS = "heterogeneous jobs (hetjob, or : between options) are not known to the emulated cluster"
_SHOWN = ("account", "qos", "comment", "constraint", "mem", "mem-per-cpu", "gres", "gpus", "gpus-per-node",
          "gpus-per-task", "reservation", "licenses", "mail-type", "mail-user", "wckey")  # fmt: skip
_MEMORY = re.compile(r"[0-9]{1,15}[KMGTkmgt]?[bB]?")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9})(?::([0-9]{1,9}))?)?")


@dataclass(frozen=True)
class Submission:
    """A request, and how sbatch itself shall behave."""

    request: JobRequest
    parsable: bool = False
    wait: bool = False
    quiet: bool = False
    test_only: bool = False


def refused(text: str, code: int = 1) -> OptionError:
    """An error in sbatch's own form."""
    return OptionError(f"sbatch: error: {text}\n", code)


def read_here(wanted: Wanted) -> ScriptText:
    """Read a script in this process, when nobody else is the caller of sbatch."""
    path = None if wanted.name is None else script_file.find(wanted.name, wanted.directory, os.getcwd())
    return ScriptText(script_file.read(path), path)


def _script_of(
    pairs: Sequence[tuple[str, str | None]], rest: Sequence[str], cwd: str, read: Callable[[Wanted], ScriptText]
) -> tuple[str, str, list[str], str]:
    """The script's text, its path as shown, its arguments and the job's default name.

    Raises:
        OptionError: it cannot be read, or is none.
    """
    values = dict(pairs)
    if "wrap" in values:
        if rest:
            raise refused("Script arguments not permitted with --wrap option")
        return f"#!/bin/sh\n# This script was created by sbatch --wrap.\n\n{values['wrap']}\n", "(null)", [], "wrap"
    if ":" in rest[:1]:
        raise refused(_HETEROGENEOUS)
    found = read(Wanted(rest[0] if rest else None, os.path.normpath(os.path.join(cwd, values.get("chdir") or ""))))
    if found.text is None:
        raise refused(f"Unable to open file {rest[0] if rest else '/dev/stdin'}")
    if found.path is None:
        return found.text, "(null)", [], "sbatch"
    return found.text, found.path, list(rest[1:]), found.path.rpartition("/")[2]


def read_submission(
    words: Sequence[str],
    environ: Mapping[str, str],
    *,
    cwd: str,
    now: float,
    read: Callable[[Wanted], ScriptText] = read_here,
) -> Submission:
    """Read one call of sbatch.

    Args:
        words: its command line.
        environ: its environment.
        cwd: its directory.
        now: unix seconds, for `--begin`.
        read: finds and reads the script, where there is one to be read.

    Raises:
        OptionError: as sbatch refuses it.
    """
    given, rest = read_options(words, SBATCH, program="sbatch")
    text, shown, arguments, name = _script_of(given, rest, cwd, read)
    check_script(text)
    inside = [] if "wrap" in dict(given) else _directives(text)
    outside = [(option, environ[key]) for key, option in SBATCH_ENVIRON.items() if key in environ]
    values = _merge(inside, outside, given)
    request = _request(values, environ, cwd=cwd, now=now, name=name)
    request = dataclasses.replace(
        request, script=text, command=" ".join([shown, *arguments]), arguments=tuple(arguments)
    )
    return Submission(
        request, "parsable" in values, "wait" in values, "quiet" in values, test_only="test-only" in values
    )


def _directives(text: str) -> list[tuple[str, str | None]]:
    """The options of the script's #SBATCH lines."""
    words = directives(text)
    if "hetjob" in words or "packjob" in words:
        raise refused(_HETEROGENEOUS)
    pairs, rest = read_options(words, SBATCH, program="sbatch")
    if rest:
        raise refused(f"Invalid directive found in batch script: {rest[0]}", 255)
    return pairs


def _merge(*sources: Sequence[tuple[str, str | None]]) -> dict[str, str]:
    """Later ones win; an option without argument is "" ."""
    values: dict[str, str] = {}
    for source in sources:
        for name, value in source:
            if name in ("requeue", _NO):
                values.pop("requeue", None)
                values.pop(_NO, None)
            values[name] = value or ""
    return values


def _request(values: Mapping[str, str], environ: Mapping[str, str], *, cwd: str, now: float, name: str) -> JobRequest:
    """The checked request, without its script."""
    nodes, most = _nodes(values.get("nodes"))
    _check_memory(values)
    directory = os.path.normpath(os.path.join(cwd, values.get("chdir", "")))
    limit = _limit(values.get("time"))
    return JobRequest(
        name=values.get("job-name") or name,
        script="",
        directory=directory,
        submit_directory=cwd,
        environ=exported(values.get("export"), environ),
        nodes=nodes,
        nodes_most=most,
        ntasks=_number(values, "ntasks"),
        ntasks_per_node=_number(values, "ntasks-per-node"),
        cpus_per_task=_number(values, "cpus-per-task"),
        exclusive="exclusive" in values,
        nodelist=_hosts(values.get("nodelist")),
        exclude=_hosts(values.get("exclude")),
        partition=values.get("partition", ""),
        time_limit=limit,
        unlimited="time" in values and limit is None,
        signal=_signal(values.get("signal")),
        output=values.get("output"),
        error=values.get("error"),
        input=values.get("input"),
        append=_open_mode(values.get("open-mode")),
        requeue=True if "requeue" in values else False if _NO in values else None,
        array=parse_array(values["array"]) if values.get("array") else None,
        dependency=values.get("dependency", ""),
        begin=_begin(values.get("begin"), now),
        hold="hold" in values,
        nice=_nice(values),
        overcommit="overcommit" in values,
        kill_on_invalid_dependency=values.get("kill-on-invalid-dep") == "yes",
        shown={key: values[key] for key in _SHOWN if values.get(key)},
    )


def whole(text: str) -> int | None:
    """A number of ASCII digits that fits an int of 31 bits, else None."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 9 else None


def _number(values: Mapping[str, str], name: str) -> int | None:
    if name not in values:
        return None
    number = whole(values[name])
    if not number:
        raise refused(f'Invalid numeric value "{values[name]}" for --{name}.')
    return number


def _nodes(text: str | None) -> tuple[int | None, int | None]:
    if text is None:
        return None, None
    low, dash, high = text.partition("-")
    least, most = whole(low), whole(high) if dash else None
    if not least or (dash and (not most or most < least)):
        raise refused(f"invalid number of nodes (-N {text})")
    return least, most


def _limit(text: str | None) -> float | None:
    try:
        return None if text is None else parse_limit(text)
    except ValueError:
        raise refused("Invalid --time specification", 255) from None


def _begin(text: str | None, now: float) -> float | None:
    try:
        return None if text is None else parse_begin(text, now)
    except ValueError:
        raise refused("Invalid --begin specification", 255) from None


def _signal(text: str | None) -> SignalPlan | None:
    if text is None:
        return None
    try:
        plan = parse_signal(text)
    except ConfigError:
        plan = None
    if plan is None:
        raise refused("Invalid --signal specification", 255)
    return plan


def _open_mode(text: str | None) -> bool | None:
    if text is None:
        return None
    if text not in ("append", "truncate"):
        raise refused("Invalid --open-mode specification", 255)
    return text == "append"


def _hosts(text: str | None) -> tuple[str, ...]:
    try:
        return () if text is None else expand(text)
    except ValueError:
        raise refused("Batch job submission failed: Invalid node name specified") from None


def _nice(values: Mapping[str, str]) -> int:
    if "nice" not in values:
        return 0
    text = values["nice"] or "100"
    number = whole(text.removeprefix("-"))
    if number is None:
        raise refused("Invalid --nice value", 255)
    return -number if text.startswith("-") else number


def _check_memory(values: Mapping[str, str]) -> None:
    for name in ("mem", "mem-per-cpu", "mem-per-gpu"):
        if name in values and not _MEMORY.fullmatch(values[name]):
            raise refused(f"Invalid --{name} specification", 255)


def on_nodes_here(request: JobRequest, names: Collection[str]) -> tuple[JobRequest, str]:
    """The request without nodes that are not `names`, and a note that says so, "" without any.

    A script that names nodes of its cluster shall run elsewhere too: as many nodes, whatever they are called.
    """
    strange = [name for name in (*request.nodelist, *request.exclude) if name not in names]
    if not strange:
        return request, ""
    known = dataclasses.replace(
        request,
        nodelist=tuple(name for name in request.nodelist if name in names),
        exclude=tuple(name for name in request.exclude if name in names),
        nodes=request.least_nodes if request.nodelist else request.nodes,
    )
    listed = compress(dict.fromkeys(strange))
    return known, f"no node of the emulated cluster is called {listed}: left out of --nodelist and --exclude"


def parse_array(text: str) -> ArrayPlan:
    """`1-10%2`, `1,3,5`, `0-15:4` (sbatch(1), --array).

    Raises:
        OptionError: no such form, or an index above MaxArraySize.
    """
    wrong = refused("Batch job submission failed: Invalid job array specification")
    items, percent, limit = text.partition("%")
    tasks: set[int] = set()
    for item in items.split(","):
        match = _RANGE.fullmatch(item)
        if match is None:
            raise wrong
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        if last < first or step < 1 or last >= MAX_ARRAY:
            raise wrong
        tasks |= set(range(first, last + 1, step))
    most = whole(limit) if percent else 0
    if most is None or (percent and most == 0):
        raise wrong
    return ArrayPlan(tuple(sorted(tasks)), most, text)


def exported(wish: str | None, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that --export lets through: ALL (default), NONE, NIL, or names and NAME=value."""
    if wish is None or wish == "ALL":
        return dict(environ)
    passing = {key: text for key, text in environ.items() if key.startswith(("SLURM_", "SPANK_"))}
    if wish in ("NONE", "NIL"):
        return passing
    for item in _export_items(wish):
        name, equals, value = item.partition("=")
        if name == "ALL" and not equals:
            passing = {**environ, **passing}
        elif equals:
            passing[name] = value
        elif name in environ:
            passing[name] = environ[name]
    return passing


def _export_items(wish: str) -> list[str]:
    """Items between commas; a value may be quoted to hold commas (sbatch(1), --export)."""
    items, item, quote = [], "", ""
    for char in wish:
        if quote:
            quote, item = ("", item) if char == quote else (quote, item + char)
        elif char in "'\"":
            quote = char
        elif char == ",":
            items.append(item)
            item = ""
        else:
            item += char
    return [each for each in [*items, item] if each]
