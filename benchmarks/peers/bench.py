"""One contender's training on a cluster of its own: watched, disturbed, and helped where it does not come back."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers.contenders import ROOT, Contender, Terms
from benchmarks.peers.witness import Lives, read_lives
from hpcresume.testing import MiniSlurm

MAGIC = struct.pack("<f", 1.0838862)
"""The value of training.MAGIC as its bytes lie in a checkpoint."""
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "BOOT_FAIL"}
QUIET = 90.0
"""Seconds without a line of any rank after which a running job counts as hanging: a step takes 0.2 s, a start 10 s."""
STUCK = 90.0
"""Seconds in the queue of an empty cluster after which a job counts as staying there."""
MOST_DEEDS = 8


class NotBroughtAboutError(Exception):
    """The driver could not bring about what the case is about."""


class NeverFinishesError(Exception):
    """The training does not come to its end, whatever its user does."""


class Bench:
    """A submitted training. `deeds` is what its user had to do."""

    def __init__(self, contender: Contender, cluster: MiniSlurm, out: Path, terms: Terms, variables: dict[str, str]):
        self.contender, self.cluster, self.out, self.terms = contender, cluster, out, terms
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.env = {
            **cluster.environment,
            "PEERS_OUT": str(out),
            "PYTHONPATH": str(ROOT),
            "XDG_STATE_HOME": str(out / "state"),  # nothing is left in the home of whoever measures, or taken from it
            "OMP_NUM_THREADS": "1",
            "MASTER_ADDR": "127.0.0.1",  # the nodes of this cluster share the machine's network
            "MASTER_PORT": str(port),
            **variables,
        }
        self.deeds: list[str] = []
        self.hung = False
        self.seen_states: list[str] = []
        self.job = self._submit()

    def command(self, *words: str) -> str:
        """Run a command of the cluster's user."""
        done = subprocess.run(words, env=self.env, cwd=self.out, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            raise NotBroughtAboutError(f"{words}: {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def _submit(self) -> str:
        self._steps_at_submission = self.lives().count
        return self.contender.submit(self.command, self.out, self.terms)

    # ---- seen

    def lives(self) -> Lives:
        """What the ranks have written so far."""
        return read_lives(self.out)

    def state(self) -> dict[str, str]:
        """`scontrol show job`; without fields when Slurm does not answer."""
        with contextlib.suppress(NotBroughtAboutError, subprocess.TimeoutExpired):
            text = self.command("scontrol", "show", "job", "-o", self.job)
            return dict(word.split("=", 1) for word in text.split() if "=" in word)
        return {}

    def finished(self) -> bool:
        """Whether both ranks have come to the end of the training."""
        return all((self.out / f"final-{rank}.json").exists() for rank in (0, 1))

    def quiet(self) -> float:
        """Seconds since any rank has written anything."""
        times = [path.stat().st_mtime for path in self.out.glob("rank-*.jsonl")]
        return time.time() - max(times, default=self._submitted)

    # ---- helped

    def wait(self, condition: Callable[[], object], what: str, seconds: float = 240.0) -> None:
        """Until `condition()`; where the job has ended, hangs or stays in the queue, its user brings it back."""
        until = time.monotonic() + seconds
        waiting_since = asked = time.monotonic()
        while not condition():
            if time.monotonic() > until:
                raise NotBroughtAboutError(f"no {what} after {seconds:g} s: {self.state()}")
            time.sleep(0.1)
            if time.monotonic() < asked + 1:  # a question to Slurm costs the processors more than a look at a file
                continue
            asked = time.monotonic()
            state = self.state()
            now = state.get("JobState", "")
            if now != "PENDING":
                waiting_since = time.monotonic()
            running = float(_seconds(state.get("RunTime", "0")))
            if now in ENDED and not self.finished():
                self._help(now)
            elif now == "RUNNING" and min(self.quiet(), running) > QUIET:
                self.hung = True
                self._help("hangs", cancel=True)
            elif time.monotonic() - waiting_since > STUCK:
                self._help(f"waits: {state.get('Reason', '')}", cancel=True)
                waiting_since = time.monotonic()

    def _help(self, state: str, *, cancel: bool = False) -> None:
        """What a user does who finds the job like this: submit it again; the second time without its newest file."""
        self.seen_states.append(state)
        if len(self.deeds) >= MOST_DEEDS:
            raise NeverFinishesError(f"{MOST_DEEDS} deeds: {self.deeds}")
        deed = "sbatch again"
        if cancel:
            self.cluster.command("scancel", self.job, check=False)
            self.cluster.wait(lambda: self.state().get("JobState") in ENDED, "end of the cancelled job", timeout=60)
            deed = "scancel, sbatch again"
        checkpoints = self.contender.newest_checkpoints(self.out)
        if self.deeds and self.lives().count == self._steps_at_submission and checkpoints:
            aside = self.out / "aside"
            aside.mkdir(exist_ok=True)
            checkpoints[0].rename(aside / f"{len(self.deeds)}-{checkpoints[0].name}")
            deed = "remove the newest checkpoint, sbatch again"
        self.deeds.append(deed)
        self.job = self._submit()
        self._submitted = time.time()

    _submitted = time.time()

    def wait_for_step(self, step: int) -> None:
        """Until rank 0 of the newest attempt has computed `step`."""
        self.wait(lambda: self.finished() or self.lives().last_step >= step, f"step {step}")

    def wait_for_event(self, event: str, since: float) -> None:
        """Until a rank has noted `event` after `since`."""
        self.wait(lambda: self.finished() or self.lives().has(event, since), f"{event!r}")

    def wait_for_next_attempt(self, since: float) -> None:
        """Until an attempt has begun after `since`."""
        self.wait_for_event("began", since)

    def wait_for_requeue(self) -> None:
        """Until the job no longer runs."""
        self.cluster.wait(
            lambda: self.state().get("JobState") not in ("RUNNING", None), "end of the attempt", timeout=60
        )

    def wait_until_finished(self) -> None:
        """Until the training is at its end, and the job too."""
        try:
            self.wait(self.finished, "end of the training", 420.0)
        except NotBroughtAboutError as error:
            raise NeverFinishesError(str(error)) from error
        until = time.monotonic() + 45
        while self.state().get("JobState") not in ENDED and time.monotonic() < until:
            time.sleep(0.5)
        self.seen_states.append(self.state().get("JobState", "unknown"))

    # ---- disturbed

    def preempt(self, seconds: int = 3) -> str:
        """A job of higher rank takes all nodes; its id."""
        nodes = len(self.cluster.names)
        options = ("--parsable", "--partition=high", f"--nodes={nodes}", "--exclusive", "--output=/dev/null")
        return self.cluster.command("sbatch", *options, f"--wrap=sleep {seconds}").strip()

    def make_slow(self, what: str, number: float) -> None:
        """From now on collecting a state takes so many seconds, or an evaluation so many batches."""
        (self.out / what).write_text(str(number))

    def no_longer_slow(self) -> None:
        """As it was."""
        for what in ("slow-save", "long-evaluation"):
            (self.out / what).unlink(missing_ok=True)

    def wait_for_writing(self) -> None:
        """Until a checkpoint of more than 1 MiB is being written."""
        before = self._big_files()
        until = time.monotonic() + 120
        while self._big_files() == before:
            if time.monotonic() > until or self.finished():
                raise NotBroughtAboutError("no checkpoint was written")
            time.sleep(0.002)

    def _big_files(self) -> dict[str, tuple[int, int]]:
        found = {}
        for path in self.out.rglob("*"):
            with contextlib.suppress(OSError):
                told = path.stat()
                if told.st_size > 1 << 20:
                    found[str(path)] = (told.st_size, told.st_mtime_ns)
        return found

    def flip_a_bit(self) -> None:
        """In a weight of the newest checkpoint."""
        for path in self.contender.newest_checkpoints(self.out)[:1]:
            data = path.read_bytes()
            at = data.find(MAGIC * 64)
            if at < 0:
                raise NotBroughtAboutError(f"{path} does not hold the frozen weights")
            mode = path.stat().st_mode
            path.chmod(mode | 0o200)
            told = path.stat()
            with path.open("r+b") as file:
                file.seek(at + 40)
                file.write(bytes([data[at + 40] ^ 0x10]))
            os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))
            path.chmod(mode)
            return
        raise NotBroughtAboutError("there is no checkpoint")


def _seconds(text: str) -> int:
    """`[days-]hours:minutes:seconds`."""
    days, _, clock = text.rpartition("-")
    total = 0
    for part in clock.split(":"):
        total = total * 60 + (int(part) if part.isdecimal() else 0)
    return total + 86400 * int(days or 0)
