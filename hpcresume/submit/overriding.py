"""What would win over the lines of the script: options given to sbatch beside it, and sbatch's own variables.

For sbatch the command line wins over the environment, and the environment over the script (sbatch(1)). Most of that is
the user's own choice; what would undo the script, or contradict the job, is refused with the place to say it instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hpcresume.config.job_spec import JobSpec
from hpcresume.config.slurm_options import long_option, option_key, option_of_variable, why_not
from hpcresume.errors import ConfigError
from hpcresume.submit.sbatch_options import asked, fixed

__all__ = ["checked_options", "exported", "keeps_environment", "overriding_variables"]

_NEVER = frozenset({"array", "output", "error", "chdir", "clusters", "wait"})
"""Options whose variables contradict the script even when it has no such line: one run for all tasks of an array,
logs that are elsewhere than was said, and what `hpcresume.config.slurm_options` says of the others."""


def checked_options(words: Sequence[str]) -> tuple[str, ...]:
    """Options for sbatch's command line, long ones and letters, each in one word.

    Raises:
        ConfigError: a word is no option, or one that would undo the script.
    """
    for word in words:
        if not word.startswith("-") or word in ("-", "--"):
            hint = "options only, each in one word: --begin=now+1hour; the script is made from the job"
            raise ConfigError(f"{word!r} is no option of sbatch", where="after --", hint=hint)
        option = long_option(word)
        reason = why_not(option)
        if reason is not None:
            key = option_key(option)
            hint = f"before the --: --set {key}=VALUE" if key else reason[1]
            what = f"{word.partition('=')[0]} cannot be given beside the script: {reason[0]}"
            raise ConfigError(what, where="after --", hint=hint)
    return tuple(words)


def overriding_variables(spec: JobSpec, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Variables of sbatch that would contradict this job's script: what is wrong, and what to try.

    One that sets what the script does not say is somebody's default and is left alone.
    """
    script = {option.name: option.value for option in [*asked(spec), *fixed(spec)]}
    for variable in sorted(environ):
        name = option_of_variable(variable)
        if name is None or (name in script and _same(script[name], environ[variable])):
            continue
        if name in script:
            yield f"{variable} would win over the script's own line", f"unset {variable}"
        elif name in ("requeue", "no-requeue"):
            if _is_set(environ[variable]):
                yield f"{variable} would win over the script's own line", f"unset {variable}, and requeue.enabled"
        elif name in _NEVER:
            key, reason = option_key(f"--{name}"), why_not(f"--{name}")
            because = "the job does not say so" if key or reason is None else reason[0]
            yield f"{variable} is set: {because}", f"unset {variable}" + (f", or {key} in the job" if key else "")


def keeps_environment(spec: JobSpec, options: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Does the job get the caller's environment, PATH with it? Its options say so, or a variable, or the job."""
    return "ALL" in exported(spec, options, environ).split(",")


def exported(spec: JobSpec, options: Sequence[str], environ: Mapping[str, str]) -> str:
    """What --export comes to: of the job's options, of a variable, or of the command line; the last one wins."""
    given = [*spec.resources.options, *([f"--export={environ['SBATCH_EXPORT']}"] if "SBATCH_EXPORT" in environ else [])]
    wishes = [word.partition("=")[2] for word in (*given, *options) if word.startswith("--export=")]
    return wishes[-1] if wishes else "ALL"


def _same(value: str | int | None, text: str) -> bool:
    """Does the variable say what the script says? Of an option without a value it can say no other, but `exclusive`."""
    return text not in ("user", "mcs") if value is None else str(value) == text


def _is_set(text: str) -> bool:
    """Does it enable an option without a value? Empty, yes, or a number that is not 0 (sbatch(1))."""
    return text in ("", "yes") or (text.isascii() and text.isdecimal() and int(text) != 0)
