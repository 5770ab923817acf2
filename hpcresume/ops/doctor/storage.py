"""The folder of a run: renames, speed, space, clock. Each look is bounded in bytes and seconds.

Everything is done in a folder of its own beside the generations, which is removed afterwards.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcresume.errors import RunDirectoryError
from hpcresume.io.durable import fsync_directory
from hpcresume.io.hints import hint_for
from hpcresume.observe.figures import size
from hpcresume.ops.doctor.bounded import NoAnswer, within
from hpcresume.ops.doctor.finding import Finding, bad, ok, unknown, warn

__all__ = [
    "Speed",
    "measure",
    "nearest_folder",
    "rename_finding",
    "scratch",
    "space_finding",
    "speed_findings",
    "time_finding",
]

AREA = "folder"
PATIENCE = 30.0
"""Seconds after which a filesystem that does not answer is taken for hung."""
BLOCK = 4 << 20
SLOW = 20e6
"""Bytes a second: below it policy.deadline takes a filesystem for dead."""
RENAMES = 300
CLOCK_WARNS = 2.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Speed:
    """Bytes that were written with fsync and read back, and how many seconds each took."""

    nbytes: int
    write_seconds: float
    read_seconds: float
    same: bool


def nearest_folder(path: Path) -> Path:
    """The folder itself, or the nearest one above it that is there.

    Raises:
        RunDirectoryError: something on the way is no folder, or nothing can be written there.
    """
    path = path.absolute()
    try:
        found = within(PATIENCE, lambda: _nearest(path), f"looking at {path}")
        writable = within(PATIENCE, lambda: os.access(found, os.W_OK | os.X_OK), f"looking at {found}")
    except OSError as error:
        what = str(error) if isinstance(error, NoAnswer) else f"cannot be looked at: {error.strerror or error}"
        raise RunDirectoryError(what, where=str(path), hint=hint_for(error.errno, otherwise="another path")) from error
    if not found.is_dir():
        raise RunDirectoryError("this is no folder", where=str(found), hint="the path of a run, or of a folder")
    if not writable:
        raise RunDirectoryError("nothing can be written here", where=str(found), hint="a folder of your own")
    return found


def _nearest(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if os.path.lexists(each))


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A private folder inside `folder` for the length of the block.

    Raises:
        RunDirectoryError: it cannot be made.
    """
    made = folder / f".hpcresume-doctor-{os.getpid()}-{secrets.token_hex(3)}"
    try:
        within(PATIENCE, lambda: made.mkdir(mode=0o700), f"making a folder in {folder}")
    except OSError as error:
        what = str(error) if isinstance(error, NoAnswer) else f"no folder can be made: {error.strerror or error}"
        hint = hint_for(error.errno, otherwise="a folder of your own on the shared filesystem")
        raise RunDirectoryError(what, where=str(folder), hint=hint) from error
    try:
        yield made
    finally:
        with contextlib.suppress(OSError):
            within(PATIENCE, lambda: _remove(made), "removing it")


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            _remove(path)
        else:
            path.unlink(missing_ok=True)
    folder.rmdir()


def rename_finding(folder: Path) -> Finding:
    """A file is renamed over another many times while somebody reads the name: whole each time, never missing."""
    name = "rename"
    try:
        seconds, torn = within(PATIENCE, lambda: _rename(folder), "renaming a file")
    except NoAnswer as error:
        return bad(AREA, name, str(error), "another filesystem; tell the administrators that this one hangs")
    except OSError as error:
        return bad(
            AREA,
            name,
            f"renaming fails: {error.strerror or error}",
            hint_for(error.errno, otherwise="another filesystem"),
        )
    if torn:
        what = f"a file that is renamed over another is missing or half for a reader ({torn} of {RENAMES} times)"
        return bad(AREA, name, what, "another filesystem: a commit needs an atomic rename")
    return ok(
        AREA, name, f"atomic under a reader ({RENAMES} times), and fsynced with its folder in {seconds * 1e3:.1f} ms"
    )


def _rename(folder: Path) -> tuple[float, int]:
    target, stop, torn = folder / "renamed", threading.Event(), [0]
    text = [f"{number:08d}" * 64 for number in range(2)]
    target.write_text(text[0])

    begun = threading.Event()

    def look() -> None:
        while not stop.is_set():
            try:
                torn[0] += target.read_text() not in text
            except OSError:  # ESTALE too: a reader of a generation would meet it as well
                torn[0] += 1
            begun.set()

    reader = threading.Thread(target=look, daemon=True)
    reader.start()
    begun.wait()
    try:
        for number in range(RENAMES):
            scratch_file = folder / "before"
            scratch_file.write_text(text[number % 2])
            scratch_file.rename(target)
    finally:
        stop.set()
        reader.join()
    return _durable_rename(folder), torn[0]


