"""Why an attempt ended that left nobody to say so: from what the next start finds to a `Cause`. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from hpcresume.model import Cause
from hpcresume.policy.cause import ENDS_JOB, Ending, Evidence, Raised, SignalReceived, cause_of_state, name_cause
from hpcresume.policy.job_facts import JobFacts

__all__ = ["Traces", "infer"]


@dataclass(frozen=True)
class Traces:
    """What is left of an attempt.

    Attributes:
        decided: what the session took for the cause when it decided that the job comes back.
        supervised: a supervisor stood beside its ranks, which records a signal as soon as it comes.
        began: that supervisor has begun its record.
        restarted: Slurm has started the attempt's job again after it.
        state: Slurm's state of that start of the job at its end, NODE_FAIL say; "" when not known.
        said: where Slurm says so, with its own words.
        heard: the signals that the ranks recorded.
        raised: the exception that a rank recorded.
        down: those of its nodes that Slurm calls down now.
        anew: those whose slurmd has begun anew since the attempt was last heard of.
        looked: what was looked at and tells nothing, a sentence each.
    """

    decided: Cause | None = None
    supervised: bool = False
    began: bool = False
    restarted: bool = False
    state: str = ""
    said: str = ""
    heard: tuple[SignalReceived, ...] = ()
    raised: Raised | None = None
    down: tuple[str, ...] = ()
    anew: tuple[str, ...] = ()
    looked: tuple[str, ...] = ()

    @property
    def silent(self) -> bool:
        """Did it vanish without Slurm's end sequence having been heard?"""
        return not any(each.signal in ENDS_JOB for each in self.heard)

    @property
    def lost(self) -> tuple[str, ...]:
        """Its nodes that seem to have been lost under it."""
        return tuple(sorted({*self.down, *self.anew})) if self.silent else self.down


def infer(traces: Traces) -> Ending:
    """The cause with its evidence; unknown with what was looked at."""
    for rule in _RULES:
        found = rule(traces)
        if found is not None:
            return found
    return Ending(Cause.UNKNOWN, (*_nobody(traces), *traces.looked))


def _decided(t: Traces) -> Ending | None:
    if t.decided is None:
        return None
    return Ending(t.decided, ("the session decided so, and nobody could keep a record of what followed",))


def _raised(t: Traces) -> Ending | None:
    if t.raised is None or t.raised.is_echo:
        return None
    return name_cause(Evidence(claimed=True, raised=t.raised))


def _slurms_word(t: Traces) -> Ending | None:
    cause = cause_of_state(t.state)
    return None if cause is None else Ending(cause, (f"Slurm: {t.said}",))


def _nodes(t: Traces) -> Ending | None:
    if not t.silent or not (t.down or t.anew):
        return None
    words = [f"Slurm: down: {', '.join(t.down)}"] if t.down else []
    words += [f"slurmd on {', '.join(t.anew)} has begun anew since the attempt was last heard of"] if t.anew else []
    return Ending(Cause.NODE_FAILURE, (*words, *_again(t)))


def _ended_by_slurm(t: Traces) -> Ending | None:
    """Its ranks heard the end sequence, and the job was started again: whose doing, they know by what came before."""
    if t.silent or not (t.restarted or t.state == "REQUEUED"):
        return None
    ends = tuple(each for each in t.heard if each.signal in ENDS_JOB)
    seen = Evidence(claimed=True, signals=ends, rank_warnings=t.heard, job=(JobFacts("COMPLETING", restarts=1),))
    ending = name_cause(seen)
    return None if ending.cause is Cause.UNKNOWN else ending


def _requeued(t: Traces) -> Ending | None:
    if t.state != "REQUEUED":
        return None
    return Ending(Cause.OPERATOR, (f"Slurm: {t.said}, as scontrol requeue does",))


def _supervisor_vanished(t: Traces) -> Ending | None:
    if not t.restarted or not t.supervised:
        return None
    began = "" if t.began else ", before its first record,"
    why = f"the supervisor vanished{began} without a signal and Slurm started the job again: its node was lost"
    return Ending(Cause.NODE_FAILURE, (why,))


def _echo(t: Traces) -> Ending | None:
    """A peer's end is all that a rank could tell: what ended the peer is not known, and no node is missing."""
    return None if t.raised is None else name_cause(Evidence(claimed=True, raised=t.raised))


_RULES = (
    _decided,
    _raised,
    _slurms_word,
    _nodes,
    _ended_by_slurm,
    _requeued,
    _supervisor_vanished,
    _echo,
)


def _again(t: Traces) -> tuple[str, ...]:
    return ("Slurm has started the job again",) if t.restarted else ()


def _nobody(t: Traces) -> tuple[str, ...]:
    if t.began:
        return ("the supervisor vanished without a signal; somebody started the run again",)
    again = ", and Slurm has started the job again" if t.restarted else ""
    return (f"no supervisor kept a record of this attempt{again}",)
