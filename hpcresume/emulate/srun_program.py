"""Runs one step as srun does: `client_program` hands over to it. Standard library only, run by path.

A small slurmstepd (`stepd_program`) stands behind every task: under mpiexec where the tasks are ranks of one MPI
world, alone with `--mpi=none`. It starts the task, tells how it ended, and ends it when srun is gone.
"""

from __future__ import annotations

import array
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, BinaryIO, TextIO

    from hpcresume.emulate import wire
    from hpcresume.emulate.srun_streams import Pipe, StandardInput, fill, is_null, ready_now, write_all
else:
    import wire
    from srun_streams import Pipe, StandardInput, fill, is_null, ready_now, write_all

__all__ = ["main"]

PASSED_ON = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGQUIT")
"""srun(1), SIGNALS AND ESCAPE SEQUENCES."""


def main(words: Sequence[str], connection: socket.socket, cwd: str) -> int:
    """Run a step to its end; return srun's exit code."""
    message = {"command": "srun", "words": words, "cwd": cwd, "environ": dict(os.environ), "pid": os.getpid()}
    connection.sendall(wire.encode(message))
    answer = wire.receive(connection)
    if answer is None:
        sys.stderr.write("srun: error: the emulated cluster has gone\n")
        return 1
    _say(answer.get("out", ""), sys.stdout)
    _say(answer.get("err", ""))
    if "step" not in answer:
        return int(answer["code"])
    return _Step(answer["step"], connection).run()


def _say(text: str, stream: TextIO | None = None) -> None:
    stream = sys.stderr if stream is None else stream
    if text:
        with contextlib.suppress(OSError):
            stream.buffer.write(os.fsencode(text))
            stream.buffer.flush()


def _nothing(_number: int, _frame: object) -> None:
    """A handler, so that the signal arrives at the wake-up descriptor."""


class _Task:
    """One task, seen through its slurmstepd."""

    def __init__(self, rank: int, node: str, index: int, local: int) -> None:
        self.rank = rank
        self.node = node
        self.index = index
        self.local = local
        self.link: socket.socket | None = None
        self.status: int | None = None
        self.started = False


