"""One measurement, in a process and on a cluster of its own.

    python -m benchmarks.peers.measure CONTENDER CASE FOLDER

Prints a line of JSON. FOLDER keeps what the job left.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.peers.bench import Bench, NeverFinishesError, NotBroughtAboutError
from benchmarks.peers.cases import CASES, Case
from benchmarks.peers.contenders import CONTENDERS, Contender
from hpcresume.testing import MiniSlurm

BATCH, EVERY = 4, 20
"""As in training.py, which imports torch."""


def measure(contender: Contender, case: Case, folder: Path) -> dict[str, Any]:
    """Submit, disturb, wait for the end; what was seen."""
    out = folder / "job"
    out.mkdir(parents=True)
    began = time.monotonic()
    with MiniSlurm(folder / "c", nodes=3, grace=case.grace, user_signal=case.user_signal) as cluster:
        bench = Bench(contender, cluster, out, case.terms, dict(case.variables))
        failed = ""
        moment = None
        try:
            moment = case.act(bench)
            bench.wait_until_finished()
        except NotBroughtAboutError as error:
            failed = str(error)
        except NeverFinishesError as error:
            bench.seen_states.append(str(error))
        finally:
            cluster.copy_logs(folder / "logs")
    return seen(bench, moment, failed, time.monotonic() - began)


def seen(bench: Bench, moment: float | None, failed: str, seconds: float) -> dict[str, Any]:
    """The facts of a measurement."""
    lives = bench.lives()
    finals = [json.loads(path.read_text()) for path in sorted(bench.out.glob("final-*.json"))]
    often, seldom = lives.samples(BATCH)
    away = None if moment is None else lives.first_step_after(moment)
    return {
        "finished": len(finals) == 2,
        "deeds": bench.deeds,
        "states": bench.seen_states,
        "hung": bench.hung,
        "attempts": lives.attempts,
        "lost": lives.lost,
        "often": often,
        "seldom": seldom,
        "held_up": _rounded(lives.held_up(EVERY)),
        "first_step": _rounded(lives.first_step),
        "digests": sorted({final["digest"] for final in finals}),
        "intact": all(final["frozen_intact"] for final in finals),
        "away": _rounded(away),
        "seconds": round(seconds, 1),
        "failed": failed,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)


def main() -> None:
    """Measure what the command line names."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # which Slurm hands on to the jobs: an abort leaves no core file
    contender = next(each for each in CONTENDERS if each.name == sys.argv[1])
    case = next(each for each in CASES if each.name == sys.argv[2])
    print(json.dumps(measure(contender, case, Path(sys.argv[3]))))


if __name__ == "__main__":
    main()