def _durable_rename(folder: Path) -> float:
    """A small file and its name on disk, as a commit does it."""
    began = time.monotonic()
    fd = os.open(folder / "durable.partial", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(fd, b"x" * 4096)
        os.fsync(fd)
    finally:
        os.close(fd)
    (folder / "durable.partial").rename(folder / "durable")
    fsync_directory(folder)
    return time.monotonic() - began


def speed_findings(folder: Path, nbytes: int, seconds: float, generation: int | None, say: Say) -> Iterator[Finding]:
    """Write, fsync, read back and compare.

    Args:
        folder: where.
        nbytes: at most so many.
        seconds: at most for about so long each way.
        generation: bytes of the run's newest generation, None without one.
        say: told what is done, since it may take a while.
    """
    say(f"writing up to {size(nbytes)} in {folder}")
    try:
        found = within(
            4 * seconds + PATIENCE, lambda: measure(folder / "speed", nbytes, seconds), "writing and reading"
        )
    except NoAnswer as error:
        yield bad(AREA, "speed", str(error), "another filesystem; tell the administrators that this one hangs")
        return
    except OSError as error:
        yield bad(
            AREA,
            "speed",
            f"writing fails: {error.strerror or error}",
            hint_for(error.errno, otherwise="another filesystem"),
        )
        return
    if not found.same:
        yield bad(AREA, "what is read back", "what was read back is not what was written", "another filesystem, now")
        return
    write, read = found.nbytes / found.write_seconds, found.nbytes / found.read_seconds
    text = (
        f"one process wrote {size(found.nbytes)} with fsync at {size(int(write))}/s, read back at {size(int(read))}/s"
    )
    if generation is not None:
        text += f"; a generation here is {size(generation)}: {generation / write:.1f} s by one process"
    if write < SLOW:
        yield warn(AREA, "speed", f"{text}: this is slow", "more nodes write more; is it the right filesystem?")
    else:
        yield ok(AREA, "speed", text)


def measure(path: Path, nbytes: int, seconds: float) -> Speed:
    """Write and read one file. The pages are dropped in between where the kernel does so, which is advice only.

    Raises:
        OSError: as the filesystem says.
    """
    block = bytearray(os.urandom(BLOCK))
    written, wrote = 0, hashlib.blake2b()
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        began, hashing = time.monotonic(), 0.0
        while written < nbytes and time.monotonic() - began < seconds:
            block[:8] = written.to_bytes(8, "little")
            paused = time.monotonic()
            wrote.update(block)
            hashing += time.monotonic() - paused
            written += os.write(fd, block)
        os.fsync(fd)
        write_seconds = time.monotonic() - began - hashing
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.lseek(fd, 0, os.SEEK_SET)
        began, hashing, read, left = time.monotonic(), 0.0, hashlib.blake2b(), written
        while left:
            piece = os.read(fd, min(BLOCK, left))
            if not piece:
                break
            paused = time.monotonic()
            read.update(piece)
            hashing += time.monotonic() - paused
            left -= len(piece)
        read_seconds = time.monotonic() - began - hashing
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)
    return Speed(written, max(write_seconds, 1e-6), max(read_seconds, 1e-6), read.digest() == wrote.digest())


def space_finding(folder: Path, generation: int | None, kept: int = 2) -> Finding:
    """Free space against what a save needs: a new generation is whole before an old one may go."""
    name = "free space"
    try:
        facts = within(PATIENCE, lambda: os.statvfs(folder), "asking for free space")
    except OSError as error:
        return unknown(AREA, name, f"it does not tell: {error}")
    free = facts.f_bavail * facts.f_frsize
    if facts.f_favail == 0 and facts.f_files:
        return bad(AREA, name, "there is no inode left", "remove files; many small ones take them")
    if generation is None:
        return ok(
            AREA, name, f"{size(free)} free (a quota is not seen here); the size of a generation is not known yet"
        )
    text = f"{size(free)} free (a quota is not seen here), a generation is {size(generation)}"
    if free < generation:
        return bad(
            AREA, name, f"{text}: the next save does not fit", "free some space, or keep fewer generations (keep=…)"
        )
    if free < (kept + 1) * generation:
        return warn(AREA, name, f"{text}: {free // generation} more fit", "free some space, or keep fewer (keep=…)")
    return ok(AREA, name, f"{text}: {free // generation} more fit")


def time_finding(folder: Path) -> Finding:
    """The filesystem's clock against ours, by the time that it gives a new file."""
    name = "clock of the filesystem"
    try:
        skew = within(PATIENCE, lambda: _skew(folder / "clock"), "writing a file")
    except OSError as error:
        return unknown(AREA, name, f"it does not tell: {error}")
    if abs(skew) <= CLOCK_WARNS:
        return ok(AREA, name, f"as ours, to {abs(skew):.2f} s")
    what = f"its times are {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} our clock: ages of files are off"
    return warn(AREA, name, what, "tell the administrators; hpcresume itself goes by the times written in its files")


def _skew(path: Path) -> float:
    """Seconds by which its clock is ahead; 0 while its time lies between ours before and after, to a tick."""
    before = time.time()
    with path.open("wb") as file:
        file.write(b"x")
        file.flush()
        os.fsync(file.fileno())
    stamp, after = path.stat().st_mtime, time.time()
    tick = 0.02  # kernels stamp by the tick of their timer, up to 10 ms old
    return stamp - after if stamp > after else stamp - before if stamp < before - tick else 0.0
