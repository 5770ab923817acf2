"""The looks that touch the world: MPI, the folder, other processes; each with one broken on purpose."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from hpcresume.errors import RunDirectoryError
from hpcresume.io.mpiexec import find_mpiexec
from hpcresume.launch.starter import Start
from hpcresume.ops.doctor import node_program, storage
from hpcresume.ops.doctor import nodes as nodes_module
from hpcresume.ops.doctor.bounded import NoAnswer, within
from hpcresume.ops.doctor.mpi import PROGRAM, Tried, hdf5_finding, judge_world, library_finding, try_start
from hpcresume.ops.doctor.node_program import facts
from hpcresume.ops.doctor.nodes import NodeSeen, Survey, node_findings, survey

pytestmark = pytest.mark.timeout(120)
SRUN = Start("srun", ("srun", "--kill-on-bad-exit=1", "--mpi=none"))


def nothing(_text: str) -> None:
    """Say nothing."""


def test_what_takes_too_long_is_given_up_and_failures_come_through():
    never = threading.Event()
    with pytest.raises(NoAnswer, match=r"reading gave no answer within 0\.05 s"):
        within(0.05, never.wait, "reading")
    never.set()
    assert within(5, lambda: 7, "it") == 7

    def fails() -> None:
        raise OSError(errno.EIO, "bad")

    with pytest.raises(OSError, match="bad"):
        within(5, fails, "it")


# ---- MPI


def ranks(*sizes: int) -> tuple[dict[str, object], ...]:
    return tuple({"rank": n, "size": size, "node": f"n{n}", "library": "X"} for n, size in enumerate(sizes))


@pytest.mark.parametrize(
    ("tried", "verdict", "words"),
    [
        (Tried(0, ranks(2, 2)), "ok", "starts 2 ranks on 2 nodes, and each sees all 2"),
        (Tried(0, ranks(1, 1)), "bad", "each believes to be alone"),
        (Tried(0, ranks(2)), "bad", "1 of 2 ranks came up, world sizes [2]"),
        (Tried(1, (), "srun: error: boom"), "bad", "srun: error: boom"),
        (Tried(None, (), "no answer within 60 s"), "bad", "no answer within 60 s"),
        (Tried(3), "unknown", "mpi4py is not installed"),
    ],
)
def test_what_the_ranks_printed_is_judged(tried, verdict, words):
    found = judge_world("srun", 2, SRUN, tried)
    assert (found.verdict, words in found.what) == (verdict, True), found
    if verdict == "bad":
        assert "--mpi=pmix" in found.hint


@pytest.mark.parametrize(
    ("tried", "verdict"),
    [(Tried(0, ranks(1)), "ok"), (Tried(3), "warn"), (Tried(4, words="no libmpi"), "bad"), (Tried(-11), "bad")],
)
def test_what_one_process_finds_is_judged(tried, verdict):
    assert library_finding(tried).verdict == verdict


@pytest.mark.mpi
def test_a_real_mpiexec_starts_ranks_that_see_each_other_and_processes_by_themselves_do_not():
    mpiexec = find_mpiexec()
    start = Start("mpiexec", (mpiexec.program, *mpiexec.options, "-n", "2", *PROGRAM), mpiexec.environ)
    found = judge_world("mpiexec", 2, start, try_start(start.arguments, start.environ))
    assert found.verdict == "ok", found
    one = " ".join(PROGRAM)
    alone = try_start(["bash", "-c", f"{one}; {one}"], {})
    assert judge_world("srun", 2, SRUN, alone).verdict == "bad"
    assert library_finding(alone).verdict == "ok"


def test_a_launcher_that_is_missing_or_hangs_is_told():
    assert try_start(["/no/such/srun"], {}).words == "/no/such/srun: No such file or directory"
    began = time.monotonic()
    assert try_start(["sleep", "60"], {}, 0.2).words == "no answer within 0.2 s"
    assert time.monotonic() - began < 20


def test_hdf5_lacks_nothing():
    found = hdf5_finding()
    assert found.verdict == "ok"
    assert "all ranks write one file either way" in found.what


# ---- the folder


def test_a_real_folder_is_fine(tmp_path):
    with storage.scratch(tmp_path) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert storage.rename_finding(folder).verdict == "ok"
        assert storage.time_finding(folder).verdict == "ok"
        (found,) = storage.speed_findings(folder, 8 << 20, 5.0, 1 << 20, nothing)
        assert (found.verdict, "wrote 8.0 MiB" in found.what) == ("ok", True)
    assert list(tmp_path.iterdir()) == []


def test_writing_stops_when_its_seconds_are_over(tmp_path):
    assert 0 < storage.measure(tmp_path / "x", 1 << 40, 0.2).nbytes < 1 << 36


def test_a_reader_that_misses_the_file_is_noticed(tmp_path, monkeypatch):
    real = Path.rename

    def in_two_steps(self: Path, target: Path) -> Path:
        Path(target).unlink(missing_ok=True)
        time.sleep(0.002)
        return real(self, target)

    monkeypatch.setattr(storage, "RENAMES", 20)
    monkeypatch.setattr(Path, "rename", in_two_steps)
    found = storage.rename_finding(tmp_path)
    assert (found.verdict, "missing or half" in found.what) == ("bad", True)


def test_bytes_that_come_back_different_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "measure", lambda *_words: storage.Speed(9, 1.0, 1.0, same=False))
    (found,) = storage.speed_findings(tmp_path, 9, 1.0, None, nothing)
    assert (found.name, found.verdict) == ("what is read back", "bad")


def test_a_filesystem_that_hangs_or_fails_is_a_line(tmp_path, monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(storage, "PATIENCE", 0.1)
    monkeypatch.setattr(storage, "_rename", lambda _folder: never.wait())
    monkeypatch.setattr(storage, "measure", lambda *_words: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    assert "no answer" in storage.rename_finding(tmp_path).what
    (found,) = storage.speed_findings(tmp_path, 9, 0.0, None, nothing)
    assert (found.verdict, found.hint) == ("bad", "free some space, or use another filesystem")
    never.set()


@pytest.mark.parametrize(("share", "verdict"), [(0.5, "bad"), (1.5, "warn"), (10.0, "ok"), (None, "ok")])
def test_free_space_is_held_against_a_generation(tmp_path, monkeypatch, share, verdict):
    facts = os.statvfs(tmp_path)
    free = facts.f_bavail * facts.f_frsize
    monkeypatch.setattr(os, "statvfs", lambda _path: facts)
    generation = None if share is None else int(free / share)
    assert storage.space_finding(tmp_path, generation).verdict == verdict


def test_a_clock_that_is_off_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_skew", lambda _path: -7.0)
    found = storage.time_finding(tmp_path)
    assert (found.verdict, "7.0 s behind" in found.what) == ("warn", True)


def test_a_path_that_is_no_folder_or_not_there(tmp_path):
    (tmp_path / "file").write_text("")
    assert storage.nearest_folder(tmp_path / "a" / "b") == tmp_path
    with pytest.raises(RunDirectoryError, match="no folder"):
        storage.nearest_folder(tmp_path / "file" / "below")


# ---- other processes, and nodes


def test_another_process_answers_and_is_ended(tmp_path):
    found = survey(tmp_path, (), 1)
    assert found.problem == ""
    (node,) = found.nodes
    assert node.seconds is not None
    assert node.seconds < 30
    assert abs(node.skew) <= node.error + 0.01
    assert node.facts["versions"]["numpy"]
    assert [each.verdict for each in node_findings(found, facts(), in_job=False)] == ["ok"]


def test_processes_that_do_not_come_up_are_told_with_their_last_words(tmp_path):
    found = survey(tmp_path, ("bash", "-c", "echo srun: no nodes >&2; exit 1"), 2)
    assert found.problem.endswith("srun: no nodes")
    (told,) = node_findings(found, facts(), in_job=True)
    assert told.verdict == "unknown"
    assert survey(tmp_path, ("/no/such/srun",), 2).problem == "/no/such/srun: No such file or directory"


def test_one_that_never_sees_the_file_is_named(tmp_path, monkeypatch):
    """As on a folder that each node has for itself: here it answers once, and then looks elsewhere."""
    monkeypatch.setattr(nodes_module, "ROUND_SECONDS", 0.5)
    code = (
        "import json, sys, time; from pathlib import Path; f = Path(sys.argv[1]);"
        "(f / 'facts-0.json').write_text(json.dumps({'host': 'n2'}));"
        "[time.sleep(0.05) for _ in range(200) if not (f / 'stop').exists()]"
    )
    found = survey(tmp_path, (sys.executable, "-c", code, str(tmp_path), "#"), 1)
    assert found.problem == "n2 did not see a new file within 0.5 s"
    assert [each.verdict for each in node_findings(found, facts(), in_job=False)] == ["bad"]


def node(host: str, skew: float = 0.0, seconds: float = 0.01, **versions: str) -> NodeSeen:
    return NodeSeen(host, {"host": host, "python": "3.11.2", "versions": versions}, seconds, skew, 0.005)


def judged(*nodes: NodeSeen) -> dict[str, object]:
    ours = {"host": "n1", "python": "3.11.2", "versions": {"numpy": "2.0"}}
    return {each.name: each for each in node_findings(Survey(nodes), ours, in_job=True)}


@pytest.mark.parametrize(
    ("second", "name", "verdict", "words"),
    [
        (node("n2", numpy="2.0"), "alike on all nodes", "ok", "on all 2 nodes: Python 3.11.2, numpy 2.0"),
        (node("n2", numpy="1.26"), "alike on all nodes", "bad", "n2 has numpy 1.26, here 2.0"),
        (node("n2"), "alike on all nodes", "bad", "n2 has numpy not at all, here 2.0"),
        (node("n2", 0.4, numpy="2.0"), "clocks", "ok", "0.400 s apart"),
        (node("n2", 4.0, numpy="2.0"), "clocks", "warn", "n2 is off"),
        (node("n2", -90.0, numpy="2.0"), "clocks", "bad", "90.000 s apart"),
        (node("n2", 0.0, 31.0, numpy="2.0"), "seen by others", "warn", "31.0 s there and back"),
    ],
)
def test_nodes_that_differ_are_named(second, name, verdict, words):
    found = judged(node("n1", numpy="2.0"), second)[name]
    assert (found.verdict, words in found.what) == (verdict, True), found  # type: ignore[attr-defined]


@pytest.mark.parametrize(("appears", "code"), [(True, 0), (False, 1)])
def test_a_node_waits_for_a_folder_that_it_does_not_see_yet(tmp_path, monkeypatch, capsys, appears: bool, code: int):
    monkeypatch.setattr(node_program, "LATE", 0.5)
    folder = tmp_path / "late"

    def appear(_: float) -> None:
        if appears:
            folder.mkdir()
            (folder / "stop").touch()

    monkeypatch.setattr(node_program.time, "sleep", appear)
    assert node_program.main(folder, "1", 10.0) == code
    assert ("is not seen on" in capsys.readouterr().err) != appears
