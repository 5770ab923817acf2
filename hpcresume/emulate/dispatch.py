"""Brings each message of a stand-in to the command that answers it. Owns steps and waiting sbatches, no rule."""

from __future__ import annotations

import dataclasses
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpcresume.emulate import stepd_program
from hpcresume.emulate.census import ENGINE, MARK, TASK
from hpcresume.emulate.commands.call import Call, Reply, ScriptText
from hpcresume.emulate.commands.sacct import sacct
from hpcresume.emulate.commands.sbatch import sbatch
from hpcresume.emulate.commands.scancel import scancel
from hpcresume.emulate.commands.scontrol import scontrol
from hpcresume.emulate.commands.sinfo import sinfo
from hpcresume.emulate.commands.squeue import squeue
from hpcresume.emulate.commands.srun import StepPlan, plan_step, task_variables
from hpcresume.emulate.controller import Controller
from hpcresume.emulate.deeds import deed
from hpcresume.emulate.getopt_long import OptionError
from hpcresume.emulate.jobs import Step
from hpcresume.emulate.server import Connection
from hpcresume.errors import ConfigError

__all__ = ["COMMANDS", "Dispatcher"]

Command = Callable[[Call, Controller], Reply]
COMMANDS: dict[str, Command] = {
    "deed": deed,
    "sacct": sacct,
    "sbatch": sbatch,
    "scancel": scancel,
    "scontrol": scontrol,
    "sinfo": sinfo,
    "squeue": squeue,
}


class Dispatcher:
    """Answers messages."""

    def __init__(
        self, controller: Controller, scratch: Path, mpiexec: Callable[[], tuple[list[str], dict[str, str]]]
    ) -> None:
        """`scratch` holds the steps' sockets; `mpiexec` gives its command and variables, empty without one."""
        self._controller = controller
        self._scratch = scratch
        self._mpiexec = mpiexec
        self._waiting: list[tuple[Connection, Reply]] = []
        self._sockets = 0

    def handle(self, connection: Connection, message: dict[str, Any]) -> None:
        """Answer a message, or remember to."""
        if connection.asked is not None:
            self._more(connection, message)
            return
        connection.asked = message
        call = _call(message)
        try:
            self._begin(connection, call, message)
        except Exception as error:  # noqa: BLE001 - one command's failure must not take the cluster down
            connection.answer(err=f"{call.command}: error: {type(error).__name__}: {error}\n", code=1)

    def _begin(self, connection: Connection, call: Call, message: dict[str, Any]) -> None:
        if call.command == "srun":
            self._srun(connection, call, message)
            return
        command = COMMANDS.get(call.command)
        if command is None:
            connection.answer(err=f"{call.command}: not known to the emulated cluster\n", code=1)
            return
        self._run(connection, command, call)

    def _run(self, connection: Connection, command: Command, call: Call) -> None:
        try:
            reply = command(call, self._controller)
        except OptionError as error:
            reply = Reply(err=error.text, code=error.code)
        self._reply(connection, reply)

    def _reply(self, connection: Connection, reply: Reply) -> None:
        if reply.wanted is not None:
            connection.send(wanted=vars(reply.wanted))
        elif reply.wait_for:
            connection.send(out=reply.out, err=reply.err)
            self._waiting.append((connection, reply))
        else:
            connection.answer(reply.out, reply.err, reply.code)

    def _more(self, connection: Connection, message: dict[str, Any]) -> None:
        """The second message of a conversation: the script, a step's signal, or its end."""
        assert connection.asked is not None
        if "script" in message:
            call = dataclasses.replace(_call(connection.asked), script=ScriptText(message["script"], message["path"]))
            try:
                self._run(connection, sbatch, call)
            except Exception as error:  # noqa: BLE001 - as in handle
                connection.answer(err=f"sbatch: error: {type(error).__name__}: {error}\n", code=1)
        elif "step" in connection.asked:
            self._step_says(connection, message)

    def turn(self) -> None:
        """Let sbatch --wait go when its jobs are over."""
        for connection, reply in list(self._waiting):
            jobs = [self._controller.jobs[number] for number in reply.wait_for]
            if all(job.over for job in jobs):
                self._waiting.remove((connection, reply))
                connection.send(
                    code=max(job.exit_code or (128 + job.killed_by if job.killed_by else 0) for job in jobs)
                )

    # ---- steps

    def _srun(self, connection: Connection, call: Call, message: dict[str, Any]) -> None:
        try:
            plan = plan_step(call, self._controller)
        except OptionError as error:
            connection.answer(err=error.text, code=error.code)
            return
        if isinstance(plan, str):
            connection.answer(out=plan)
            return
        try:
            mpiexec = self._mpiexec() if plan.mpi != "none" else ([], {})
        except ConfigError as error:
            connection.answer(err=f"srun: error: --mpi={plan.mpi}: {error.what}; try: srun --mpi=none\n", code=1)
            return
        job = plan.job
        step = Step(len(job.steps), plan.name, plan.nodes, plan.tasks, time.time(), limit=plan.limit)
        job.steps.append(step)
        job.srun_pids.add(int(message.get("pid", 0)))
        assert connection.asked is not None
        connection.asked["step"], connection.asked["job"] = step, job

        def closed() -> None:
            if step.end is None:
                step.end, step.cancelled = time.time(), True

        connection.on_close = closed
        connection.send(out="", err=plan.warnings, step=self._order(plan, step, *mpiexec))

    def _order(self, plan: StepPlan, step: Step, mpiexec: list[str], environ: dict[str, str]) -> dict[str, Any]:
        """All that `srun_program` needs."""
        job = plan.job
        self._sockets += 1
        return {
            **plan.options,
            "number": step.number,
            "id": f"{job.number}.{step.number}",
            "nodes": plan.nodes,
            "tasks": plan.tasks,
            "indices": [job.nodes.index(name) for name in plan.nodes],
            "command": plan.command,
            "variables": task_variables(plan, step.number),
            "socket": str(self._scratch / f"step{self._sockets}"),
            "stepd": [sys.executable, "-S", "-I", str(Path(stepd_program.__file__))],
            "mark": [MARK, f"{self._controller.place.token}.{job.number}{ENGINE}"],
            "task": TASK,
            "mpiexec": mpiexec,
            "mpiexec_environ": environ,
        }

    def _step_says(self, connection: Connection, message: dict[str, Any]) -> None:
        assert connection.asked is not None
        job, step = connection.asked["job"], connection.asked["step"]
        if "done" in message:
            step.end, step.exit_code = time.time(), int(message["done"])
        elif "signal" in message:
            self._controller.runner.signal_step(job, step.number, signal.Signals(int(message["signal"])))


def _call(message: dict[str, Any]) -> Call:
    return Call(
        str(message.get("command", "")),
        [str(word) for word in message.get("words", ())],
        str(message.get("cwd", "/")),
        {str(k): str(v) for k, v in message.get("environ", {}).items()},
    )
