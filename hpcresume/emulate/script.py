"""Batch scripts: their #SBATCH lines, read as sbatch reads them. Pure: text in, words out; nothing is ever executed.

Rules watched on 22.05: lines until the first one that is neither empty nor a comment; `#SBATCH` at the very begin
of the line; quotes and backslashes as in a shell, nothing expanded; a `#` that begins a word ends the line.
"""

from __future__ import annotations

from hpcresume.emulate.getopt_long import OptionError
from hpcresume.emulate.script_file import LONGEST

__all__ = ["check_script", "directives"]

_NOT_A_SCRIPT = """\
sbatch: error: This does not look like a batch script.  The first
sbatch: error: line must start with #! followed by the path to an interpreter.
sbatch: error: For instance: #!/bin/sh
"""
_DOS = """\
sbatch: error: Batch script contains DOS line breaks (\\r\\n)
sbatch: error: instead of expected UNIX line breaks (\\n).
"""


_NUL = """\
sbatch: error: The Slurm controller does not allow scripts that
sbatch: error: contain a NULL character '\\0'.
"""
_LONG = """\
sbatch: error: Batch job submission failed: Pathname of a file, directory or other parameter too long
"""


def check_script(text: str) -> None:
    """Refuse what sbatch refuses before it reads any option.

    Raises:
        OptionError: empty, no `#!`, with DOS line ends or zero bytes, or too long.
    """
    if not text:
        raise OptionError("sbatch: error: Batch script is empty!\n")
    if not text.strip():
        raise OptionError("sbatch: error: Batch script contains only whitespace!\n")
    if not text.startswith("#!"):
        raise OptionError(_NOT_A_SCRIPT)
    if "\0" in text:
        raise OptionError(_NUL)
    if "\r\n" in text:
        raise OptionError(_DOS)
    if len(text) > LONGEST:
        raise OptionError(_LONG)


def directives(text: str) -> list[str]:
    """The words of all #SBATCH lines.

    Raises:
        OptionError: a directive that sbatch refuses.
    """
    words: list[str] = []
    for line in text.split("\n")[1:]:
        if line.startswith("#SBATCH"):
            words += _words(line[len("#SBATCH") :])
        elif line.strip() and not line.lstrip().startswith("#"):
            break
    return words


def _words(rest: str) -> list[str]:
    if rest and rest[0] not in " \t":
        raise OptionError(f"sbatch: error: Invalid directive found in batch script: {rest.split()[0]}\n", 255)
    words: list[str] = []
    at = 0
    while (at := _skip(rest, at)) < len(rest) and rest[at] != "#":
        word, at = _word(rest, at)
        words.append(word)
    return words


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _word(text: str, at: int) -> tuple[str, int]:
    """One word from `at` on, and where it ended."""
    word, quote = "", ""
    while at < len(text):
        char = text[at]
        if quote:
            if char == quote:
                quote = ""
            elif char == "\\" and quote == '"' and at + 1 < len(text) and text[at + 1] in '"\\':
                at += 1
                word += text[at]
            else:
                word += char
        elif char in "'\"":
            quote = char
        elif char == "\\" and at + 1 < len(text):
            at += 1
            word += text[at]
        elif char.isspace():
            break
        else:
            word += char
        at += 1
    return word, at
