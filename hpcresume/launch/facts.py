"""Asks Slurm about the job from a thread of its own: nothing that must be quick ever waits for an answer."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from dataclasses import replace

from hpcresume.errors import SlurmError
from hpcresume.policy.job_facts import JobFacts
from hpcresume.slurm.accounting import asked_on_command_line
from hpcresume.slurm.batch_script import AskedWarning, asked_warning, parse_warning, read_batch_script
from hpcresume.slurm.commands import down_nodes, show_job
from hpcresume.slurm.environment import SlurmEnvironment
from hpcresume.slurm.silent_nodes import can_knock

__all__ = ["FactsDesk", "asker"]

MOMENT = 1.0
"""Seconds for which what accounting says is waited for, when a job ends."""

Ask = Callable[[bool], JobFacts]
"""Blocks until Slurm answers; True asks after the job's nodes too. Raises `SlurmError`."""


def asker(slurm: SlurmEnvironment, *, ahead: bool = True) -> Ask | None:
    """What asks Slurm about the job that we are in, its nodes too when the job is being ended; None outside Slurm.

    Args:
        slurm: the job.
        ahead: look around beside the first answer, for what later ones are judged by.
    """
    job_id, nodes = slurm.job_id, slurm.node_list
    if job_id is None:
        return None
    script: list[AskedWarning | None] = []
    around = _Around(slurm)

    def ask(thorough: bool) -> JobFacts:
        facts = show_job(job_id)
        if not script:
            script.append(_asked(job_id))
            if ahead:
                around.look()
        elif ahead and thorough:
            around.ask_again()
        asked = around.asked or script[0]
        if asked is not None:
            facts = replace(facts, warning_lead=asked.lead, warns_batch=asked.batch)
        facts = replace(facts, reached=around.reached)
        if nodes and (thorough or facts.state != "RUNNING"):
            return replace(facts, down_nodes=down_nodes(nodes))
        return facts

    return ask


class _Around:
    """What is found out once, in the background, while no answer waits for it.

    Attributes:
        reached: another node of the job let us in.
        asked: the warning that was asked for on sbatch's command line, as far as accounting tells.
    """

    def __init__(self, slurm: SlurmEnvironment) -> None:
        self.reached = False
        self.asked: AskedWarning | None = None
        self._slurm = slurm
        self._thread: threading.Thread | None = None

    def look(self) -> None:
        """Begin to."""
        self._begin(self._work)

    def ask_again(self) -> None:
        """Accounting may know of a job only some time after its start; an answer is waited for a moment."""
        if self.asked is None and not (self._thread is not None and self._thread.is_alive()):
            self._begin(self._ask)
        if self._thread is not None:
            self._thread.join(MOMENT)

    def _begin(self, work: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=work, name="look-around", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        slurm = self._slurm
        self._ask()
        if slurm.nnodes != 1:
            self.reached = can_knock(slurm.node_list or "", slurm.node_name)

    def _ask(self) -> None:
        self.asked = asked_on_command_line(self._slurm.job_id or "") or self.asked


def _asked(job_id: str) -> AskedWarning | None:
    """The warning that the job asked for, by SBATCH_SIGNAL or, which counts less (sbatch(1)), in its script's lines.

    None where neither can be read or says anything of it.
    """
    try:
        return parse_warning(os.environ.get("SBATCH_SIGNAL", "")) or asked_warning(read_batch_script(job_id))
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
