"""A real ext4 of 64 MiB in a file, mounted in a room of its own, and a training on it that runs beside the test."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.storage.gluster import until
from tests.storage.jobs import PROGRAM, STEPS
from tests.storage.room import Room
from tests.support.lacking import cannot
from tests.support.mpi import mpi_command, mpi_environment

__all__ = ["SmallDisk", "Training", "skip_without_loop"]

MIB = 1 << 20


def skip_without_loop() -> None:
    """Skip the test where no file can be mounted as a disk."""
    if os.geteuid() != 0:
        cannot("mounting a file as a disk needs root")
    if not Path("/dev/loop-control").exists():
        cannot("this kernel has no loop devices (/dev/loop-control)")
    if shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
        cannot("no mkfs.ext4 (package e2fsprogs); `make test-storage` installs it where it may")


class SmallDisk:
    """The disk. Its loop device goes with the mount, and the mount with the room."""

    def __init__(self, base: Path, room: Room) -> None:
        image, mount = base / "disk.img", base / "mnt"
        mount.mkdir()
        with image.open("wb") as file:
            file.truncate(64 * MIB)
        # No blocks are kept for root (-m 0), who runs these tests.
        room.run("mkfs.ext4", "-q", "-m", "0", str(image))
        room.run("mount", "-o", "loop", str(image), str(mount))
        self.path = room.path(mount)

    def fill(self) -> None:
        """Until not a block is left."""
        fd = os.open(self.path / "ballast", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for size in (MIB, 4096):
                with contextlib.suppress(OSError):
                    while True:
                        os.write(fd, bytes(size))
                        os.fsync(fd)
        finally:
            os.close(fd)
        stats = os.statvfs(self.path)
        assert stats.f_bavail * stats.f_frsize < 8192, "the disk should be full"

    def free(self) -> None:
        """Remove what fills it."""
        (self.path / "ballast").unlink()


class Training:
    """Two ranks under mpiexec, or under `hpcresume launch`; ended with the block."""

    def __init__(self, disk: SmallDisk, out: Path, *words: str, launch: bool = False) -> None:
        self.out, self.run = out, disk.path / "run"
        argv = [sys.executable, str(PROGRAM), str(self.run), str(STEPS), str(out), *words]
        if launch:
            supervise = ["-m", "hpcresume", "launch", "--run", str(self.run), "--mpi", "mpiexec", "--ranks", "2"]
            command = [sys.executable, *supervise, "--", *argv]
        else:
            command = mpi_command(2, argv)
        with (out / "output").open("ab") as output:
            self._process = subprocess.Popen(
                command, env=mpi_environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=out
            )

    def __enter__(self) -> Training:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self._process.kill()
        self._process.wait()

    def hold_at(self, call: str, name: str, rank: int = 0) -> None:
        """The next such call of a rank waits."""
        for old in ("held", "go"):
            (self.out / old).unlink(missing_ok=True)
        (self.out / "hold.new").write_text(json.dumps({"call": call, "name": name, "rank": rank}))
        (self.out / "hold.new").rename(self.out / "hold")

    def wait_until_held(self) -> None:
        """The call waits now."""
        self.wait(lambda: (self.out / "held").exists(), "held call")

    def go_on(self) -> None:
        """Let the held call begin."""
        (self.out / "go").touch()

    def wait(self, condition: Any, what: str) -> None:
        """Wait until `condition()` is true, as long as it runs."""

        def met() -> object:
            assert condition() or self._process.poll() is None, f"it ended before: {what}\n{self.text()}"
            return condition()

        until(met, what, 90)

    def end(self) -> int:
        """Its exit code."""
        return self._process.wait(120)

    def text(self) -> str:
        """Its output so far."""
        return (self.out / "output").read_text(errors="replace")

    def events(self, attempt: int, name: str) -> list[dict[str, Any]]:
        """Events of an attempt's ledger. Those of a full disk are lost, and counted when it has room again."""
        with contextlib.suppress(OSError):
            lines = (self.run / "attempts" / f"{attempt:04d}" / "ledger.jsonl").read_text().splitlines()
            return [event for event in map(json.loads, filter(None, lines)) if event["event"] == name]
        return []
