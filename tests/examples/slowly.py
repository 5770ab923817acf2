"""Runs the Gray–Scott example with a pause after each step, so that a preemption surely comes before its end.

`python slowly.py SECONDS PROGRAM [ARGUMENT]...`
"""

from __future__ import annotations

import runpy
import sys
import time
from pathlib import Path


def main(seconds: float, program: str) -> None:
    """Become the program, slower."""
    sys.path.insert(0, str(Path(program).parent))
    import model

    advance = model.GrayScott.advance

    def advance_and_wait(self, noise):
        advance(self, noise)
        time.sleep(seconds)

    model.GrayScott.advance = advance_and_wait
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    _, pause, *sys.argv = sys.argv
    main(float(pause), sys.argv[0])
