"""A training that crashes at its third step for as long as a file `bug` stands beside it. python crashing.py RUN OUT"""

import sys
import time
from pathlib import Path

import hpcresume as hr


def main(run: str, out: Path) -> None:
    """Six steps, nothing saved in between."""
    with hr.session(run, every="1000 steps") as s:
        s["x"] = 0
        for step in s.steps(6):
            time.sleep(0.05)
            if step == 3 and (out / "bug").exists():
                raise ValueError("the bug")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
