"""File name patterns of --output, --error and --input: %j, %A, %a, … (sbatch(1), FILENAME PATTERN). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["file_name", "known_file_name"]

_FIELD = re.compile(r"%(%|([0-9]{0,4})([AajJNnstux]))")
_WIDEST = 10
"""Digits to which a number can be padded."""


def file_name(pattern: str, values: Mapping[str, str]) -> str:
    """The file's name. `values` has the text of each letter; what it lacks stays as written.

    A backslash in the pattern turns the fields off, as with the real program.
    """
    if "\\" in pattern:
        return pattern.replace("\\", "")

    def fill(match: re.Match[str]) -> str:
        if match[1] == "%":
            return "%"
        text = values.get(match[3])
        if text is None:
            return match[0]
        width = min(int(match[2] or 0), _WIDEST)
        return text.zfill(width) if text.isdecimal() else text

    return _FIELD.sub(fill, pattern)


def known_file_name(pattern: str, values: Mapping[str, str]) -> str | None:
    """The file's name; None when it has a field that is not in `values`."""
    letters = () if "\\" in pattern else (match[3] for match in _FIELD.finditer(pattern))
    return file_name(pattern, values) if all(letter is None or letter in values for letter in letters) else None
