"""`hpcresume launch` as it is typed: what it refuses, what it prints, what it would do."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.launching import STAND_IN, hpcresume, ledger
from tests.support.mpi import child_environment

pytestmark = pytest.mark.timeout(60)
RESTARTED = {"SLURM_JOB_ID": "12", "SLURM_RESTART_COUNT": "3", "PATH": "/usr/bin:/bin", "OMPI_MCA_btl": "^ofi"}


def run(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    environ = child_environment({"OMPI_MCA_btl": "^ofi", **(env or {})})
    return subprocess.run(hpcresume("launch", *words), env=environ, capture_output=True, text=True, timeout=50)


def test_a_dry_run_shows_the_command_and_starts_nothing(tmp_path):
    done = run("--dry-run", "--ranks", "2", "--", "touch", str(tmp_path / "a b"))
    assert done.returncode == 0
    assert done.stdout.rstrip().endswith(f"touch '{tmp_path}/a b'")
    assert " -n 2 " in done.stdout
    facts = json.loads(run("--dry-run", "--json", "--", "touch", str(tmp_path / "x")).stdout)
    assert (facts["kind"], facts["arguments"][-2:]) == ("direct", ["touch", str(tmp_path / "x")])
    assert list(tmp_path.iterdir()) == []


def test_one_json_object_tells_what_came_of_it():
    done = run("--json", "--", sys.executable, "-c", "print('from the rank'); raise SystemExit(9)")
    outcome = json.loads(done.stdout)
    assert (outcome["exit_code"], outcome["decision"], outcome["cause"]) == (9, "hold", "crash")
    assert "from the rank" in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "COMMAND"),
        (("--ranks", "0", "--", "true"), "--ranks"),
        (("--mpi", "magic", "--", "true"), "--mpi"),
        (("--mpi", "srun", "--", "true"), "no srun"),
        (("--mpi", "direct", "--ranks", "2", "--", "true"), "need mpiexec"),
        (("--ranks", "2", "--", "true", ":", "reboot"), "lone ':'"),
    ],
)
def test_what_cannot_be_is_one_clear_error(words, says, tmp_path):
    done = run(*words, env={"PATH": str(tmp_path)})
    assert done.returncode in (2, 78)
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_options_of_the_command_are_not_ours():
    done = run("--", sys.executable, "-c", "import sys; print(sys.argv[1:])", "--json", "--help", "--ranks")
    assert (done.returncode, done.stdout.strip()) == (0, "['--json', '--help', '--ranks']")


@pytest.mark.mpi
def test_a_held_run_that_slurm_starts_by_itself_stays_held_until_a_person_releases_it(tmp_path):
    crash = (
        "--ranks",
        "1",
        "--mpi",
        "mpiexec",
        "--max-crashes",
        "1",
        "--",
        *STAND_IN,
        str(tmp_path),
        "9",
        "0",
        "crash=5",
    )
    assert run(*crash).returncode == 77
    again = ("--run", str(tmp_path), "--mpi", "mpiexec", "--ranks", "1")
    rest = ("--", *STAND_IN, str(tmp_path), "9", "0")
    held = run(*again, *rest, env=RESTARTED)
    assert (held.returncode, "--release" in held.stderr) == (77, True)
    assert ledger(tmp_path, 2) == []
    assert run(*again, "--release", *rest, env=RESTARTED).returncode == 0
    assert ledger(tmp_path, 2)[-1]["event"] == "ended"


def test_a_released_run_of_a_new_job_needs_no_option(tmp_path):
    (tmp_path / "attempts/0001").mkdir(parents=True)
    line = {"t": 1.0, "mono": 1.0, "event": "decision", "decision": "hold"}
    (tmp_path / "attempts/0001/supervisor.jsonl").write_text(json.dumps(line) + "\n")
    assert run("--run", str(tmp_path), "--", "true").returncode == 0
