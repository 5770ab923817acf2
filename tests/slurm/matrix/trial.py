"""One cell as it runs: a training on nodes of its own, what can be asked of it, and what is found in the end."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpcresume.errors import SlurmError
from hpcresume.slurm.job_text import parse_time
from hpcresume.testing.minislurm import MiniSlurm
from tests.slurm.matrix import ways
from tests.slurm.matrix.table import Outcome
from tests.slurm.matrix.training import RANKS, STEPS, expected
from tests.slurm.matrix.ways import Order, Started

__all__ = ["OVER", "Trial"]

OVER = frozenset(
    {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "BOOT_FAIL"}
)
SETTLED = 3.0
"""Seconds for which a state must last to be the last one: a requeued job shows others on its way."""
STRICT = 2.0
"""Seconds by which a recorded deadline may differ from the one that Slurm told."""


class Trial:
    """A training under test.

    Attributes:
        told: when Slurm said that it would end the job, as seen from here; None where it said nothing.
        words: what Slurm said to the event, where that matters.
    """

    def __init__(self, cluster: MiniSlurm, nodes: tuple[str, ...], order: Order, high: str) -> None:
        self.cluster, self.nodes, self.order, self.high = cluster, nodes, order, high
        self.out = order.out
        self.env = ways.environment(cluster.environment, order.out)
        self.started: Started | None = None
        self.told: float | None = None
        self.words = ""
        self._down: list[str] = []

    # ---- the training

    def submit(self, prepare: tuple[str, ...]) -> None:
        """Submit it, with files beside its results that tell it what to do."""
        results = self.out / "results" / ("run-0" if self.order.way == "array" else "run")
        results.mkdir(parents=True)
        for name in prepare:
            (results / name).touch()
        self.started = ways.submit(self.order, self.env)

    @property
    def job(self) -> str:
        """The job that the event meets."""
        assert self.started is not None
        return self.started.job

    @property
    def run(self) -> Path:
        """Its run."""
        assert self.started is not None
        return self.started.run

    def results(self, run: Path) -> Path:
        """Where the training of a run leaves what it found."""
        return self.out / "results" / run.name

    def hurry(self) -> None:
        """Let the training go on without its pauses."""
        assert self.started is not None
        for run in filter(None, (self.started.run, self.started.neighbour)):
            (self.results(run) / "hurry").touch()

    def wait_for_step(self, step: int, seconds: float = 120) -> None:
        """Until it has done that many, and its neighbour too."""
        assert self.started is not None
        runs = [run for run in (self.started.run, self.started.neighbour) if run is not None]

        def there() -> bool:
            assert not self._last_state(), f"the job is over before step {step}\n{ways.logs(self.out)}"
            return all(ways.steps_done(run) >= step for run in runs)

        self.wait(there, f"step {step}", seconds)

    def attempts(self) -> int:
        """How many there are."""
        return len(list((self.run / "attempts").glob("[0-9]*")))

    def silence_of_first(self) -> float:
        """Seconds since the first attempt finished a step."""
        return time.time() - (self.run / "attempts" / "0001" / "progress").stat().st_mtime

    # ---- Slurm

    def ask(self, *words: str, check: bool = True) -> str:
        """Run a command of Slurm's."""
        return self.cluster.command(*words, check=check)

    def facts(self) -> dict[str, str]:
        """`scontrol show job`, of the fields without spaces."""
        text = self.ask("scontrol", "show", "job", "-o", self.job)
        return dict(item.split("=", 1) for item in text.split() if "=" in item)

    def job_nodes(self) -> list[str]:
        """The nodes that the job has, that of its batch script first."""
        facts = self.facts()
        names = self.ask("scontrol", "show", "hostnames", facts["NodeList"]).split()
        return sorted(names, key=lambda name: (name != facts["BatchHost"], int(name[1:])))

    def wait(self, condition: Callable[[], object], what: str, seconds: float) -> None:
        """Until it is true; what cannot be asked now is not true yet."""
        until = time.monotonic() + seconds
        while True:
            with contextlib.suppress(SlurmError, KeyError, OSError):
                if condition():
                    return
            if time.monotonic() > until:
                raise AssertionError(f"no {what} after {seconds:g} s\n{ways.logs(self.out)}")
            time.sleep(0.2)

    def power_off(self, *nodes: str) -> None:
        """These nodes lose power."""
        self._down += nodes
        for node in nodes:
            self.cluster.kill_node(node)

    def lose_slurmd(self, *nodes: str) -> None:
        """The slurmds of these nodes die, what runs there goes on."""
        self._down += nodes
        for node in nodes:
            self.cluster.kill_slurmd(node)

    def mend(self) -> None:
        """Bring back what went."""
        down, self._down = self._down, []
        for node in down:
            self.cluster.start_node(node)

    def listen_for_the_end(self) -> None:
        """Note until when Slurm lets the job run once it has been chosen for preemption."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with contextlib.suppress(SlurmError):
                facts = self.facts()
                if parse_time(facts.get("PreemptTime", "")) is not None and facts["JobState"] == "RUNNING":
                    self.told = parse_time(facts["EndTime"])
                    return
                if facts.get("Restarts", "0") != "0" or facts["JobState"] in OVER:
                    return
            time.sleep(0.05)

    # ---- its end

    def wait_until_over(self, seconds: float) -> None:
        """Until the job has its last state. A second attempt is let go without pauses."""
        since, last = time.monotonic(), ""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(SlurmError, OSError):
                if self.attempts() > 1:
                    self.hurry()
                state = self._last_state()
                if state != last:
                    since, last = time.monotonic(), state
                if last and time.monotonic() - since > SETTLED:
                    self.hurry()
                    return
            time.sleep(0.4)
        raise AssertionError(f"job {self.job} is not over after {seconds:g} s: {self._state()}\n{ways.logs(self.out)}")

    def _state(self) -> tuple[str, str]:
        text = self.ask("squeue", "--noheader", "--states=all", "--format=%T %r", f"--jobs={self.job}")
        state, _, reason = text.strip().partition(" ")
        return state, reason

    def _last_state(self) -> str:
        state, reason = self._state()
        held = state == "PENDING" and "held" in reason.lower()
        return f"{state} {reason}" if state in OVER or held else ""

    def outcome(self, wanted: Outcome) -> Outcome:
        """What has become of it, in the table's terms; `wanted` says what has to be looked for."""
        told = json.loads(self.why())
        first = told["attempts"][0] if told["attempts"] else {"evidence": []}
        evidence = "; ".join(first["evidence"])
        done = (self.run / "DONE").exists()
        lost = int(told["lost_steps"])
        return Outcome(
            state=told["state"],
            causes=tuple(str(each["cause"]) for each in told["attempts"]),
            lost=wanted.lost if lost <= wanted.lost else lost,
            same=self.is_same() if done else None,
            slurm=self._state()[0],
            evidence=wanted.evidence if re.search(wanted.evidence, evidence) else evidence,
            deadline=self.deadline(wanted.deadline),
            lost_seen=lost,
        )

    def why(self) -> str:
        """What `hpcresume why --json` says."""
        words = [sys.executable, "-m", "hpcresume", "why", str(self.run), "--json"]
        done = subprocess.run(
            words, env=self.env, cwd=self.out, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
        return done.stdout

    def is_same(self, run: Path | None = None) -> bool:
        """Is everything as in a training that nothing disturbed, every step and every bit of the final state?"""
        out = self.results(run or self.run)
        steps, finals = expected()
        found = [line.split() for line in (out / "steps").read_text().splitlines()]
        right = all(int(number) < STEPS and value == steps[int(number)] for number, value in found)
        whole = {int(number) for number, _ in found} == set(range(STEPS))
        return right and whole and [json.loads((out / f"{rank}.json").read_text()) for rank in range(RANKS)] == finals

    def deadline(self, wanted: str) -> str:
        """Did the first attempt know until when it had, as Slurm told it? "" where Slurm told nothing.

        Where it is `wanted` that it did not know, its ranks died within milliseconds, and so Slurm may have told it for
        too short a time to be seen from here.
        """
        path = self.run / "attempts" / "0001" / "deadline.json"
        if self.told is None:
            return wanted if wanted == "not recorded" and not path.exists() else ""
        try:
            known = json.loads(path.read_text())
        except (OSError, ValueError):
            return "not recorded"
        # The end sequence, when it comes after all, has a deadline of its own.
        heard = [line["end"] for line in self._journal() if line.get("event") == "slurm" and line.get("preempted_at")]
        if any(abs(float(end) - self.told) <= STRICT for end in [known["unix"], *heard] if end is not None):
            return "recorded"
        off = float(known["unix"]) - self.told
        if off < 0 and known["source"] == "end sequence":
            return ""  # the job was over before
        return f"{off:+.0f} s off ({known['source']})"

    def _journal(self) -> list[dict[str, Any]]:
        with contextlib.suppress(OSError):
            lines = (self.run / "attempts" / "0001" / "supervisor.jsonl").read_text().splitlines()
            return [json.loads(line) for line in lines]
        return []

    def neighbour(self) -> str:
        """Of the other task of an array: has it trained undisturbed?"""
        assert self.started is not None
        other = self.started.neighbour
        if other is None:
            return ""
        self.wait(lambda: (other / "DONE").exists(), "end of the other task", 60)
        attempts = len(list((other / "attempts").glob("[0-9]*")))
        return "undisturbed" if attempts == 1 and self.is_same(other) else f"{attempts} attempts"

    def clear(self) -> None:
        """Leave the cluster as it was found: no job, all nodes up."""
        self.mend()
        if self.started is not None:
            self.ask("scancel", self.job.partition("_")[0], check=False)
        for node in self.nodes:
            self.ask("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
