"""The stand-in for Slurm's commands: `python -S -I client_program.py NAME WORDS…`. Standard library only, run by path.

Sends its command line to the controller, prints what comes back, exits with the code that comes back. `srun` goes on
in `srun_program`, beside it.
"""

from __future__ import annotations

import os
import sys

__all__ = ["main"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO


def main(words: list[str]) -> int:
    """Play one command; return its exit code."""
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    if TYPE_CHECKING:
        from hpcresume.emulate import wire
    else:
        import wire

    name, path = words[0], words[1]
    try:
        cwd = os.getcwd()
    except OSError:
        cwd = "/"
    try:
        connection = wire.connect(path)
    except OSError:
        sys.stderr.write(f"{name}: error: Unable to contact slurm controller (connect failure)\n")
        return 1
    if name == "srun":
        if TYPE_CHECKING:
            from hpcresume.emulate import srun_program
        else:
            import srun_program

        return srun_program.main(words[2:], connection, cwd)
    message = {"command": name, "words": words[2:], "cwd": cwd, "environ": dict(os.environ)}
    connection.sendall(wire.encode(message))
    while True:
        answer = wire.receive(connection)
        if answer is None:
            sys.stderr.write(f"{name}: error: the emulated cluster has gone\n")
            return 1
        if "stdin" in answer:
            connection.sendall(wire.encode({"stdin": os.fsdecode(sys.stdin.buffer.read())}))
            continue
        _write(sys.stdout, answer.get("out", ""))
        _write(sys.stderr, answer.get("err", ""))
        if "code" in answer:
            return int(answer["code"])


def _write(stream: TextIO, text: str) -> None:
    if not text:
        return
    try:
        stream.buffer.write(os.fsencode(text))
        stream.buffer.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
