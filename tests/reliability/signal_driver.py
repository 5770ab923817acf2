"""A training that never ends by itself, shot at as a schedule says: signal_driver.py RUN OUT SCHEDULE.

SCHEDULE is JSON: {"shots": [[moment, rank or -1, signal, count], ...], "foreign": bool, "fork": bool}.
Moments: first, numpy, hpcresume, open, tracked, step:K, collective:K, saving:N, leaving, outside (not done here).
Writes OUT/up-RANK (its pid) with its first instructions, and OUT/end-RANK.json when the session has ended.
"""

import json
import os
import signal
import sys

RANK = int(os.environ["OMPI_COMM_WORLD_RANK"])
RUN, OUT, SCHEDULE = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
FIRED = []


def shoot(moment: str) -> None:
    """Send this process the signals that the schedule has for this moment."""
    for when, rank, name, count in SCHEDULE["shots"]:
        if when == moment and rank in (RANK, -1):
            FIRED.append(moment)
            for _ in range(count):
                os.kill(os.getpid(), signal.Signals[f"SIG{name}"])


with open(os.path.join(OUT, f".up-{RANK}"), "w") as file:
    file.write(str(os.getpid()))
os.rename(os.path.join(OUT, f".up-{RANK}"), os.path.join(OUT, f"up-{RANK}"))
shoot("first")

import threading  # noqa: E402
import time  # noqa: E402

import numpy as np  # noqa: E402
from mpi4py import MPI  # noqa: E402

shoot("numpy")
import hpcresume as hr  # noqa: E402
from hpcresume.io.files import Files, substituted  # noqa: E402

shoot("hpcresume")


class ShootingFiles(Files):
    """Signals come in the middle of the save: before its N-th write or fsync."""

    calls = 0

    def fsync(self, fd: int) -> None:
        self.shoot()
        super().fsync(fd)

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        if len(data) != 8:  # the progress file is written in every step
            self.shoot()
        return super().pwrite(fd, data, offset)

    def rename(self, source, target) -> None:
        if target.name == "decision.json":
            shoot("leaving")
        super().rename(source, target)

    def shoot(self) -> None:
        if hr_session is not None and hr_session.poll():
            self.calls += 1
            shoot(f"saving:{self.calls}")


hr_session = None
comm = MPI.COMM_WORLD
foreign = []


def child_that_sleeps() -> int:
    """A forked worker, as a DataLoader has them; it is shot at together with its parent."""
    pid = os.fork()
    if pid == 0:
        time.sleep(30)
        os._exit(0)
    return pid


def train(s: hr.Session) -> None:
    """One reduction a step; a rank that is to be shot in a collective waits there for the other one."""
    weights = np.zeros(3)
    s.track(weights=weights)
    shoot("tracked")
    worker = child_that_sleeps() if SCHEDULE["fork"] else 0
    try:
        for step in s.steps(10**9):
            shot_in_collective = [shot for shot in SCHEDULE["shots"] if shot[0] == f"collective:{step}"]
            if any(shot[1] in (RANK, -1) for shot in shot_in_collective):
                threading.Timer(0.05, shoot, [f"collective:{step}"]).start()
            elif shot_in_collective:
                time.sleep(0.2)
            if shot_in_collective and shot_in_collective[0][1] == -1 and RANK == 0:
                time.sleep(0.2)
            total = np.empty(3)
            comm.Allreduce(np.full(3, step + RANK, dtype=float), total)
            weights += total
            if worker and step == 3:
                os.kill(worker, signal.SIGUSR1)
            shoot(f"step:{step}")
            time.sleep(0.002)
    finally:
        if worker:
            assert os.waitpid(worker, os.WNOHANG) == (0, 0), "the worker died of its parent's warning"
            os.kill(worker, signal.SIGKILL)
            os.waitpid(worker, 0)


end: dict = {}
if SCHEDULE["foreign"]:
    for each in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(each, lambda number, frame: foreign.append(number))
try:
    with substituted(ShootingFiles()), hr.session(RUN, every="1000000 steps", watchdog="40s") as s:
        hr_session = s
        shoot("open")
        train(s)
except BaseException as error:
    end = {"end": type(error).__name__, "step": getattr(error, "step", None), "error": str(error)}
    raise
finally:
    with open(os.path.join(OUT, f"end-{RANK}.json"), "w") as file:
        json.dump({**end, "fired": FIRED, "foreign": len(foreign)}, file)
