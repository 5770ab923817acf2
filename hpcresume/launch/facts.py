"""Asks Slurm about the job from a thread of its own: nothing that must be quick ever waits for an answer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import replace

from hpcresume.errors import SlurmError
from hpcresume.policy.job_facts import JobFacts
from hpcresume.slurm.batch_script import AskedWarning, asked_warning, read_batch_script
from hpcresume.slurm.commands import down_nodes, show_job
from hpcresume.slurm.environment import SlurmEnvironment

__all__ = ["FactsDesk", "asker"]

Ask = Callable[[bool], JobFacts]
"""Blocks until Slurm answers; True asks after the job's nodes too. Raises `SlurmError`."""


def asker(slurm: SlurmEnvironment) -> Ask | None:
    """What asks Slurm about the job that we are in, its nodes too when the job is being ended; None outside Slurm."""
    job_id, nodes = slurm.job_id, slurm.node_list
    if job_id is None:
        return None
    script: list[AskedWarning | None] = []

    def ask(thorough: bool) -> JobFacts:
        facts = show_job(job_id)
        if not script:
            script.append(_asked(job_id))
        if script[0] is not None:
            facts = replace(facts, warning_lead=script[0].lead, warns_batch=script[0].batch)
        if nodes and (thorough or facts.state != "RUNNING"):
            return replace(facts, down_nodes=down_nodes(nodes))
        return facts

    return ask


def _asked(job_id: str) -> AskedWarning | None:
    """The warning that the job's script asks for; None where it cannot be read or says nothing of it."""
    try:
        return asked_warning(read_batch_script(job_id))
    except SlurmError:
        return None


class FactsDesk:
    """Takes questions at once and hands out answers when they have come.

    Attributes:
        known: the answers so far, the newest first.
        trouble: what kept Slurm from answering last, or "".
    """

    def __init__(self, ask: Ask | None) -> None:
        """`ask` is None outside Slurm: then nothing is ever known."""
        self.known: tuple[JobFacts, ...] = ()
        self.trouble = ""
        self._ask = ask
        self._answers: queue.SimpleQueue[JobFacts | SlurmError] = queue.SimpleQueue()
        self._asking = False
        self._again = False

    def ask(self, *, thorough: bool = False) -> None:
        """Ask in the background; while a question is out, once more after its answer."""
        self._again = self._asking
        if self._ask is not None and not self._asking:
            self._asking = True
            threading.Thread(target=self._work, args=(self._ask, thorough), name="ask-slurm", daemon=True).start()

    def collect(self, timeout: float = 0.0) -> JobFacts | None:
        """The answer to the last question if it has come within `timeout` seconds, else None."""
        if not self._asking:
            return None
        try:
            answer = self._answers.get(timeout=timeout) if timeout > 0 else self._answers.get_nowait()
        except queue.Empty:
            return None
        self._asking = False
        if self._again:
            self.ask()
        if isinstance(answer, SlurmError):
            self.trouble = str(answer)
            return None
        self.known = (answer, *self.known)
        return answer

    def ask_and_wait(self, timeout: float) -> JobFacts | None:
        """Ask afresh, after the nodes too, and wait for the answer, `timeout` seconds for each question that is out."""
        self._again = False
        self.collect(timeout if self._asking else 0.0)
        self.ask(thorough=True)
        self._again = False
        return self.collect(timeout)

    @property
    def waiting(self) -> bool:
        """Is a question out?"""
        return self._asking

    def _work(self, ask: Ask, thorough: bool) -> None:
        try:
            self._answers.put(ask(thorough))
        except SlurmError as error:
            self._answers.put(error)
