"""Hostile text in every field that a user controls: nothing of it is executed, and it arrives letter for letter.

12 fields x 60 payloads. Each job is read from YAML, rendered, and the script is run by a real bash with a
stand-in for hpcresume. Where a value cannot be carried, the error names the field.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from hpcresume.config.job import read_job
from hpcresume.config.job_spec import JobSpec
from hpcresume.errors import ConfigError
from hpcresume.submit.script import render
from tests.submit.scripts import Called, run_script, sbatch_words, stand_in

TOUCH = "touch HIT"
PAYLOADS = [
    f"$({TOUCH})", f"`{TOUCH}`", f"; {TOUCH}", f"& {TOUCH}", f"| {TOUCH}", f"&& {TOUCH}", f"|| {TOUCH} ;", "> HIT",
    f"\n{TOUCH}\n", f"x\n{TOUCH}", f"\r\n{TOUCH}\r\n", f"\r{TOUCH}", f"\x0b{TOUCH}", f"\x0c{TOUCH}", f"\x85{TOUCH}",
    f"\u2028{TOUCH}", f"\u2029{TOUCH}", f"\x00{TOUCH}", "a\x00b", "\x1b[31mred", "\x7f", "\t", "tab\there",
    f"'; {TOUCH}; '", f'"; {TOUCH}; "', f"'$({TOUCH})'", f'"$({TOUCH})"', f"\\'; {TOUCH}; \\'", f'\\"; {TOUCH}; \\"',
    f"\\$({TOUCH})", f"\\\\$({TOUCH})", "\\", "\\\\", "ends in \\", "'", '"', "'\"'\"'", "$'\\n'",
    f"\n#SBATCH --wrap={TOUCH}", " #SBATCH --uid=0", "# a comment", "x #y", "x --uid=0", " --uid=0 ", "--uid=0", "-x",
    "-", "--", "{{ 7 * 7 }}", "{% raw %}", "{# gone #}", "{{ ''.__class__ }}", "${HOME}", "$HOME", "$((1+1))",
    f"<({TOUCH})", "~", "*", "a b", "ünï漢字🙂", "\u202egpj.exe", "!!", "%j%A$%x",
]  # fmt: skip


@dataclass(frozen=True)
class Field:
    """A field of job.yaml, and where its value must arrive."""

    key: str
    job: Callable[[str], dict]
    arrived: Callable[[str, Called, JobSpec], str]


def job(**more) -> dict:
    """A job with the given sections."""
    return {"name": "a", "command": ["python", "train.py"], **more}


def option(name: str) -> Callable[[str, Called, JobSpec], str]:
    """The value of an #SBATCH option, which must be there once, and no option that nobody asked for."""

    def arrived(script: str, called: Called, spec: JobSpec) -> str:
        words = sbatch_words(script)
        assert all(word.startswith("--") for word in words)
        assert not any(word.startswith(("--uid", "--wrap")) for word in words)
        (found,) = [word for word in words if word.startswith(f"--{name}=")]
        return found.partition("=")[2]

    return arrived


def word(index: int) -> Callable[[str, Called, JobSpec], str]:
    """A word of the command after the `--`."""
    return lambda script, called, spec: called.words[called.words.index("--") + 1 :][index]


def variable(name: str) -> Callable[[str, Called, JobSpec], str]:
    """A variable in the environment of the supervisor."""
    return lambda script, called, spec: called.environ[name]


FIELDS = [
    Field("name", lambda p: job(name=p), option("job-name")),
    Field("run", lambda p: job(run=p), variable("HPCRESUME_RUN")),
    Field("command", lambda p: job(command=["python", p]), word(1)),
    Field("log", lambda p: job(log=p), option("output")),
    Field("resources.partition", lambda p: job(resources={"partition": p}), option("partition")),
    Field("resources.account", lambda p: job(resources={"account": p}), option("account")),
    Field("resources.constraint", lambda p: job(resources={"constraint": p}), option("constraint")),
    Field("resources.options", lambda p: job(resources={"options": [f"--comment={p}"]}), option("comment")),
    Field("environment.variables.V", lambda p: job(environment={"variables": {"V": p}}), variable("V")),
    Field("environment.modules", lambda p: job(environment={"modules": [p]}), variable("MODULES_SEEN")),
    Field("environment.venv", lambda p: job(environment={"venv": p}), variable("VENV_SEEN")),
    Field("container.image", lambda p: job(container={"image": p}), word(-3)),
]
CASES = [(field, payload) for field in FIELDS for payload in PAYLOADS]


def test_there_are_12_fields_and_60_payloads():
    assert len(FIELDS) == len({field.key for field in FIELDS}) == 12
    assert len(PAYLOADS) >= 60
    assert len(set(PAYLOADS)) == len(PAYLOADS)


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """hpcresume and a `module` command, both of which only write down what they see."""
    folder = tmp_path_factory.mktemp("programs")
    stand_in(folder, "hpcresume")
    stand_in(folder, "touch", '#!/bin/bash\nfor each; do : > "$RECORDS/$each"; done\n')
    return folder


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.key)
def test_hostile_text_arrives_as_it_is_or_the_error_names_the_field(field, programs, tmp_path):
    arrived = refused = 0
    for index, payload in enumerate(PAYLOADS):
        folder = tmp_path / str(index)
        try:
            spec = read_job(json.dumps(field.job(payload), ensure_ascii=True)).spec
            script = render(spec)
        except ConfigError as error:
            assert named(error) == field.key, (payload, str(error))
            refused += 1
            continue
        called = run(script, folder, programs, spec)
        assert not list(folder.rglob("HIT")), f"{payload!r} was executed"
        assert called.words[:2] == ["hpcresume", "launch"], (payload, called.errors)
        assert field.arrived(script, called, spec) == payload
        arrived += 1
    assert arrived + refused == len(PAYLOADS)
    assert arrived >= 30, "most hostile text is no control character and can be carried"
    assert refused >= 14, "control characters cannot"


def named(error: ConfigError) -> str:
    """The one field that an error is about: what its words begin with, or its place when the script refused it."""
    key = error.what.partition(": ")[0] if error.where.startswith("job.yaml:") else error.where
    return key.partition("[")[0]


def run(script: str, folder, programs, spec: JobSpec) -> Called:
    """Run the script, with what it needs beside it: a `module` function, and the venv that it names."""
    if spec.environment.venv is not None:
        place = folder / spec.environment.venv / "bin"
        place.mkdir(parents=True)
        # The script changes nothing of the name: bash found the file under it.
        (place / "activate").write_text(f"export VENV_SEEN={shlex.quote(spec.environment.venv)}\n")
    function = '() { [[ $1 == load && $# == 2 ]] && export MODULES_SEEN="$2"; }'
    return run_script(script, folder, programs, **{"BASH_FUNC_module%%": function})
