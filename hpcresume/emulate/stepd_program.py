"""Stands behind one task as slurmstepd does: `python -S -I stepd_program.py SOCKET [RANK]`. Standard library only.

Takes the task's command, environment and streams from srun over a socket, starts it with default signals, tells how
it ended, and stays until srun says so: so mpiexec sees no rank leave before all have. When srun is gone, the task is
killed.
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import signal
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from hpcresume.emulate import wire
else:
    import wire

__all__ = ["main"]

_FROM_MPI = ("PMIX_", "PMI_", "PMI2_", "OMPI_", "PRTE_", "HYDI_", "HYDRA_", "MPI_", "MPICH_", "PALS_", "OPAL_")
"""Variables by which a rank finds its world; the rest of a task's environment comes from srun."""


def main(words: list[str]) -> int:
    """Run one task; return 0, or 1 when there is no srun that wants it."""
    try:
        link = wire.connect(words[0])
    except OSError:
        return 1  # srun has gone, and has said why
    rank = int(words[1]) if len(words) > 1 else _rank()
    link.sendall(wire.encode({"task": rank}))
    streams = array.array("i")
    data, control, _, _ = link.recvmsg(1, socket.CMSG_SPACE(3 * streams.itemsize))
    if not data or not control:
        return 0
    streams.frombytes(control[0][2][: 3 * streams.itemsize])
    order = wire.receive(link)
    if order is None:
        return 0
    environ = dict(order["environ"])
    if len(words) == 1:
        environ.update({k: v for k, v in os.environ.items() if k.startswith(_FROM_MPI)})
    return _watch(link, order, environ, list(streams))


def _rank() -> int:
    for name in ("PMIX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"):
        if name in os.environ:
            return int(os.environ[name])
    raise SystemExit("stepd: no rank in the environment")


def _watch(link: socket.socket, order: dict[str, Any], environ: dict[str, str], streams: list[int]) -> int:
    read, write = os.pipe()
    for fd in (read, write):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _nothing)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    # Closed by the exec: from then on signals reach the task itself.
    started, begins = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(started)
        _become(order, environ, streams, begins)
    os.close(begins)
    os.read(started, 1)
    link.sendall(wire.encode({"started": pid}))
    for fd in streams:
        os.close(fd)
    told = False
    while True:
        ready, _, _ = select.select([link.fileno(), read], [], [], 1.0)
        if read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(read, 512)
        if not told:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                told = True
                try:
                    link.sendall(wire.encode({"exit": status}))
                except OSError:
                    return 0
        if link.fileno() in ready:
            message = wire.receive(link)
            if message is None:
                if not told:
                    _kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                return 0
            if "kill" in message and not told:
                _kill(pid, message["kill"])


def _nothing(_number: int, _frame: object) -> None:
    """A handler, so that the signal arrives at the wake-up descriptor."""


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(pid, number)


def _become(order: dict[str, Any], environ: dict[str, str], streams: Sequence[int], begins: int) -> NoReturn:
    """In the child: become the task. Does not return."""
    try:
        os.setsid()
        for target, fd in enumerate(_high(streams)):
            os.dup2(fd, target)
        os.closerange(3, begins)
        os.closerange(begins + 1, 256)
        for number in range(1, signal.NSIG):
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                with contextlib.suppress(OSError, ValueError):
                    signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        directory = order["directory"]
        try:
            os.chdir(directory)
        except OSError:
            os.write(2, os.fsencode(f"slurmstepd: error: couldn't chdir to `{directory}': going to /tmp instead\n"))
            os.chdir("/tmp")  # noqa: S108
        environ["SLURM_TASK_PID"] = str(os.getpid())
        command = order["command"]
        try:
            os.execvpe(command[0], command, environ)  # noqa: S606
        except OSError as error:
            os.write(2, os.fsencode(f"slurmstepd: error: execve(): {command[0]}: {error.strerror}\n"))
            os._exit(error.errno or 1)
    finally:
        os._exit(1)


def _high(streams: Sequence[int]) -> list[int]:
    """Copies above 2, so that none is overwritten while the three are put in place."""
    import fcntl

    return [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in streams]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
