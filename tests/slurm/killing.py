"""A training that kills its supervisor and itself once, as a bad node might. python killing.py RUN OUT"""

import os
import signal
import sys
from pathlib import Path

import hpcresume as hr


def main(run: str, out: Path) -> None:
    """Four steps; at the second, once, everything in the batch step dies."""
    once = out / "killed"
    with hr.session(run, every="1000 steps") as s:
        s["x"] = 0
        for step in s.steps(4):
            if step == 2 and not once.exists():
                once.touch()
                os.kill(os.getppid(), signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
