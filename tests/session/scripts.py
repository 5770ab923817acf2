"""Small training scripts that tests start as processes of their own. No torch: they begin within half a second."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.mpi import child_environment

__all__ = ["SHIM", "decision", "events", "run_script", "shimmed"]

SHIM = ["env", "--block-signal=USR1", "--block-signal=USR2"]
"""What stands between srun or mpiexec and the program (coreutils 8.31)."""


def shimmed(argv: list[str]) -> list[str]:
    """The command with the warning signals blocked from its first instruction on."""
    return [*SHIM, *argv]


def run_script(
    folder: Path, source: str, *args: str, env: dict[str, str] | None = None, shim: bool = True, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run a script in a fresh process."""
    script = folder / f"script-{abs(hash(source))}.py"
    script.write_text(source)
    argv = [sys.executable, str(script), *args]
    return subprocess.run(
        shimmed(argv) if shim else argv,
        env=child_environment(env),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def events(run: Path | str, attempt: int, name: str | None = None) -> list[dict[str, Any]]:
    """The events of an attempt in rank 0's ledger."""
    lines = (Path(run) / "attempts" / f"{attempt:04d}" / "ledger.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [event for event in found if name is None or event["event"] == name]


def decision(run: Path | str, attempt: int) -> dict[str, Any] | None:
    """The decision of an attempt."""
    path = os.path.join(run, "attempts", f"{attempt:04d}", "decision.json")
    return json.loads(Path(path).read_text()) if os.path.exists(path) else None
