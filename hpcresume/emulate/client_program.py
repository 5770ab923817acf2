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
    from typing import Any, TextIO


def main(words: list[str]) -> int:
    """Play one command; return its exit code."""
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    _fill_streams()
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
        answer: dict[str, Any] | None = wire.receive(connection)
        if answer is None:
            sys.stderr.write(f"{name}: error: the emulated cluster has gone\n")
            return 1
        if "wanted" in answer:
            connection.sendall(wire.encode(_script(answer["wanted"], cwd)))
            continue
        _write(sys.stdout, answer.get("out", ""))
        _write(sys.stderr, answer.get("err", ""))
        if "code" in answer:
            return int(answer["code"])


def _fill_streams() -> None:
    """What was closed (`srun … <&-`) becomes /dev/null, else the next file opened would be taken for a stream."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _script(wanted: dict[str, Any], cwd: str) -> dict[str, Any]:
    """The batch script that sbatch asks for: found and read here, where /dev/stdin and FIFOs are the caller's."""
    if TYPE_CHECKING:
        from hpcresume.emulate import script_file
    else:
        import script_file

    name = wanted["name"]
    path = None if name is None else script_file.find(name, wanted["directory"], cwd)
    return {"script": script_file.read(path), "path": path}


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
