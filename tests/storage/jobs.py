"""Jobs that train on the volume: submitted, held at a call, looked at."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

from tests.slurm.cluster import Cluster
from tests.storage.gluster import Gluster, until
from tests.storage.room import program_of

__all__ = ["PROGRAM", "STEPS", "Job", "Site", "assert_same"]

PROGRAM = Path(__file__).with_name("train.py")
ROOT = Path(__file__).parents[2]
STEPS = 60
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}


class Site:
    """The cluster and the filesystem of its nodes."""

    def __init__(self, cluster: Cluster, gluster: Gluster) -> None:
        self.cluster, self.gluster = cluster, gluster

    def seen_on(self, node: str, path: Path) -> Path:
        """A path of the volume as a node sees it, for a process outside of the node."""
        return self.gluster.on(self.cluster, node, path)

    def clean(self) -> None:
        """No job, no stopped client, no missing brick, both nodes up."""
        for node in self.cluster.mini.names:
            os.kill(self.gluster.client(self.cluster, node), signal.SIGCONT)
        self.gluster.heal()
        self.cluster.command("scancel", "--quiet", "--partition=low,high", check=False)
        self.cluster.command("scancel", "--quiet", "--partition=low", check=False)
        self.cluster.command("scancel", "--quiet", "--partition=high", check=False)
        idle = ("sinfo", "--noheader", "--Node", "--format=%T")

        def is_clean() -> bool:
            states = self.cluster.command(*idle).split()
            if any(state.startswith(("down", "drain")) for state in states):
                names = ",".join(self.cluster.mini.names)
                self.cluster.command("scontrol", "update", f"NodeName={names}", "State=RESUME", check=False)
            queue = self.cluster.command("squeue", "--noheader", "--format=%i").split()
            return not queue and set(states) == {"idle"} and self.gluster.is_whole(self.cluster)

        until(is_clean, "clean site", 120)


class Job:
    """A training of 2 nodes × 2 ranks whose run directory lies on the volume."""

    def __init__(self, site: Site, out: Path, *words: str, launch: str = "", steps: int = STEPS) -> None:
        self.site, self.cluster, self.out = site, site.cluster, out
        self.run = site.gluster.mount_point / out.name
        self.log = out / "job.log"
        python = sys.executable
        train = shlex.join([python, str(PROGRAM), str(self.run), str(steps), str(out), *words])
        script = out / "job.sh"
        script.write_text(
            "#!/bin/bash\n"
            "#SBATCH --nodes=2 --ntasks-per-node=2 --requeue --open-mode=append\n"
            f"cd {out}\n"
            f"export PYTHONPATH={ROOT} OMP_NUM_THREADS=1\n"
            f"exec {python} -m hpcresume launch --run {self.run} --mpi srun {launch} -- {train}\n"
        )
        self.id = self.cluster.submit(script, "--signal=B:USR1@30", f"--output={self.log}")

    # ---- what it does

    def hold_at(self, call: str, name: str, rank: int = 0) -> None:
        """The next such call waits."""
        for old in ("held", "go"):
            (self.out / old).unlink(missing_ok=True)
        (self.out / "hold.new").write_text(json.dumps({"call": call, "name": name, "rank": rank}))
        (self.out / "hold.new").rename(self.out / "hold")

    def wait_until_held(self) -> Path:
        """The path of the call that waits."""
        self.wait(lambda: (self.out / "held").exists(), "held call")
        return Path((self.out / "held").read_text())

    def go_on(self) -> None:
        """Let the held call begin."""
        (self.out / "go").touch()

    def preempt(self) -> None:
        """A short job of the partition that preempts ours."""
        script = self.out / "high.sh"
        script.write_text("#!/bin/sh\nsleep 1\n")
        self.cluster.submit(script, "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null")

    # ---- what is seen

    def text(self) -> str:
        """Its output so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait(self, condition: Any, what: str, timeout: float = 90) -> None:
        """Wait until `condition()` is true."""
        try:
            self.cluster.wait(condition, f"{what} of job {self.id}", timeout)
        except Exception as error:
            raise AssertionError(f"{error}\n{self.text()}") from None

    def wait_for_step(self, step: int) -> None:
        """Wait until the training has passed `step`."""
        path = self.out / "steps.jsonl"
        self.wait(lambda: path.exists() and len(path.read_text().splitlines()) > step, f"step {step}")

    def state(self) -> dict[str, str]:
        """Slurm's words."""
        return self.cluster.job(self.id)

    def wait_until_ended(self, timeout: float = 120) -> dict[str, str]:
        """Slurm's words after the end."""
        self.wait(lambda: self.state()["JobState"] in ENDED, "end", timeout)
        return self.state()

    def seen(self, node: str = "n1") -> Path:
        """The run directory as a node sees it."""
        return self.site.seen_on(node, self.run)

    def events(self, attempt: int, name: str | None = None) -> list[dict[str, Any]]:
        """The ledger of an attempt and its supervisor's."""
        found: list[dict[str, Any]] = []
        folder = self.seen() / "attempts" / f"{attempt:04d}"
        for file in ("ledger.jsonl", "supervisor.jsonl"):
            with contextlib.suppress(OSError):
                for line in (folder / file).read_text().splitlines():
                    with contextlib.suppress(ValueError):
                        found.append(json.loads(line))
        return [event for event in found if name is None or event["event"] == name]

    def cause(self, attempt: int) -> str:
        """The cause that was recorded for an attempt."""
        causes = [event["cause"] for event in self.events(attempt, "ended") if "cause" in event]
        return str(causes[-1]) if causes else ""

    def processes(self) -> list[int]:
        """Its ranks."""
        pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
        return [pid for pid in pids if (words := program_of(pid)) and str(PROGRAM) in words[1:2]]


def assert_same(job: Job, uninterrupted: dict[str, object]) -> None:
    """The run is done, and its losses and final state are the uninterrupted run's, bit for bit."""
    assert job.state()["JobState"] == "COMPLETED", job.text()
    assert (job.seen() / "DONE").exists()
    losses: dict[int, set[str]] = {}
    for line in (job.out / "steps.jsonl").read_text().splitlines():
        losses.setdefault(json.loads(line)["step"], set()).add(json.loads(line)["loss"])
    assert losses == uninterrupted["losses"], job.text()
    digests = {json.loads((job.out / f"final-{rank}.json").read_text())["digest"] for rank in range(4)}
    assert digests == {uninterrupted["digest"]}
