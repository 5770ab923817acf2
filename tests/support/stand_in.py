"""A training without hpcresume: fulfils the files between session and supervisor, and nothing more.

`python stand_in.py RUN STEPS SECONDS_A_STEP [crash=STEP] [deaf]`. Each rank adds numbers up; all agree on a stop
by an allreduce at
every step; rank 0 keeps the one checkpoint, RUN/state.json. With `deaf` warnings are not heard.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import time
from pathlib import Path

from mpi4py import MPI

WORLD = MPI.COMM_WORLD


def replace(path: Path, value: object) -> None:
    """Write a small JSON file atomically."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(value))
    scratch.replace(path)


def claim(run: Path) -> Path:
    """The next attempt's directory, and the pointer to it for the supervisor."""
    (run / "attempts").mkdir(parents=True, exist_ok=True)
    number = len(list((run / "attempts").iterdir())) + 1
    attempt = run / "attempts" / f"{number:04d}"
    attempt.mkdir()
    replace(Path(os.environ["HPCRESUME_LAUNCH_DIR"]) / "session.json", {"run": str(run), "attempt": number})
    return attempt


def record(attempt: Path, event: str, **fields: object) -> None:
    """One line of the ledger."""
    with (attempt / "ledger.jsonl").open("a") as ledger:
        ledger.write(json.dumps({"t": time.time(), "mono": time.monotonic(), "event": event, **fields}) + "\n")


def main(run: Path, steps: int, seconds: float, *words: str) -> None:
    """Train until done or warned."""
    crash = next((int(word.partition("=")[2]) for word in words if word.startswith("crash=")), -1)
    heard: list[int] = []
    for warning in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
        signal.signal(warning, lambda number, frame: heard.append(number))
    attempt = claim(run) if WORLD.rank == 0 else None
    WORLD.Barrier()
    if "deaf" not in words:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1, signal.SIGUSR2})
    saved = run / "state.json"
    state = json.loads(saved.read_text()) if saved.exists() else {"step": 0, "sum": 0}
    print(f"rank {WORLD.rank} on {os.environ.get('HPCRESUME_NODE')} starts at {state['step']}", flush=True)
    stop = False
    while state["step"] < steps and not stop:
        time.sleep(seconds)
        state = {"step": state["step"] + 1, "sum": state["sum"] + WORLD.allreduce(WORLD.rank + state["step"])}
        if state["step"] == crash and WORLD.rank == WORLD.size - 1:
            os._exit(3)  # MPI_Finalize would wait for the others
        stop = "deaf" not in words and WORLD.allreduce(len(heard), MPI.MAX) > 0
        if attempt is not None:
            (attempt / "progress").write_bytes(struct.pack("<q", state["step"]))
            if stop or state["step"] % 10 == 0 or state["step"] == steps:
                replace(saved, state)
                record(attempt, "saved", step=state["step"], generation=f"g{state['step']:012d}-a0001")
    if attempt is not None:
        decision = "done" if state["step"] >= steps else "come-back"
        replace(attempt / "decision.json", {"decision": decision, "reason": "stand-in", "step": state["step"]})
    WORLD.Barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:])
