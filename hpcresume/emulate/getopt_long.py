"""Command lines read as getopt_long(3) reads them: short, long, `=`, abbreviations. Pure: words in, pairs out.

Knows nothing of what an option means; the tables of options are in `option_tables`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Argument", "Option", "OptionError", "read_options", "table"]


class Argument(enum.Enum):
    """Does an option take an argument?"""

    NONE = "none"
    REQUIRED = "required"
    OPTIONAL = "optional"


@dataclass(frozen=True)
class Option:
    """One option: its long name, its letter or "", and whether it takes an argument."""

    name: str
    letter: str = ""
    argument: Argument = Argument.NONE


class OptionError(Exception):
    """A command line that the real program refuses; `text` is what it prints, `code` what it exits with."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


def table(text: str) -> dict[str, Option]:
    """A table of options from words such as `hold/H`, `nodes/N=`, `nice=?` (= an argument, =? an optional one)."""
    found = {}
    for word in text.split():
        argument = Argument.NONE
        if word.endswith("=?"):
            word, argument = word[:-2], Argument.OPTIONAL
        elif word.endswith("="):
            word, argument = word[:-1], Argument.REQUIRED
        name, _, letter = word.partition("/")
        found[name] = Option(name, letter, argument)
    return found


def read_options(
    words: Sequence[str], options: Mapping[str, Option], *, program: str, permute: bool = False
) -> tuple[list[tuple[str, str | None]], list[str]]:
    """Pairs of (long name, argument or None) in their order, and the words that are no options.

    Args:
        words: the command line without the program's name.
        options: what the program knows, by long name.
        program: its name, for messages.
        permute: may options follow other words? Without it the first other word ends the options, as for srun.

    Raises:
        OptionError: as the real program refuses it.
    """
    letters = {option.letter: option for option in options.values() if option.letter}
    pairs: list[tuple[str, str | None]] = []
    rest: list[str] = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            return pairs, rest + waiting
        if word.startswith("--"):
            pairs.append(_long(word[2:], waiting, options, program))
        elif word.startswith("-") and len(word) > 1:
            pairs += _short(word[1:], waiting, letters, program)
        elif permute:
            rest.append(word)
        else:
            return pairs, [word, *waiting]
    return pairs, rest


def _long(word: str, waiting: list[str], options: Mapping[str, Option], program: str) -> tuple[str, str | None]:
    name, equals, value = word.partition("=")
    option = _by_name(name, word, options, program)
    if option.argument is Argument.NONE:
        if equals:
            raise _refused(program, f"option '--{option.name}' doesn't allow an argument")
        return option.name, None
    if equals:
        return option.name, value
    if option.argument is Argument.OPTIONAL:
        return option.name, None
    if not waiting:
        raise _refused(program, f"option '--{option.name}' requires an argument")
    return option.name, waiting.pop(0)


def _by_name(name: str, word: str, options: Mapping[str, Option], program: str) -> Option:
    """The option of this name, or the only one that begins with it."""
    if name in options:
        return options[name]
    possible = sorted(other for other in options if name and other.startswith(name))
    if not possible:
        raise _refused(program, f"unrecognized option '--{word}'")
    if len(possible) > 1:
        listed = " ".join(f"'--{other}'" for other in possible)
        raise _refused(program, f"option '--{word}' is ambiguous; possibilities: {listed}")
    return options[possible[0]]


def _short(
    cluster: str, waiting: list[str], letters: Mapping[str, Option], program: str
) -> list[tuple[str, str | None]]:
    """Letters in one word: `-HN2` is -H -N 2."""
    pairs: list[tuple[str, str | None]] = []
    while cluster:
        letter, cluster = cluster[0], cluster[1:]
        option = letters.get(letter)
        if option is None:
            raise _refused(program, f"invalid option -- '{letter}'")
        if option.argument is Argument.NONE:
            pairs.append((option.name, None))
            continue
        if option.argument is Argument.REQUIRED and not cluster:
            if not waiting:
                raise _refused(program, f"option requires an argument -- '{letter}'")
            cluster = waiting.pop(0)
        pairs.append((option.name, cluster or None if option.argument is Argument.OPTIONAL else cluster))
        break
    return pairs


def _refused(program: str, what: str) -> OptionError:
    return OptionError(f'{program}: {what}\nTry "{program} --help" for more information\n', 255)
