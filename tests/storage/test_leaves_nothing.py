"""The tier cleans up after itself, also when the tests are killed by -9 in the midst of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.storage.gluster import skip_without_gluster, until
from tests.storage.small_disk import skip_without_loop

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys, time
from pathlib import Path
from tests.storage.gluster import Gluster
from tests.storage.room import Room
from tests.storage.small_disk import SmallDisk
base = Path(sys.argv[1])
with Room() as room:
    SmallDisk(base, room)
    gluster = Gluster(base / "g", room)
    room.run("glusterfs", f"--volfile-server={gluster.address}", "--volfile-id=v1", str(gluster.mount_point))
    print("up", flush=True)
    time.sleep(600)
"""


def processes(base: Path) -> list[str]:
    """Command lines that name a path below `base`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(base) in words:
                found.append(words.decode(errors="replace").replace("\0", " "))
    return found


def mounts(base: Path) -> list[str]:
    return [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(base) in line]


def loops(base: Path) -> list[str]:
    return [line for line in subprocess.check_output(["losetup", "-a"], text=True).splitlines() if str(base) in line]


@pytest.mark.timeout(120)
def test_nothing_is_left_when_the_tests_are_killed(tmp_path: Path) -> None:
    skip_without_gluster()
    skip_without_loop()
    test = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT)
    assert test.stdout is not None
    assert test.stdout.readline() == b"up\n"
    assert len(processes(tmp_path)) >= 6, "glusterd, four bricks, a client"
    assert loops(tmp_path)
    assert mounts(tmp_path) == [], "this machine's own mounts are as they were, all the time"
    test.send_signal(signal.SIGKILL)
    test.wait()
    test.stdout.close()
    until(lambda: not processes(tmp_path) and not loops(tmp_path), "end of all that was started", 30)
    time.sleep(0.2)
    assert mounts(tmp_path) == []
