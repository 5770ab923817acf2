"""Events of an emulation as lines for people. Does not print them."""

from __future__ import annotations

from hpcresume.model import Event

__all__ = ["Lines", "line"]

_TEXTS = {
    "start": "attempt {attempt}: {ranks} ranks on {nodes}",
    "preempt": "preempt {nodes}: {sent}, grace {grace:g} s",
    "limit-near": "time limit in {left:.1f} s: {sent}",
    "time-limit": "time limit of {limit:g} s reached",
    "grace-over": "grace is over",
    "end-sequence": "end ({why}): {sent}, KILL after {kill_wait:g} s",
    "kill": "KILL: {processes} processes were left",
    "kill-rank": "kill -9 of rank {rank} (pid {pid}) after step {step}",
    "kill-node": "node {node} is lost: {processes} processes gone, after step {step}",
    "requeue-asked": "scontrol requeue",
    "end": "attempt {attempt} ended: {state}, exit code {exit_code}, {then} ({why})",
    "note": "{text}",
    "pending": "in the queue again for {delay:g} s",
    "never-fired": "never came true: {entry}",
    "no-start": "the script did not start: {why}",
    "left-pending": "waits for ever: {reason}",
    "trouble": "{why}; tried again",
    "over": "the job is over: {state} after {attempts} attempts (exit code {exit_code})",
}


def line(event: Event) -> str:
    """One line: seconds since the job's start, then what happened. An unknown event gives its name."""
    fields = dict(event.fields)
    if event.name == "end":
        fields["then"] = "requeued" if fields["requeued"] else "not requeued"
    text = _TEXTS.get(event.name, event.name).format_map(fields)
    return f"{fields['at']:.1f} s {text}"


class Lines:
    """Lines of one emulation; each names its job, a task of an array included, as soon as there are several.

    `follow.Followers` marks what the jobs print in the same way.
    """

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def of(self, event: Event) -> str:
        """The line of an event."""
        job = str(event.fields["job"])
        self._seen.add(job)
        several = len(self._seen) > 1 or "_" in job
        return f"job {job}: {line(event)}" if several else line(event)
