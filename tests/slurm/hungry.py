"""Two ranks; the second wants, once, more memory than its node lets it have. python hungry.py RUN STEPS OUT"""

import sys
import time
from pathlib import Path

import hpcresume as hr
from hpcresume.comm.mpi import MpiRanks

MEBIBYTE = 1 << 20


def main(run: str, steps: int, out: Path) -> None:
    """In the fourth step the kernel has to kill."""
    ranks, once = MpiRanks(), out / "was-hungry"
    with hr.session(run, every="1000 steps", comm=ranks, reaction=0) as s:
        s["x"] = 0
        for step in s.steps(steps):
            ranks.barrier()
            if step == 4 and ranks.rank == 1 and not once.exists():
                once.touch()
                hoard = [bytes([1]) * MEBIBYTE for _ in range(4096)]
                print(f"{len(hoard)} MiB fit, and should not have", flush=True)
            time.sleep(0.01)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
