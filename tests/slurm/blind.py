"""The training of train.py, whose first start never sees that another one has begun.

As on a filesystem whose directories lag for ever: that it leaves and commits no more rests on what it sees, and what
readers take for the run's history must not.
"""

import os
import sys
from pathlib import Path

from hpcresume.checkpoint import attempts, steps
from hpcresume.io.paths import RunPaths
from hpcresume.session import fence
from tests.slurm.train import main

if __name__ == "__main__":
    if not os.environ.get("SLURM_RESTART_COUNT"):
        seen = RunPaths.attempt_numbers

        def blind(self: RunPaths) -> list[int]:
            """No number but the first."""
            return [number for number in seen(self) if number == 1]

        RunPaths.attempt_numbers = blind  # type: ignore[method-assign]
        fence._is_there = lambda path: False
        assert steps.check_fence
        assert attempts.newest_attempt
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
