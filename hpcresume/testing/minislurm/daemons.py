"""The processes of a small Slurm: started, recorded by pid and start time, found again, ended.

Only processes that this cluster started are ever signalled. Two things tell them: a record of each daemon in the
cluster's directory, and a mark in the environment that covers the moment before the record, and what a daemon started.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcresume.io.processes import MarkedProcess, end_marked, send_signal, start_time
from hpcresume.testing.minislurm.places import Places

__all__ = ["MARK", "Daemons", "Relative", "daemon_environment", "relatives", "search_path", "send", "user_name"]

MARK = "HPCRESUME_MINISLURM"
"""Its value is the cluster's token. Never part of what users get as environment: they would be swept away too."""

_KEPT = ("LD_LIBRARY_PATH", "TMPDIR", "TZ")
_RECORD = ".process"
_PROC = Path("/proc")


def search_path() -> str:
    """PATH with the folders of the daemons, which a plain user's often lacks."""
    words = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join([*words, *(folder for folder in ("/usr/sbin", "/sbin") if folder not in words)])


def user_name() -> str:
    """The name of the user that we are, or the number where it has none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def daemon_environment(token: str, more: Mapping[str, str]) -> dict[str, str]:
    """What daemons are given: little, so that nothing of the caller's session lives on in them.

    The mark stands last: Slurm's daemons write their titles over the beginning.
    """
    base = {"PATH": search_path(), "HOME": os.environ.get("HOME", "/"), "USER": user_name(), "LC_ALL": "C"}
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**base, **kept, **more, MARK: token}


class Daemons:
    """The daemons of one cluster, by name: `munged`, `slurmctld`, `n1`, …"""

    def __init__(self, places: Places, token: str) -> None:
        self._places = places
        self._token = token
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, argv: Sequence[str], more: Mapping[str, str]) -> int:
        """Start one in a session of its own, its output in the log folder; return its pid."""
        with (self._places.logs / f"{name}.out").open("ab") as log:
            process = subprocess.Popen(
                list(argv),
                env=daemon_environment(self._token, more),
                cwd=self._places.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started[name] = process
        record = {"pid": process.pid, "started": start_time(process.pid)}
        self._record(name).write_text(json.dumps(record), encoding="utf-8")
        return process.pid

    def pid(self, name: str) -> int | None:
        """The pid of a daemon that runs; None when there is none, or it has ended."""
        started = self._started.get(name)
        if started is not None and started.poll() is not None:
            return None
        try:
            record = json.loads(self._record(name).read_text(encoding="utf-8"))
            pid = int(record["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return pid if record["started"] == start_time(pid) and _state(pid) not in ("", "Z", "X") else None

    def exit_code(self, name: str) -> int | None:
        """How a daemon that we started ended; None while it runs, or where another process started it."""
        started = self._started.get(name)
        return None if started is None else started.poll()

    def end(self, name: str, *, kindly: float = 0.0) -> None:
        """KILL a daemon and wait until it is gone, after `kindly` seconds for a TERM; nothing happens when it is."""
        if kindly > 0:
            send(self.pid(name), signal.SIGTERM)
            self._wait(name, kindly)
        send(self.pid(name), signal.SIGKILL)
        self._wait(name, 10.0)
        self._forget(name)

    def _wait(self, name: str, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self.pid(name) is not None and time.monotonic() < until:
            time.sleep(0.002)

    def _forget(self, name: str) -> None:
        """Drop what is known of a daemon that has ended."""
        process = self._started.pop(name, None)
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10.0)  # nobody else would
        self._record(name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Every daemon of which there is a record."""
        with contextlib.suppress(OSError):
            entries = os.listdir(self._places.directory / "run")
            return sorted(entry.removesuffix(_RECORD) for entry in entries if entry.endswith(_RECORD))
        return []

    def end_all(self) -> None:
        """KILL everything that this cluster started, recorded or only marked, and wait until it is gone."""
        alive = {name: self.pid(name) for name in self.names()}
        # The first process of a node's process tree takes the tree with it, and only then does its parent end.
        for child in relatives():
            if child.parent in alive.values() and child.program == "sh":
                send(child.pid, signal.SIGKILL)
        for name in alive:
            self.end(name)
        end_marked(MARK, self._token)
        for name in list(self._started):
            self._forget(name)

    def let_go(self) -> None:
        """The daemons outlive this process: nobody will wait for them here."""
        for process in self._started.values():
            process.returncode = process.poll() or 0  # else Popen warns that it still runs
        self._started.clear()

    def _record(self, name: str) -> Path:
        return self._places.run(name + _RECORD)


def send(pid: int | None, number: int) -> None:
    """Signal this very process; nothing happens where there is none."""
    started = None if pid is None else start_time(pid)
    if pid is not None and started is not None:
        send_signal(MarkedProcess(pid, 0, started, {}), number)


@dataclass(frozen=True)
class Relative:
    """A living process, whose child it is, and the name of the program that it runs."""

    pid: int
    parent: int
    program: str


def relatives() -> list[Relative]:
    """Every living process of this machine, from one look at all of them."""
    found = []
    for entry in os.listdir(_PROC):
        if entry.isdecimal():
            with contextlib.suppress(OSError, ValueError):
                text = (_PROC / entry / "stat").read_text(errors="replace")
                name, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
                if rest[0] not in ("Z", "X"):
                    found.append(Relative(int(entry), int(rest[1]), name))
    return found


def _state(pid: int) -> str:
    """The state letter of /proc/PID/stat (proc(5)); "" when there is no such process."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return ""
    return text[text.rindex(")") + 2 :].split()[0]