class _Step:
    """The step's loop: signals, tasks, streams."""

    def __init__(self, step: dict[str, Any], controller: socket.socket) -> None:
        self.step = step
        self.controller = controller
        self.tasks: list[_Task] = []
        for index, (node, count) in enumerate(zip(step["nodes"], step["tasks"])):  # noqa: B905
            for local in range(count):
                self.tasks.append(_Task(len(self.tasks), node, index, local))
        self.kill_at: float | None = None
        self.terminated = False
        self.interrupted = -10.0
        self.files: dict[str, int] = {}
        self.pipes: dict[int, Pipe] = {}
        self.stdin = StandardInput()
        self.helpers: list[subprocess.Popen[bytes]] = []
        self.helper_log: BinaryIO | None = None
        self.waiting: list[int] = []
        self.wake = -1
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    # ---- begin

    def run(self) -> int:
        self._catch()
        path = self.step["socket"]
        fd, name = wire.address(path)
        self.listener.bind(name)
        os.close(fd)
        self.listener.listen(1024)
        try:
            self._start(path)
            self._loop()
        finally:
            for task in self.tasks:
                if task.link is not None:
                    task.link.close()
            self.listener.close()
            self._end_helpers()
            with contextlib.suppress(OSError):
                os.unlink(path)
        code = max([_code(task.status) for task in self.tasks if task.status is not None] or [1])
        with contextlib.suppress(OSError):
            self.controller.sendall(wire.encode({"done": code}))
        return code

    def _catch(self) -> None:
        self.wake, write = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for name in (*PASSED_ON, "SIGTERM", "SIGINT", "SIGCONT"):
            signal.signal(getattr(signal, name), _nothing)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _start(self, path: str) -> None:
        program = [*self.step["stepd"], path]
        base = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "PMIX_", "PMI_", "OMPI_COMM"))}
        base[self.step["mark"][0]] = self.step["mark"][1]
        if self.step["mpiexec"]:
            self.helper_log = open(path + ".log", "wb+")  # noqa: SIM115
            command = [*self.step["mpiexec"], "-n", str(len(self.tasks)), *program]
            environ = {**base, **self.step["mpiexec_environ"]}
            self.helpers.append(subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=self.helper_log,
                                                 stderr=self.helper_log))  # fmt: skip
            return
        for task in self.tasks:
            environ = {**base, self.step["task"]: f"{self.step['number']}.{task.rank}",
                       "HPCRESUME_NODE_INDEX": str(self._job_index(task))}  # fmt: skip
            self.helpers.append(subprocess.Popen([*program, str(task.rank)], env=environ, stdin=subprocess.DEVNULL))

    def _job_index(self, task: _Task) -> int:
        return int(self.step["indices"][task.index])

    # ---- the loop

    def _loop(self) -> None:
        while not self._over():
            links = {t.link.fileno(): t for t in self.tasks if t.link is not None and t.status is None}
            listener = self.listener.fileno()
            readers = [listener, self.wake, *links, *self.pipes, *([0] if self._hungry() else [])]
            timeout = 0.2 if self.kill_at is None else max(0.0, min(0.2, self.kill_at - time.monotonic()))
            for item in ready_now(readers, self.stdin.full(), timeout):
                if item == listener:
                    self._welcome()
                elif item == self.wake:
                    self._on_signals()
                elif item in self.pipes:
                    self._pump(item)
                elif item == 0:
                    self.stdin.feed()
                elif item in self.stdin:
                    self.stdin.pour(item)
                else:
                    self._hear(links[item])
            if self.kill_at is not None and time.monotonic() >= self.kill_at:
                self.kill_at = None
                self._signal(signal.SIGKILL)
            if self._helpers_failed():
                break
        while self.pipes:
            ready = ready_now([*self.pipes], [], 0.5)
            if not ready:
                break
            for item in ready:
                self._pump(item)

    def _over(self) -> bool:
        return all(task.status is not None for task in self.tasks)

    def _helpers_failed(self) -> bool:
        """Whether mpiexec is gone before its ranks have come: say why."""
        if not self.step["mpiexec"] or self.helpers[0].poll() is None:
            return False
        for task in self.tasks:
            if task.link is not None and task.status is None:
                return False
        missing = [task for task in self.tasks if task.link is None]
        if missing and self.helper_log is not None:
            self.helper_log.seek(0)
            _say(os.fsdecode(self.helper_log.read()[-4000:]))
            _say(f"srun: error: the MPI runtime did not start {len(missing)} tasks\n")
            for task in missing:
                task.status = 1 << 8
        return bool(missing)

    def _welcome(self) -> None:
        link, _ = self.listener.accept()
        hello = wire.receive(link)
        if hello is None or not 0 <= hello.get("task", -1) < len(self.tasks):
            link.close()
            return
        task = self.tasks[hello["task"]]
        streams, close = self._streams(task)
        order = wire.encode({
            "command": self.step["command"],
            "environ": self._environ(task),
            "directory": self.step["directory"],
            "node": task.node,
        })  # fmt: skip
        fds = array.array("i", streams)
        link.sendmsg([b"F"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        link.sendall(order)
        for fd in close:
            os.close(fd)
        task.link = link

    def _environ(self, task: _Task) -> dict[str, str]:
        environ = self.step["environ"] if self.step["environ"] is not None else dict(os.environ)
        first = task.rank - task.local
        count = self.step["tasks"][task.index]
        return {
            **environ,
            **self.step["variables"],
            "SLURM_PROCID": str(task.rank),
            "SLURM_LOCALID": str(task.local),
            "SLURM_NODEID": str(task.index),
            "SLURM_GTIDS": ",".join(str(first + i) for i in range(count)),
            "SLURMD_NODENAME": task.node,
            "HPCRESUME_NODE": task.node,
            "HPCRESUME_NODE_INDEX": str(self._job_index(task)),
            self.step["task"]: f"{self.step['number']}.{task.rank}",
        }

    # ---- streams

    def _streams(self, task: _Task) -> tuple[list[int], list[int]]:
        """Descriptors of a task's three streams, and those of them to be closed here."""
        close: list[int] = []
        out = self._output(task, self.step["output"], 1, close)
        same = self.step["error"] is None and self.step["output"] is not None
        err = out if same else self._output(task, self.step["error"], 2, close)
        return [self._input(task, close), out, err], close

    def _output(self, task: _Task, pattern: str | None, own: int, close: list[int]) -> int:
        if pattern == "none" or (pattern is not None and pattern.isdecimal() and int(pattern) != task.rank):
            pattern = os.devnull
        if pattern is not None and pattern != "all" and not pattern.isdecimal():
            return self._file(task, pattern)
        if not self.step["label"]:
            return own
        read, write = os.pipe()
        self.pipes[read] = Pipe(own, task.rank)
        close.append(write)
        return write

    def _file(self, task: _Task, pattern: str) -> int:
        letters = {**self.step["letters"], "t": str(task.rank), "n": str(task.index), "N": task.node,
                   "s": str(self.step["number"]), "J": self.step["id"]}  # fmt: skip
        path = os.path.join(self.step["directory"], fill(pattern, letters))
        if path not in self.files:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (0 if self.step["append"] else os.O_TRUNC)
            try:
                self.files[path] = os.open(path, flags, 0o644)
            except OSError as error:
                _say(f"srun: error: Could not open stdout file {path}: {error.strerror}\n")
                self.files[path] = os.open(os.devnull, os.O_WRONLY)
        return self.files[path]

    def _input(self, task: _Task, close: list[int]) -> int:
        wish = self.step["input"]
        if wish is not None and wish != "all" and not wish.isdecimal():
            path = os.devnull if wish == "none" else os.path.join(self.step["directory"], wish)
            try:
                fd = os.open(path, os.O_RDONLY)
            except OSError:
                fd = os.open(os.devnull, os.O_RDONLY)
            close.append(fd)
            return fd
        mine = wish is None or wish == "all" or int(wish) == task.rank
        if len(self.tasks) == 1 and mine and not is_null(0):
            return 0
        if not mine or is_null(0):
            fd = os.open(os.devnull, os.O_RDONLY)
            close.append(fd)
            return fd
        close.append(self.stdin.pipe())
        return close[-1]

    def _hungry(self) -> bool:
        """What comes goes to all tasks, once all are there."""
        return self.stdin.hungry() and all(task.link is not None for task in self.tasks)

    def _pump(self, fd: int) -> None:
        """Lines of a task with its number before them."""
        pipe = self.pipes[fd]
        data = os.read(fd, 65536)
        lines = (pipe.rest + data).split(b"\n")
        tail = lines.pop()
        if not data and tail:
            lines, tail = [*lines, tail], b""
        width = len(str(len(self.tasks) - 1))
        out = b"".join(b"%*d: %b\n" % (width, pipe.rank, line) for line in lines)
        if out:
            write_all(pipe.target, out)
        if data:
            pipe.rest = tail
        else:
            os.close(fd)
            del self.pipes[fd]

    # ---- ends and signals

    def _hear(self, task: _Task) -> None:
        message = wire.receive(task.link) if task.link is not None else None
        if message is None:
            task.status = signal.SIGKILL  # its node is gone
        elif "started" in message:
            task.started = True
            self._send_waiting()
            return
        else:
            task.status = message["exit"]
        self._report(task, int(task.status or 0))

    def _report(self, task: _Task, status: int) -> None:
        code, number = status >> 8, status & 127
        if not status:
            return
        if number:
            words = _SIGNALS.get(number) or signal.strsignal(number)
            text = f"{words}{' (core dumped)' if status & 128 else ''}"
        else:
            text = f"Exited with exit code {code}"
        if not self.step["quiet"]:
            _say(f"srun: error: {task.node}: task {task.rank}: {text}\n")
        if self.step["kill_on_bad_exit"] and not self.terminated and not self._over():
            _say(f"srun: launch/slurm: _step_signal: Terminating StepId={self.step['id']}\n")
            self._terminate(signal.SIGTERM)

    def _terminate(self, number: int) -> None:
        self.terminated = True
        self.kill_at = time.monotonic() + (self.step["kill_wait"] if number != signal.SIGKILL else 0.0)
        self._signal(number)

    def _signal(self, number: int) -> None:
        """Every process of the step is signalled, as soon as all tasks are there."""
        self.waiting.append(number)
        self._send_waiting()

    def _send_waiting(self) -> None:
        if all(task.started or task.status is not None for task in self.tasks):
            for number in self.waiting:
                self._send(number)
            self.waiting.clear()

    def _send(self, number: int) -> None:
        """The controller knows all the processes."""
        try:
            self.controller.sendall(wire.encode({"signal": int(number)}))
        except OSError:
            for task in self.tasks:
                if task.link is not None and task.status is None:
                    task.link.sendall(wire.encode({"kill": int(number)}))

    def _on_signals(self) -> None:
        try:
            numbers = os.read(self.wake, 512)
        except BlockingIOError:
            return
        for number in numbers:
            if number == signal.SIGTERM:
                _say("srun: forcing job termination\n")
                _say("srun: Job step aborted: Waiting up to 7 seconds for job step to finish.\n")
                self._terminate(signal.SIGKILL)
            elif number == signal.SIGINT:
                self._on_interrupt()
            elif number != signal.SIGCONT:
                self._signal(number)

    def _on_interrupt(self) -> None:
        """Ctrl-C: the first time it says what runs, the second within a second ends the step."""
        now = time.monotonic()
        if now - self.interrupted <= 1.0:
            _say(f"srun: sending Ctrl-C to StepId={self.step['id']}\n")
            self._signal(signal.SIGINT)
            self._terminate(signal.SIGTERM)
            return
        self.interrupted = now
        _say("srun: interrupt (one more within 1 sec to abort)\n")
        last = len(self.tasks) - 1
        _say(f"srun: StepId={self.step['id']} {'task 0' if not last else f'tasks 0-{last}'}: running\n")

    def _end_helpers(self) -> None:
        until = time.monotonic() + 5.0
        for helper in self.helpers:
            try:
                helper.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                helper.kill()
                helper.wait()


_SIGNALS = {int(signal.SIGKILL): "Killed", int(signal.SIGTERM): "Terminated", int(signal.SIGSEGV): "Segmentation fault",
            int(signal.SIGABRT): "Aborted"}  # fmt: skip


def _code(status: int) -> int:
    return 128 + (status & 127) if status & 127 else status >> 8
