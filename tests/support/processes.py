"""Several plain processes at once, as a launcher without MPI starts them."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Mapping, Sequence

from tests.support.mpi import child_environment

__all__ = ["run_together", "torch_variables"]


def torch_variables(size: int) -> list[dict[str, str]]:
    """What torchrun sets for each of `size` ranks on this machine, on a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]


def run_together(
    argv: Sequence[str], variables: Sequence[Mapping[str, str]], timeout: float = 60
) -> list[subprocess.CompletedProcess[str]]:
    """Run `argv` once for each mapping of variables, all at the same time.

    Raises:
        subprocess.TimeoutExpired: one ran past `timeout` seconds; all were killed.
    """
    end = time.monotonic() + timeout
    started = [
        subprocess.Popen(
            argv,
            env=child_environment(each),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for each in variables
    ]
    done = []
    try:
        for process in started:
            out, err = process.communicate(timeout=max(0.1, end - time.monotonic()))
            done.append(subprocess.CompletedProcess(argv, process.returncode, out, err))
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.communicate()
    return done
