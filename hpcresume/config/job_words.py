"""What is said of a wrong value: from the words of msgspec and of the YAML parser to those of people, and what to try.

Judges nothing: it only explains what others have found.
"""

from __future__ import annotations

import re
from typing import Any

from hpcresume.config.slurm_options import long_option, option_key

__all__ = ["form_hint", "in_words", "value_hint", "yaml_hint"]

_KINDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "array": "a list",
          "object": "a mapping", "null": "nothing"}  # fmt: skip
_MEMORY = re.compile(r"([0-9]{1,9})\s*([kmgtKMGT])i?[bB]?", re.ASCII)
_TRUTH = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false",
          "true": "true", "false": "false"}  # fmt: skip
"""What other readers of YAML, and people, take for true and false."""

_YAML = (
    ("'\\t'", "spaces in front of a key; YAML takes no tab there"),
    ("another document", "one job a file: take the --- out"),
    ("unexpected end of stream", "a quotation mark or a bracket before it is never closed"),
    ("<stream end>", "a bracket before it is never closed"),
    ("block end", "the indentation here and in the line above"),
    ("mapping values are not allowed", "quotes around a text with a colon, or the indentation"),
    ("could not find expected ':'", "a colon and a blank after each key"),
    ("scanning an alias", "quotes around a text that begins with *"),
    ("cannot start any token", "quotes around the text"),
    ("undefined alias", "&name where it is written for the first time"),
)
"""Part of the YAML parser's words → what to look at."""


def in_words(message: str) -> str:
    """A message of msgspec: "Expected `int | null`, got `str`" is "expected a whole number, got text"."""
    before, got, after = message.partition(", got ")
    return _in_words(before.replace(" | null", "")) + got + _in_words(after)


def _in_words(message: str) -> str:
    def kinds(match: re.Match[str]) -> str:
        return " or ".join(_KINDS.get(each, each) for each in match[1].split(" | "))

    return re.sub("`([^`]*)`", kinds, message.replace("Expected", "expected"))


def value_hint(kinds: frozenset[str], value: Any, description: str, *, has_unit: bool) -> str:
    """What to try for a value of the wrong kind.

    Args:
        kinds: what is wanted, as types are named: "int", "str", "tuple".
        value: what was given, as JSON has it.
        description: what the key is.
        has_unit: quotes around a number would not do, since its unit is missing.
    """
    if "str" in kinds and isinstance(value, bool | int | float):
        return description if has_unit else "put it in quotes"
    if not isinstance(value, str):
        return ""
    if "int" in kinds and value.isascii() and value.isdecimal():
        return f"without quotes: {value}" if len(value) <= 18 else ""
    if "bool" in kinds:
        return _TRUTH.get(value.lower(), "true or false")
    if kinds & {"tuple", "list"} and re.fullmatch(r"[A-Za-z0-9_./-]{1,40}", value):
        return f"[{value}]"
    return ""


def form_hint(path: str, text: str) -> str:
    """What to try for a text that is not of its key's form: the text put right where that is clear, else an example.

    Args:
        path: the key, `resources.options` for each of its entries.
        text: what was given.
    """
    if path == "name":
        return re.sub(r"[^\w. -]+", "-", text).strip("- ") or "my-run"
    if path == "function":
        dotted = text.strip().removesuffix("()").replace(".py:", ".").replace(":", ".").replace("/", ".")
        module, dot, name = dotted.removesuffix(".py").rpartition(".")
        plain = bool(dot) and all(each.isidentifier() for each in [*module.split("."), name])
        return f"{module}:{name}" if plain else "package.module:function"
    if path in ("resources.mem", "resources.mem_per_cpu"):
        match = _MEMORY.fullmatch(text.strip())
        return f"{match[1]}{match[2].upper()}" if match else "64G"
    if path == "resources.array":
        return "0-9, 0-9%2 or 1,3,5"
    if path == "resources.options":
        return _option_hint(text)
    return ""


def _option_hint(text: str) -> str:
    """For `-p gpu`, `--mail-type END` and `mail-type=END`: the key that says it, or the long form in one word."""
    option, _, value = text.strip().partition(" ")
    if len(option.lstrip("-")) + option.startswith("-") < 2:
        return "--mail-type=END"
    long = long_option(option if option.startswith("-") else f"--{option}")
    key = option_key(long) if long.startswith("--") else None
    if key:
        return f"the key {key}"
    long += f"={value.strip()}" if value and "=" not in long else ""
    return long if re.match(r"--[a-z][a-z0-9-]*(=|\Z)", long) else "--mail-type=END"


def yaml_hint(words: str) -> str:
    """What to look at after a message of the YAML parser."""
    return next((hint for part, hint in _YAML if part in words), "")
