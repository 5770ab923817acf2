"""Directories that a killed supervisor or agent could not remove: the next one does, and touches nobody else's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcresume.integrations import torchrun_agent
from hpcresume.io import scratch
from hpcresume.io.scratch import OWNER, SETTLED, Scratch
from tests.support.launching import running, wait_until

UNTIL = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.02)"
WAITS = ("launch", "--mpi", "direct", "--", sys.executable, "-c", UNTIL)
PREFIX = "hpcresume-launch-"
MAKES_ONE = (
    "import sys; from hpcresume.io.scratch import Scratch; print(Scratch(sys.argv[1]).path, flush=True); input()"
)


def left(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{PREFIX}*"))


def settle(directory: Path) -> None:
    """As if nothing had happened in it for a while."""
    before = directory.stat().st_mtime - SETTLED - 1
    os.utime(directory, (before, before))


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A temporary directory in which nothing else is."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(scratch.tempfile, "tempdir", None)
    return folder


def test_what_a_killed_supervisor_left_goes_at_the_next_start_and_what_a_living_one_has_stays(temporary):
    over = temporary / "over"
    with running(*WAITS, str(over)) as first, running(*WAITS, str(over)) as second:
        wait_until(lambda: len(left(temporary)) == 2 and all((each / OWNER).exists() for each in left(temporary)))
        first.kill()
        first.wait()
        for each in left(temporary):
            settle(each)
        both = left(temporary)
        with running("launch", "--mpi", "direct", "--", "true") as third:
            said, _ = third.communicate(timeout=30)
        assert third.returncode == 0, said
        (kept,) = left(temporary)
        over.touch()
        second.communicate(timeout=30)
    assert kept in both
    assert left(temporary) == [], "the living one's was not its own"


def dead_ones(folder: Path) -> Path:
    """The directory of a process that was killed."""
    process = subprocess.Popen([sys.executable, "-c", MAKES_ONE, PREFIX], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout is not None
    directory = Path(process.stdout.readline().strip())
    process.kill()
    process.communicate()
    return directory


def test_only_what_is_surely_abandoned_is_removed(temporary, monkeypatch):
    (elsewhere, fresh, bare, gone) = (dead_ones(temporary) for _ in range(4))
    (elsewhere / OWNER).write_text("another-machine 1234\n")
    (bare / OWNER).rename(bare / "a file of somebody's")
    empty = temporary / f"{PREFIX}empty"
    empty.mkdir(mode=0o700)
    for each in (elsewhere, bare, gone, empty):
        settle(each)
    link = temporary / f"{PREFIX}link"
    link.symlink_to(temporary.parent, target_is_directory=True)
    own = Scratch(PREFIX)
    assert set(left(temporary)) == {elsewhere, fresh, bare, link, own.path}
    assert not gone.exists()
    assert own.path.stat().st_mode & 0o777 == 0o700
    own.remove()
    assert not own.path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_another_users_directory_is_left_alone(temporary):
    theirs = dead_ones(temporary)
    os.chown(theirs, 12345, 12345)
    settle(theirs)
    Scratch(PREFIX).remove()
    assert left(temporary) == [theirs]


def test_a_filesystem_without_locks_is_no_reason_to_fail_or_to_remove(temporary, monkeypatch):
    theirs = dead_ones(temporary)
    settle(theirs)

    def no_locks(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(scratch.fcntl, "flock", no_locks)
    own = Scratch(PREFIX)
    assert set(left(temporary)) == {theirs, own.path}
    own.remove()


def test_an_agent_removes_what_killed_agents_left_on_its_node(temporary, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PREFIX", "hpcresume-agent-")
    theirs = dead_ones(temporary)
    settle(theirs)
    logs = torchrun_agent._scratch()
    assert not theirs.exists()
    assert left(temporary) == [logs.path]
    logs.remove()


def test_older_starts_of_a_run_are_removed_from_it_once_a_new_attempt_is_claimed(tmp_path):
    run = tmp_path / "run"
    (run / "launch").mkdir(parents=True)
    (run / "run.json").touch()
    program = (
        "import json, os, sys; from pathlib import Path; run = Path(sys.argv[1])\n"
        "(run / 'attempts/0003').mkdir(parents=True)\n"
        "Path(os.environ['HPCRESUME_LAUNCH_DIR'], 'session.json').write_text(json.dumps("
        "{'run': str(run), 'attempt': 3}))\n"
    )
    kept = []
    for name, attempt, old in [("older", 2, True), ("newer", 4, True), ("busy", 1, False), ("unclaimed", None, True)]:
        directory = run / "launch" / f"start-{name}"
        directory.mkdir()
        if attempt is not None:
            (directory / "session.json").write_text(json.dumps({"run": str(run), "attempt": attempt}))
        if old:
            settle(directory)
        if name != "older":
            kept.append(directory)
    with running("launch", "--run", str(run), "--mpi", "direct", "--", sys.executable, "-c", program, str(run)) as it:
        said, _ = it.communicate(timeout=30)
    assert sorted((run / "launch").glob("start-*")) == sorted(kept), said
