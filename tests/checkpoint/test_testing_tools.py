"""The tools that users get for their own tests do what they say, and say so when their fault never happened."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hpcresume.io.durable import pwrite_all, write_durably, write_new_file
from hpcresume.io.files import files, substituted
from hpcresume.testing.damage import copy_block, flip_bit, flip_byte, swap_blocks, truncate, zero_block
from hpcresume.testing.faults import FaultyFiles, SimulatedCrash


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 5)
    return path


def test_every_state_changing_call_is_logged_with_its_path(tmp_path: Path) -> None:
    faulty = FaultyFiles()
    with substituted(faulty):
        write_durably(tmp_path / "a", b"hello")
    assert faulty.names() == ["open", "pwrite", "fsync", "close", "rename", "fsync"]
    scratch, target = faulty.log[4].path, faulty.log[4].detail
    assert target == str(tmp_path / "a")
    assert all(call.path == scratch for call in faulty.log[:5])
    assert faulty.log[5].path == str(tmp_path)
    assert [call.number for call in faulty.log] == list(range(6))
    with pytest.raises(AssertionError, match="never happened"):
        faulty.assert_fired()


@pytest.mark.parametrize("after", [False, True])
def test_an_error_comes_at_the_call_that_was_named_and_only_once(tmp_path: Path, after: bool) -> None:
    faulty = FaultyFiles(0, errno.EDQUOT, only=("mkdir",), after=after)
    with substituted(faulty):
        with pytest.raises(OSError, match=os.strerror(errno.EDQUOT)):
            files().mkdir(tmp_path / "a")
        assert (tmp_path / "a").exists() is after
        files().mkdir(tmp_path / "b")
    assert faulty.fired == 1
    faulty.assert_fired()


def test_for_good_means_every_later_call(tmp_path: Path) -> None:
    faulty = FaultyFiles(1, errno.EIO, once=False)
    with substituted(faulty):
        files().mkdir(tmp_path / "a")
        for name in ("b", "c"):
            with pytest.raises(OSError, match="Input/output"):
                files().mkdir(tmp_path / name)
    assert faulty.fired == 2


@pytest.mark.parametrize("after", [False, True])
def test_after_a_crash_nothing_reaches_the_disk_and_nothing_leaks(tmp_path: Path, after: bool) -> None:
    before = len(os.listdir("/proc/self/fd"))
    faulty = FaultyFiles(1, "crash", after=after)
    with substituted(faulty):
        with pytest.raises(SimulatedCrash):
            write_new_file(tmp_path / "a", b"hello")
        with pytest.raises(SimulatedCrash):
            files().mkdir(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (b"hello" if after else b"")
    assert not (tmp_path / "b").exists()
    assert len(os.listdir("/proc/self/fd")) == before
    assert not issubclass(SimulatedCrash, Exception)


def test_a_short_write_puts_half_and_says_so(tmp_path: Path) -> None:
    faulty = FaultyFiles(1, "short")
    with substituted(faulty):
        fd = files().open(tmp_path / "a", os.O_WRONLY | os.O_CREAT)
        assert files().pwrite(fd, memoryview(b"12345678"), 0) == 4
        pwrite_all(fd, memoryview(b"5678"), 4)
        files().close(fd)
    assert faulty.fired == 1
    assert (tmp_path / "a").read_bytes() == b"12345678"


def test_an_error_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="explode"):
        FaultyFiles(0, "explode")


def test_flips_change_one_place_and_back(file: Path) -> None:
    content = file.read_bytes()
    assert flip_bit(file, 7, 3)
    assert file.read_bytes()[7] == content[7] ^ 8
    assert flip_bit(file, 7, 3)
    assert flip_byte(file, 0)
    assert file.read_bytes() == b"\xff" + content[1:]
    assert not flip_byte(file, 1, 0)
    with pytest.raises(ValueError, match="has no 1 bytes"):
        flip_byte(file, len(content))


def test_truncating_says_whether_it_changed_anything(file: Path) -> None:
    assert not truncate(file, 1280)
    assert truncate(file, 10)
    assert file.stat().st_size == 10


def test_blocks_are_zeroed_swapped_and_copied(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    assert zero_block(file, 1024)
    assert file.read_bytes() == content[:1024] + bytes(256)
    assert not zero_block(file, 1024)
    file.write_bytes(content)
    assert swap_blocks(file, 0, 600, 100)
    assert file.read_bytes()[:100] == content[600:700]
    assert file.read_bytes()[600:700] == content[:100]
    with pytest.raises(ValueError, match="overlap"):
        swap_blocks(file, 0, 50, 100)
    with pytest.raises(ValueError, match="no two blocks"):
        swap_blocks(file, 0, 1200, 100)
    other = tmp_path / "other"
    other.write_bytes(b"x" * 700)
    assert copy_block(other, file, 512)
    assert file.read_bytes()[512:700] == b"x" * 188
    assert not copy_block(other, file, 512)
