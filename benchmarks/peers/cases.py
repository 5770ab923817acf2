"""The cases: what the site is like, what happens to the job, and when."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks.peers.bench import Bench
from benchmarks.peers.contenders import Terms

AT = 23
"""The step after which things happen: a little after a save that nobody asked for."""


@dataclass(frozen=True)
class Case:
    """One of them.

    Attributes:
        name: for the command line.
        title: for the page.
        act: brings it about; returns the moment from which the way back is measured, or None.
        grace: GraceTime in seconds.
        user_signal: does the site send the job's own signal at a preemption (send_user_signal)?
        terms: of the submission.
        variables: of the training.
        repeats: how often it is measured; more than once where it is a race.
        only: contenders for which there is such a case; all when empty.
    """

    name: str
    title: str
    act: Callable[[Bench], float | None]
    grace: int = 8
    user_signal: bool = True
    terms: Terms = field(default_factory=Terms)
    variables: Mapping[str, str] = field(default_factory=dict)
    repeats: int = 1
    only: tuple[str, ...] = ()


def undisturbed(_: Bench) -> None:
    """Nothing happens."""


def preempted(bench: Bench) -> float:
    bench.wait_for_step(AT)
    moment = time.time()
    bench.preempt()
    bench.wait_for_next_attempt(moment)
    return moment


def preempted_six_times(bench: Bench) -> None:
    for step in (10, 26, 42, 58, 74, 90):
        bench.wait_for_step(step)
        moment = time.time()
        bench.preempt(1)
        bench.wait_for_next_attempt(moment)


def lost_node(name: str) -> Callable[[Bench], float]:
    def act(bench: Bench) -> float:
        bench.wait_for_step(AT)
        moment = time.time()
        bench.cluster.kill_node(name)
        return moment

    return act


def preempted_then_lost_node(bench: Bench) -> float:
    bench.wait_for_step(12)
    moment = time.time()
    bench.preempt()
    bench.wait_for_next_attempt(moment)
    bench.wait_for_step(50)
    moment = time.time()
    bench.cluster.kill_node("n1")
    return moment


def in_evaluation(bench: Bench) -> float:
    began = time.time()
    bench.make_slow("long-evaluation", 200)
    bench.wait_for_event("evaluating", began)
    time.sleep(1)
    moment = time.time()
    bench.preempt()
    bench.wait_for_next_attempt(moment)
    bench.no_longer_slow()
    return moment


def while_saving(bench: Bench) -> float:
    bench.wait_for_step(AT)
    began = time.time()
    bench.make_slow("slow-save", 3)
    bench.wait_for_event("saving", began)
    time.sleep(1)
    moment = time.time()
    bench.preempt()
    bench.wait_for_next_attempt(moment)
    bench.no_longer_slow()
    return moment


def slow_save(bench: Bench) -> float:
    bench.wait_for_step(AT)
    bench.make_slow("slow-save", 40)
    moment = time.time()
    bench.preempt()
    bench.wait_for_next_attempt(moment)
    bench.no_longer_slow()
    return moment


def flipped_bit(bench: Bench) -> float:
    bench.wait_for_step(AT)
    moment = time.time()
    high = bench.preempt(600)
    # The nodes are given back only afterwards, so that nobody reads the checkpoint before the bit is flipped.
    bench.wait_for_requeue()
    time.sleep(1)
    bench.flip_a_bit()
    bench.cluster.command("scancel", high)
    return moment


def lost_while_writing(bench: Bench) -> float:
    bench.wait_for_step(30)
    bench.wait_for_writing()
    moment = time.time()
    bench.cluster.kill_node("n1")
    return moment


def warned_by_hand(bench: Bench) -> float:
    bench.wait_for_step(AT)
    moment = time.time()
    bench.cluster.command("scancel", f"--signal={bench.contender.signal}", bench.job)
    bench.wait_for_next_attempt(moment)
    return moment


CASES = (
    Case("undisturbed", "undisturbed", undisturbed),
    Case("preempted", "preempted, the site sends the job's signal", preempted, repeats=3),
    Case(
        "other-form",
        "the same, `--signal` written the other way",
        preempted,
        terms=Terms(other_form=True),
        only=("launch", "lightning", "by-hand"),
    ),
    Case("term-only", "preempted, the site sends TERM only", preempted, user_signal=False),
    Case("no-grace", "preempted, GraceTime=0", preempted, grace=0),
    Case("six-times", "preempted six times", preempted_six_times),
    Case("evaluation", "warned in an evaluation of 40 s", in_evaluation),
    Case("while-saving", "warned while it saves", while_saving, repeats=3),
    Case("slow-save", "a save takes 40 s, the grace is 8 s", slow_save),
    Case("time-limit", "time limit", undisturbed, terms=Terms(minutes=2, lead=20), variables={"PEERS_PAUSE": "1.2"}),
    Case("signalled", "`scancel -s` its signal", warned_by_hand),
    Case("batch-node", "the node of rank 0 is lost", lost_node("n1")),
    Case("other-node", "the node of rank 1 is lost", lost_node("n2")),
    Case("stale", "preempted; later the node of rank 0 is lost", preempted_then_lost_node),
    Case(
        "while-writing",
        "the node is lost while it writes a checkpoint",
        lost_while_writing,
        variables={"PEERS_BALLAST_MIB": "512"},
        repeats=3,
    ),
    Case("flipped-bit", "one bit flipped in the newest checkpoint", flipped_bit),
)
