"""One node's torchrun agent, with warnings passed on to its workers: `python torchrun_agent.py [options] -- COMMAND …`.

    --nodes N        agents in all
    --workers W      processes to start on this node
    --address HOST --port PORT   where the first node's agent keeps the store
    --id TEXT        names this start of the job

torchrun's own agent dies of USR1 and answers TERM by ending its workers 30 s later, whatever the scheduler grants.
Here all of these signals are blocked in the agent, one thread waits for them, and each worker gets them once. A
worker begins with USR1 and USR2 blocked, so that an early one waits for the session, and dies with its agent.
torchrun turns every failure into exit code 1; this ends with the first failed worker's own code, 128 + n for a signal.

Run by path; imports nothing of hpcresume, so that it works wherever torch does.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

__all__ = ["Courier", "agent_arguments", "exit_code", "main", "send", "workers_of"]

SHIM = Path(__file__).resolve().parents[1] / "io" / "shim.py"
SCRATCH = SHIM.with_name("scratch.py")
PASSED_ON = frozenset({signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP})
LOOK_EVERY = 0.1
"""Seconds between looks for workers that are new since the warning."""


class Courier(threading.Thread):
    """Waits for the warnings that are blocked everywhere else and gives each worker every kind of them.

    A warning is given again to nobody, but also to workers that are started after it came: one that comes while
    torch is being imported would be lost otherwise.
    """

    def __init__(self) -> None:
        super().__init__(name="pass warnings on", daemon=True)
        self._came: dict[int, int] = {}
        self._given: dict[tuple[int, int], int] = {}

    def run(self) -> None:
        """Body of the thread."""
        while True:
            taken = signal.sigtimedwait(PASSED_ON, LOOK_EVERY) if self._came else signal.sigwaitinfo(PASSED_ON)
            if taken is not None:
                self._came[taken.si_signo] = self._came.get(taken.si_signo, 0) + 1
            for pid in workers_of(os.getpid()):
                self._give(pid)

    def _give(self, pid: int) -> None:
        for number, count in self._came.items():
            if self._given.get((pid, number), 0) < count and send(pid, number):
                self._given[pid, number] = count


def workers_of(agent: int) -> list[int]:
    """The agent's children that have become workers: torchrun tells each its LOCAL_RANK."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal() and _is_worker(int(name), agent)]


def _is_worker(pid: int, agent: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        if int(stat[stat.rindex(")") + 2 :].split()[1]) != agent:
            return False
        return any(pair.startswith(b"LOCAL_RANK=") for pair in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except (OSError, ValueError, IndexError):
        return False


def send(pid: int, number: int) -> bool:
    """Signal a child; False when it is gone. A child that nobody has waited for keeps its pid."""
    try:
        os.kill(pid, number)
    except OSError:
        return False
    return True


def agent_arguments(options: argparse.Namespace, node: int, logs: str) -> list[str]:
    """The words of torchrun for this node.

    The static rendezvous, and not c10d: there the order of the nodes is that of their addresses, and rank 0 must
    be on the first one, where the supervisor is. With no restarts there is nothing else that c10d would do.
    """
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    shim = [sys.executable, "-S", "-I", str(SHIM), "--only-blocked", "--block", "USR1", "--block", "USR2",
            "--end-with-parent", "KILL", "--"]  # fmt: skip
    return [
        f"--nnodes={options.nodes}",
        f"--node-rank={node}",
        f"--nproc-per-node={options.workers}",
        "--rdzv-backend=static",
        f"--rdzv-endpoint={options.address}:{options.port}",
        f"--rdzv-id={options.id}",
        f"--master-addr={options.address}",
        f"--master-port={options.port}",
        "--max-restarts=0",
        f"--log-dir={logs}",
        "--no-python",
        *shim,
        *command,
    ]


def exit_code(failures: dict[int, Any]) -> int:
    """Of the worker that failed first, as a shell would show it."""
    first = min(failures.values(), key=lambda failure: failure.timestamp)
    code = int(first.exitcode)
    return 128 - code if code < 0 else code or 1


def _run(words: list[str]) -> int:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    try:
        run(parse_args(words))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        for rank, failure in sorted(error.failures.items()):
            how = f"killed by signal {-failure.exitcode}" if failure.exitcode < 0 else f"exit code {failure.exitcode}"
            sys.stderr.write(f"hpcresume agent: rank {rank} (local rank {failure.local_rank}): {how}\n")
        sys.stderr.flush()
        return exit_code(error.failures)
    return 0


def main(words: list[str]) -> int:
    """Run the agent to its end; the exit code."""
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    for number in PASSED_ON:  # a signal that is set to be ignored is not kept while it is blocked
        signal.signal(number, signal.SIG_DFL)
    Courier().start()
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--id", required=True)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(words)
    node = int(os.environ.get("SLURM_NODEID") or 0) if options.nodes > 1 else 0
    logs = _scratch()
    try:
        return _run(agent_arguments(options, node, str(logs.path)))
    finally:
        logs.remove()


def _scratch() -> Any:
    """A directory that torch wants for logs; what killed agents left of theirs on this node goes at the same time."""
    spec = importlib.util.spec_from_file_location("hpcresume_agent_scratch", SCRATCH)
    assert spec is not None, "it is a Python file"
    assert spec.loader is not None, "as above"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Scratch("hpcresume-agent-")


if __name__ == "__main__":
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]  # our own folder: its submitit.py must not hide the library
    sys.exit(main(sys.argv[1:]))
