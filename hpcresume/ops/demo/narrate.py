"""What the emulated scheduler does to the demo's job, as one line of text each. Pure.

What sessions and supervisors do is told by `observe.narrate`.
"""

from __future__ import annotations

from hpcresume.model import Event
from hpcresume.observe.narrate import Line

__all__ = ["narrate_deed"]


def narrate_deed(event: Event, t: float) -> Line | None:
    """The line for what the emulated scheduler does to the job (unix seconds `t`), if it is worth one."""
    fields = event.fields
    if event.name == "start":
        back = "back from the queue: " if fields["attempt"] > 1 else ""
        return Line(t, f"{back}{fields['ranks']} ranks start on {fields['nodes']}")
    if event.name == "preempt":
        return Line(t, f"the nodes are wanted back: SIGUSR1, and KILL in {fields['grace']:g} s", "warn")
    if event.name == "kill-rank":
        return Line(t, f"kill -9 of rank {fields['rank']}, no warning, after step {fields['step']}", "bad")
    return None
