"""`hpcresume emulate shell` at a terminal and in CI: keys and signals end what they are meant for, and no more."""

from __future__ import annotations

import os
import pty
import select
import signal
import time

import pytest

from tests.support.launching import hpcresume, left_behind, running, wait_until
from tests.support.mpi import child_environment

pytestmark = pytest.mark.timeout(60)


class Terminal:
    """A program on a pseudo terminal."""

    def __init__(self, *words: str, cwd: str, mark: str) -> None:
        env = child_environment({"HPCRESUME_TEST_MARK": mark, "SHELL": "/bin/bash"})
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.execvpe(words[0], words, env)
        self.text = ""

    def until(self, what: str, seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while what not in self.text:
            assert time.monotonic() < end, self.text
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:
                    assert what in self.text, self.text
                    return

    def type(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def code(self) -> int:
        try:
            while os.read(self.fd, 65536):
                pass
        except OSError:
            pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


@pytest.mark.parametrize(
    "key", [pytest.param(b"\x03", marks=pytest.mark.full, id="ctrl-c"), pytest.param(b"\x1c", id="ctrl-backslash")]
)
def test_keys_are_the_shells_and_the_cluster_goes_on(tmp_path, key):
    text = (
        "trap 'echo caught' INT QUIT; echo ready; while ! [ -e go ]; do sleep 0.1; done; squeue -h; echo alive; exit 4"
    )
    words = hpcresume("emulate", "shell", "-N1", "--", "sh", "-c", text)
    terminal = Terminal(*words, cwd=str(tmp_path), mark=tmp_path.name)
    terminal.until("ready\r\n")
    terminal.type(key)
    terminal.until("caught")
    (tmp_path / "go").touch()
    terminal.until("alive")
    assert terminal.code() == 4
    assert left_behind("HPCRESUME_TEST_MARK", tmp_path.name) == []


@pytest.mark.full
def test_an_interactive_shell_survives_ctrl_c_and_ends_with_a_term(tmp_path):
    terminal = Terminal(*hpcresume("emulate", "shell", "-N1"), cwd=str(tmp_path), mark=tmp_path.name)
    terminal.until("exit ends everything")
    terminal.type(b"PS1=pro''mpt\n")
    terminal.until("prompt")
    terminal.type(b"touch on; sleep 50\n")
    wait_until((tmp_path / "on").exists)
    time.sleep(0.2)
    terminal.text = ""
    terminal.type(b"\x03")
    # bash drops what was typed before it is back at its prompt.
    terminal.until("prompt")
    terminal.type(b"sinfo -h -o 'nodes'=%D\n")
    terminal.until("nodes=1")
    os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.code() in (128 + signal.SIGHUP, 128 + signal.SIGTERM)
    assert left_behind("HPCRESUME_TEST_MARK", tmp_path.name) == []


def test_an_interrupt_of_ci_ends_the_step_and_the_cluster(tmp_path):
    with running("emulate", "shell", "-N1", "--", "sh", "-c", f"touch {tmp_path}/on; exec sleep 100") as process:
        wait_until((tmp_path / "on").exists)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130
    assert left_behind("HPCRESUME_TEST_MARK", str(os.getpid())) == []
