"""Runs a batch script with stand-ins that write down what they are called with, and reads #SBATCH lines as sbatch."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Called", "run_script", "sbatch_words", "stand_in"]

RECORDER = """\
#!/bin/bash
# Writes its arguments and its environment, each ended by NUL, and says nothing.
{ printf '%s\\0' "${0##*/}" "$@"; } > "$RECORDS/arguments"
env -0 > "$RECORDS/environment"
"""


@dataclass(frozen=True)
class Called:
    """The call in which a script ended: program and arguments, and the environment at that moment."""

    words: list[str]
    environ: dict[str, str]
    code: int
    errors: str


def stand_in(folder: Path, name: str, text: str = RECORDER) -> Path:
    """A program of that name in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def run_script(text: str, folder: Path, programs: Path, **environ: str) -> Called:
    """Run a script as slurmd does, from a file, with `programs` first on PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "script.sbatch"
    script.write_text(text)
    for name in ("arguments", "environment"):
        (folder / name).unlink(missing_ok=True)
    done = subprocess.run(
        ["bash", str(script)],
        cwd=folder,
        env={"PATH": f"{programs}:{os.environ['PATH']}", "RECORDS": str(folder), "LC_ALL": "C.UTF-8", **environ},
        capture_output=True,
        timeout=30,
        check=False,
    )
    words = _strings(folder / "arguments")
    pairs = [item.partition("=") for item in _strings(folder / "environment")]
    return Called(words, {k: v for k, _, v in pairs}, done.returncode, done.stderr.decode(errors="replace"))


def _strings(path: Path) -> list[str]:
    return path.read_bytes().decode().split("\0")[:-1] if path.exists() else []


def sbatch_words(text: str) -> list[str]:
    """The words of the #SBATCH lines, by the rules of sbatch's own reader (src/sbatch/opt.c, _get_argument).

    Lines are ended by a line feed only; a backslash escapes inside every kind of quotes; a `#` outside of quotes
    ends the line. tests/slurm/test_submit.py holds the same values against a real sbatch.
    """
    words: list[str] = []
    for line in text.split("\n"):
        if line.startswith("#SBATCH"):
            words += _words(line.removeprefix("#SBATCH"))
        elif line.strip() and not line.startswith("#"):
            break
    return words


def _words(rest: str) -> list[str]:
    words: list[str] = []
    word, quote, escaped, inside = "", "", False, False
    for char in rest:
        if escaped:
            word, escaped, inside = word + char, False, True
        elif char == "\\":
            escaped = True
        elif quote and char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote, inside = char, True
        elif not quote and char == "#":
            break
        elif not quote and char in " \t\r\v\f":
            words, word, inside = ([*words, word], "", False) if inside else (words, "", False)
        else:
            word, inside = word + char, True
    assert not quote, f"unmatched {quote} in {rest}"
    return [*words, word] if inside else words
