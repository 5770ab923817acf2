"""Makes a value one word of bash, of an #SBATCH line, or of Python, whatever is in it. Pure text.

A value with a control character is refused, since no quotation keeps a line break out of an #SBATCH line.
"""

from __future__ import annotations

import json
import re
import shlex

from hpcresume.errors import ConfigError

__all__ = ["apart", "python_value", "sbatch_word", "shell_word", "shell_words", "texts", "yaml_word"]

_HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SAFE_FOR_SBATCH = re.compile(r"[A-Za-z0-9_@%+=:,./\[\]*&|()-]*")
_WORDS_OF_YAML = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
"""Not text to some readers of YAML (1.1 and 1.2)."""
_MOST_BYTES = 8000
"""Of one option: sbatch copies each into a buffer of BUFSIZ (8192) bytes (src/sbatch/opt.c, _get_argument)."""


def shell_word(value: object, field: str = "value") -> str:
    """One word of bash.

    Raises:
        ConfigError: control characters; `field` is named.
    """
    return shlex.quote(_checked(value, field))


def shell_words(values: object, field: str = "value") -> str:
    """Several words of bash, with a space between them.

    Raises:
        ConfigError: control characters.
    """
    assert isinstance(values, list | tuple)
    return " ".join(shell_word(value, field) for value in values)


def sbatch_word(value: object, field: str = "value") -> str:
    """A value behind `#SBATCH --option=`.

    sbatch splits such lines by itself: at blanks, with quotes of both kinds, a `#` as the begin of a comment, and,
    unlike bash, with the backslash as an escape inside every kind of quotes (src/sbatch/opt.c, _get_argument).

    Raises:
        ConfigError: control characters, or too long.
    """
    text = _checked(value, field)
    quoted = text if _SAFE_FOR_SBATCH.fullmatch(text) else '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
    if len(quoted.encode()) > _MOST_BYTES:
        raise ConfigError("too long for sbatch", where=field, hint=f"at most {_MOST_BYTES} bytes")
    return quoted


def python_value(value: object, field: str = "value") -> str:
    """A value of JSON's kinds as Python writes it.

    Raises:
        ConfigError: control characters.
    """
    for text in texts(value):
        _checked(text, field)
    return _python(value)


def yaml_word(value: object, field: str = "value") -> str:
    """A text in YAML: as it is when it is a plain word or path, else in double quotes (a JSON string is one of YAML).

    Raises:
        ConfigError: control characters.
    """
    text = _checked(value, field)
    plain = re.fullmatch(r"[A-Za-z_./][A-Za-z0-9_./-]*", text) and text.lower() not in _WORDS_OF_YAML
    return text if plain else json.dumps(text, ensure_ascii=False)


def _python(value: object) -> str:
    """As `repr`, with double quotes wherever they need no escape."""
    if isinstance(value, str):
        written = repr(value)
        return f'"{written[1:-1]}"' if written[0] == "'" and '"' not in value else written
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_python(name)}: {_python(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_python(each) for each in value) + "]"
    return repr(value)


def texts(value: object) -> list[str]:
    """Every text in a value of JSON's kinds, names of mappings included."""
    if isinstance(value, dict):
        return [text for pair in value.items() for each in pair for text in texts(each)]
    if isinstance(value, list | tuple):
        return [text for each in value for text in texts(each)]
    return [value] if isinstance(value, str) else []


def apart(value: object, field: str = "value") -> str:
    """A value for a comment.

    Raises:
        ConfigError: control characters, which could end the comment.
    """
    return _checked(value, field)


def _checked(value: object, field: str) -> str:
    text = str(value)
    bad = _HIDDEN.search(text)
    if bad:
        what = f"{field} holds the control character U+{ord(bad[0]):04X}"
        raise ConfigError(what, where=field, hint="a value is one line of plain text")
    return text
