"""README.md is true: its code runs, its commands print what it shows, and no verb is missing from it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hpcresume import errors, model
from hpcresume.cli.errors import EXIT_OUTPUT
from hpcresume.cli.main import VERBS
from hpcresume.ops.doctor.finding import EXIT_WARN
from tests.architecture.tree import ROOT
from tests.docs.blocks import Block, blocks

README = ROOT / "README.md"

PRELUDE = """\
import numpy as np, torch
torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
dataset = torch.utils.data.TensorDataset(torch.randn(96, 4), torch.randn(96, 1))
total_steps = 6
done = []
save_final_model = done.append
def train_step(model, optimizer, batch):
    optimizer.zero_grad()
    loss = torch.nn.functional.mse_loss(model(batch[0]), batch[1])
    loss.backward()
    optimizer.step()
    return loss.item()
"""
"""What a reader's own training brings along to the snippets."""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder in which every Python block of the README was run, in order, each in a fresh process."""
    folder = tmp_path_factory.mktemp("readme")
    for block in of_language("python"):
        run_python(block, folder)
    return folder


def of_language(language: str) -> list[Block]:
    """The README's blocks of a language that are to be run."""
    found = [block for block in blocks(README) if block.language == language and not block.reason]
    assert found
    return found


def run_python(block: Block, folder: Path) -> None:
    """Run a block after the prelude; it must end well."""
    program = folder / f"line{block.line}.py"
    program.write_text(PRELUDE + block.text)
    ended = subprocess.run(
        [sys.executable, "-W", "error", program.name], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, f"README.md line {block.line}:\n{ended.stderr}"


def test_the_python_blocks_run(workplace):
    assert (workplace / "runs" / "gpt-small" / "DONE").is_file()
    assert any((workplace / "runs" / "by-hand" / "generations").iterdir())


def without_numbers(text: str) -> str:
    """Ages, sizes and the run of spaces in front of them differ from run to run."""
    return re.sub(r"\s+", " ", re.sub(r"(?<![\w.])\d+(\.\d+)?(?![\w.])", "N", text)).strip()


def test_commands_print_what_the_readme_shows(workplace):
    for block in of_language("console"):
        for command, shown in re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", block.text, re.M):
            words = shlex.split(command)
            assert words[0] == "hpcresume", command
            ended = subprocess.run(
                [sys.executable, "-m", *words],
                cwd=workplace,
                env={**os.environ, "COLUMNS": "100"},
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert ended.returncode == 0, ended.stderr
            assert without_numbers(ended.stdout) == without_numbers(shown), f"README.md line {block.line}"


def test_every_block_is_run_or_says_why_not():
    silent = [f"line {b.line}: {b.language}" for b in blocks(README)
              if b.language not in ("python", "console") and not b.reason]  # fmt: skip
    assert silent == []


def test_shell_blocks_are_valid_shell():
    for block in (b for b in blocks(README) if b.language == "sh"):
        subprocess.run(["bash", "-n"], input=block.text, text=True, check=True, timeout=10)


def test_every_verb_is_in_the_readme_and_no_other():
    rows = re.findall(r"^\| `hpcresume ([a-z]+)` \|", README.read_text(), re.M)
    assert sorted(rows) == sorted(VERBS)


def test_every_exit_code_is_in_the_readme():
    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", README.read_text(), re.M)}
    kinds = [errors.HpcresumeError, *errors.HpcresumeError.__subclasses__()]
    ours = {kind.exit_code for kind in kinds} | {model.EXIT_DONE, model.EXIT_COME_BACK, model.EXIT_HOLD}
    assert rows == ours | {1, 2, EXIT_WARN, EXIT_OUTPUT, 130, 143}


PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md"))]


@pytest.mark.checkout
@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page):
    text = (ROOT / page).read_text()
    missing = [
        target for target in re.findall(r"\]\(([^)#:]+)\)", text) if not ((ROOT / page).parent / target).exists()
    ]
    assert missing == []
