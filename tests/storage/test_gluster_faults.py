"""A brick is killed while a training saves or restores, and a mount hangs: real failures of a real filesystem."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

import hpcresume as hr
from tests.storage.gluster import BRICKS, until
from tests.storage.jobs import STEPS, Job, Site, assert_same
from tests.support.sampling import sampled

SAVES = ("--every", "15 steps", "--pause", "0.1")
COMES_BACK_SOON = "--pause 1s"


def away(job: Job, attempt: int, event: str) -> list[str]:
    """What was said of the storage in events of a name."""
    said = [str(each.get("error") or each.get("message") or each.get("reason")) for each in job.events(attempt, event)]
    return [text for text in said if "endpoint is not connected" in text or "does not answer" in text]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("path", "call", "name"),
    sampled(
        [
            ("posix", "pwrite", "*/.g*partial*/state.h5"),
            ("mpiio", "fsync", "*/.g*partial*/state.h5"),
            ("posix", "fsync", "*/.g*partial*/manifest.json"),
            ("posix", "rename", "*/generations/g*"),
        ],
        lambda cell: cell[1] in ("pwrite", "rename"),
    ),
)
def test_a_brick_killed_in_a_save_costs_that_save_and_nothing_else(
    site: Site, uninterrupted: dict[str, object], tmp_path: Path, path: str, call: str, name: str
) -> None:
    job = Job(site, tmp_path, "--write-path", path, *SAVES)
    job.wait(lambda: job.events(1, "saved"), "first save")
    job.hold_at(call, name)
    held = job.wait_until_held()
    site.gluster.kill_brick(1 if call == "rename" else site.gluster.brick_of(held))
    job.go_on()
    job.wait(lambda: job.events(1, "save-failed"), "failed save")
    failed_at = job.events(1, "save-failed")[0]["step"]
    assert away(job, 1, "save-failed"), job.events(
        1, "save-failed"
    )  # the fault has happened, and is told as what it is
    assert {event["type"] for event in job.events(1, "save-failed")} == {"SaveError"}
    assert "reach its servers" in job.text()
    steps = (tmp_path / "steps.jsonl").read_text().count("\n")
    job.wait_for_step(steps + 1)  # the training goes on
    site.gluster.heal()
    job.wait_until_ended()
    assert_same(job, uninterrupted)
    assert job.cause(1) == "done"
    found = hr.Generations(job.seen())
    assert all(found.verify(each).ok for each in found.list()), "older and later generations are whole"
    assert failed_at < STEPS == found.list()[-1].step
    assert not list((job.seen() / "generations").glob(".g*")), "nothing stays of the save that failed"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("call", sampled(["pread", "open"], lambda call: call == "pread"))
def test_a_brick_killed_in_a_restore_gives_no_generation_up_and_the_run_comes_back(
    site: Site, uninterrupted: dict[str, object], tmp_path: Path, call: str
) -> None:
    job = Job(site, tmp_path, *SAVES, launch=COMES_BACK_SOON)
    job.wait_for_step(20)
    job.hold_at(call, "*/generations/g*/state.h5")
    job.preempt()
    job.wait(lambda: (tmp_path / "held").exists(), "held restore")
    held = job.wait_until_held()
    assert (job.seen() / "attempts" / "0002").exists()
    site.gluster.kill_brick(site.gluster.brick_of(held))
    job.go_on()
    # The words are the session's, or the exception's where the decision's own file would lie on the lost brick too.
    said = re.compile(r"^hpcresume launch: storage: .*(could not begin: |StorageAwayError on rank \d)", re.MULTILINE)
    job.wait(lambda: said.search(job.text()), "end of the second attempt")
    assert "StorageAwayError" in job.text() and "endpoint is not connected" in job.text(), "the fault has happened"
    # Not mended before the next start, which may find no place for its own files either, and still comes back.
    job.wait(lambda: job.text().count("hpcresume launch: storage: comes back") >= 2, "end of the third start")
    site.gluster.heal()
    job.wait_until_ended()
    assert_same(job, uninterrupted)
    # Its supervisor may have had no place to write to: the next one tells then what became of it.
    assert job.cause(2) == "storage", job.text()
    restored = [event for attempt in range(3, 12) for event in job.events(attempt, "restored")]
    assert restored[-1]["generation"] == held.parent.name and restored[-1]["skipped"] == [], "no step was lost"


@pytest.mark.timeout(240)
def test_a_mount_that_hangs_ends_the_job_in_time_and_it_comes_back_with_the_mount(
    site: Site, uninterrupted: dict[str, object], tmp_path: Path
) -> None:
    job = Job(site, tmp_path, *SAVES, "--watchdog", "8s", launch=COMES_BACK_SOON)
    job.wait(lambda: job.events(1, "saved"), "first save")
    job.hold_at("pwrite", "*/.g*partial*/state.h5", rank=2)
    job.wait_until_held()
    client = site.gluster.client(site.cluster, "n2")
    os.kill(client, signal.SIGSTOP)
    stopped = time.monotonic()
    job.go_on()
    job.wait(lambda: job.events(1, "ranks-missing"), "word of the watchdog", 60)
    (missing, *_) = job.events(1, "ranks-missing")
    assert missing["missing"] and set(missing["missing"]) <= {2, 3} and "save step" in missing["waiting_for"]
    print(f"the watchdog spoke {time.monotonic() - stopped:.1f} s after the mount hung")
    job.wait(lambda: job.cause(1), "end of the first attempt", 90)
    print(f"the attempt had ended {time.monotonic() - stopped:.1f} s after the mount hung")
    assert job.cause(1) == "storage", job.text()
    assert Path(f"/proc/{client}/stat").read_text().split()[2] == "T", "it still hangs"
    os.kill(client, signal.SIGCONT)
    job.wait_until_ended(150)
    assert_same(job, uninterrupted)


@pytest.mark.timeout(120)
def test_what_one_mount_renames_or_removes_the_others_see_at_once(site: Site, tmp_path: Path) -> None:
    """What votes and commits rest on: names are not cached longer than a moment, on whichever brick they lie."""
    here, there = (site.seen_on(node, site.gluster.mount_point) for node in site.cluster.mini.names)
    (here / "shown").mkdir()
    slowest = 0.0
    for n in range(4 * BRICKS):
        (here / "shown" / f".g{n}").mkdir()
        (here / "shown" / f".g{n}" / "manifest.json").write_text(json.dumps(n))
        list((there / "shown").iterdir())  # the other one has looked, and knows the old name
        (here / "shown" / f".g{n}").rename(here / "shown" / f"g{n}")
        began = time.monotonic()
        until(lambda n=n: f"g{n}" in {p.name for p in (there / "shown").iterdir()}, "rename", 10)
        assert json.loads((there / "shown" / f"g{n}" / "manifest.json").read_text()) == n
        slowest = max(slowest, time.monotonic() - began)
    print(f"a rename was seen on the other mount after {slowest * 1000:.0f} ms at most")
    assert slowest < 5
