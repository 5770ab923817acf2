"""What a save costs on the distributed filesystem beside what its mount gives to dd: printed, for the docs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.storage.jobs import Job, Site

MIB = 1 << 20
NUMBERS = 4 * MIB  # 8 bytes each, twice: 64 MiB of state


@pytest.mark.full
@pytest.mark.timeout(280)
def test_the_bandwidth_of_saves_on_two_clients_beside_that_of_dd(site: Site, tmp_path: Path) -> None:
    rates = {}
    for path in ("posix", "mpiio"):
        out = tmp_path / path
        out.mkdir()
        job = Job(site, out, "--write-path", path, "--size", str(NUMBERS), "--every", "1 steps", steps=4)
        job.wait_until_ended(200)
        saved = job.events(1, "saved")
        assert {event["write_path"] for event in saved} == {path}
        rates[path] = max(event["bytes"] / event["seconds"] for event in saved) / MIB
        rates["dd, one client"] = max(rates.get("dd, one client", 0.0), dd(site, out.name))
    for name, rate in rates.items():
        print(f"{name:16} {rate:7.0f} MiB/s")
    assert min(rates.values()) > 0


def dd(site: Site, name: str) -> float:
    """One process, 64 MiB, synced: MiB/s."""
    target = site.seen_on("n1", site.gluster.mount_point) / f"dd-{name}"
    words = ["dd", "if=/dev/zero", f"of={target}", "bs=1M", "count=64", "conv=fsync"]
    said = subprocess.run(
        words, capture_output=True, text=True, check=True, env={"LC_ALL": "C", "PATH": "/bin:/usr/bin"}
    )
    found = re.search(r"copied, ([\d.e-]+) s", said.stderr)
    assert found, said.stderr
    return 64 / float(found[1])
