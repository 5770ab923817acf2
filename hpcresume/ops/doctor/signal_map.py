"""From what the processes of a probe wrote down to who hears what, and what to write into a batch script. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hpcresume.ops.doctor.finding import Finding, bad, ok, unknown, warn

__all__ = ["ACTORS", "Advice", "Heard", "Row", "advice", "map_findings", "parse_heard", "rows_of"]

AREA = "signals"
ACTORS: Final = ("batch shell", "its child", "ranks here", "ranks elsewhere", "their children")
"""The shell of the batch script, a process that it started, ranks on its node, those on other nodes, and processes that
ranks have started."""
SLACK = 0.2
"""Seconds by which clocks may be apart though they were compared."""
SIGNAL = "USR1"


@dataclass(frozen=True)
class Heard:
    """One process: its name (`srun-rank0`, `srun-rank0.child`, `batch`, `batch.child`), its node, what it heard."""

    name: str
    host: str
    signals: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Row:
    """One event, and how far it reached.

    Attributes:
        event: what was done.
        launcher: srun or mpiexec, by which the ranks were started.
        reached: actor → all, some or none of them; None where there was nobody of the kind.
        survived: did the launcher live on?
        words: why it could not be done, "" when it was.
        early: seconds before the time limit at which it came, of such an event.
    """

    event: str
    launcher: str
    reached: Mapping[str, str | None]
    survived: bool = True
    words: str = ""
    early: float | None = None


def parse_heard(name: str, text: str, skews: Mapping[str, float]) -> Heard:
    """Read the file of one process; what is no such line is passed over. Times are put into the batch node's."""
    host, found = "", []
    for line in text.splitlines():
        at, _, word = line.partition(" ")
        if word.startswith("START "):
            host = word.removeprefix("START ")
        elif at.replace(".", "", 1).isdecimal() and word.isalnum():
            found.append((float(at) - skews.get(host, 0.0), word))
    return Heard(name, host, tuple(found))


def rows_of(events: Sequence[Mapping[str, Any]], heard: Sequence[Heard], batch_host: str) -> tuple[Row, ...]:
    """The table: a row an event.

    Args:
        events: as the driver wrote them.
        heard: what every process wrote.
        batch_host: the node of the batch script.
    """
    rows = []
    for event in events:
        if "event" not in event:
            continue
        launcher, at = str(event.get("launcher")), float(event.get("at") or 0.0)
        end = event.get("end")
        groups = _groups(heard, launcher, batch_host)
        limit = str(event["event"]).startswith("time limit")
        until = float(end) if end is not None else math.inf if limit else float(event.get("until") or at) - SLACK
        reached = {actor: _share(groups[actor], at, until) for actor in ACTORS}
        first = min((t for each in heard for t, word in each.signals if word == SIGNAL and at - SLACK <= t <= until),
                    default=None)  # fmt: skip
        early = float(end) - first if end is not None and first is not None else None
        rows.append(Row(str(event["event"]), launcher, reached, bool(event.get("survived", True)),
                        str(event.get("words") or ""), early))  # fmt: skip
    return tuple(rows)


def _groups(heard: Sequence[Heard], launcher: str, batch_host: str) -> dict[str, list[Heard]]:
    ranks = [each for each in heard if each.name.startswith(f"{launcher}-rank")]
    return {
        "batch shell": [each for each in heard if each.name == "batch"],
        "its child": [each for each in heard if each.name == "batch.child"],
        "ranks here": [e for e in ranks if not e.name.endswith(".child") and e.host == batch_host],
        "ranks elsewhere": [e for e in ranks if not e.name.endswith(".child") and e.host != batch_host],
        "their children": [each for each in ranks if each.name.endswith(".child")],
    }


def _share(group: Sequence[Heard], at: float, until: float) -> str | None:
    if not group:
        return None
    told = sum(any(w == SIGNAL and at - SLACK <= t <= until for t, w in each.signals) for each in group)
    return "all" if told == len(group) else "some" if told else "none"


def _reaches_ranks(row: Row) -> bool:
    return {row.reached["ranks here"], row.reached["ranks elsewhere"]} <= {"all", None}


@dataclass(frozen=True)
class Advice:
    """The line for the batch script and the wrapper to use; both "" when nothing of the kind works here."""

    signal_line: str
    wrapper: str
    launcher: str


def advice(rows: Sequence[Row], lead: int) -> Advice:
    """What to write, by what was seen: the batch shell is warned, and the launcher passes it on to every rank."""
    by = {(row.launcher, row.event): row for row in rows}
    for launcher in ("srun", "mpiexec"):
        batch = by.get((launcher, "scancel -b -s USR1"))
        passed = by.get((launcher, "kill -USR1 of the launcher"))
        if (
            batch is not None
            and batch.reached["batch shell"] == "all"
            and passed is not None
            and _reaches_ranks(passed)
        ):
            line = f"#SBATCH --requeue --open-mode=append --signal=B:{SIGNAL}@{lead}"
            return Advice(line, f"exec hpcresume launch --mpi {launcher} --run=RUN -- python train.py", launcher)
    for launcher in ("srun", "mpiexec"):
        direct = by.get((launcher, "scancel -s USR1"))
        if direct is not None and _reaches_ranks(direct) and direct.survived:
            line = f"#SBATCH --requeue --open-mode=append --signal={SIGNAL}@{lead}"
            return Advice(line, f"exec hpcresume launch --mpi {launcher} --run=RUN -- python train.py", launcher)
    return Advice("", "", "")


def map_findings(events: Sequence[Mapping[str, Any]], rows: Sequence[Row], found: Advice) -> Iterator[Finding]:
    """What the table means."""
    for event in events:
        if "problem" in event:
            launcher = str(event.get("launcher"))
            yield unknown(
                AREA, f"ranks by {launcher}", f"not tried: {event['problem']}", f"another way than {launcher}"
            )
    failed = [row for row in rows if row.words]
    if failed:
        yield unknown(AREA, "scancel", f"{failed[0].event}: {failed[0].words}", "Slurm's commands on the nodes as well")
    for row in rows:
        if row.event == "kill -USR1 of the launcher":
            yield _passing_on(row)
    dead = [row for row in rows if not row.survived]
    if dead:
        text = ", ".join(f"{row.launcher} by {row.event}" for row in dead)
        yield warn(
            AREA, "launchers that die", f"dies of the warning: {text}", "warn the batch shell alone: --signal=B:"
        )
    yield from _children(rows)
    yield from _limits(rows)
    if found.signal_line:
        yield ok(AREA, "warning", f"the batch shell can be warned, and {found.launcher} passes it on to every rank")
    elif rows:
        what = "no way was seen in which USR1 reaches every rank"
        yield bad(AREA, "warning", what, "save often (every=…); show this table to the administrators")


def _passing_on(row: Row) -> Finding:
    name = f"{row.launcher} passes on"
    if _reaches_ranks(row):
        return ok(AREA, name, f"a USR1 to {row.launcher} reaches every rank")
    return warn(
        AREA, name, f"a USR1 to {row.launcher} does not reach every rank", "hpcresume launch --mpi with the other"
    )


def _children(rows: Sequence[Row]) -> Iterator[Finding]:
    told = sorted({row.launcher for row in rows if row.reached["their children"] in ("all", "some")
                   and row.event.startswith("scancel")})  # fmt: skip
    if told:
        what = f"what a rank starts hears USR1 too ({', '.join(told)}), and dies of it unless it handles it"
        yield ok(AREA, "children of ranks", f"{what}; a session shields what is started in it, B: spares them all")


def _limits(rows: Sequence[Row]) -> Iterator[Finding]:
    for row in rows:
        if not row.event.startswith("time limit"):
            continue
        if row.early is None and set(row.reached.values()) & {"all", "some"}:
            yield unknown(AREA, row.event, "it came; how early is not known, since Slurm did not tell the limit")
        elif row.early is None:
            yield bad(
                AREA, row.event, "no warning came before the time limit", "is it a job of sbatch? every=… shorter"
            )
        else:
            yield ok(AREA, row.event, f"came {row.early:.0f} s before the limit, {PROBE_LEAD} s were asked for")


PROBE_LEAD: Final = 60
"""Seconds of the probe's own --signal."""
