"""One rank's part in `hpcresume doctor`: says which MPI it has, and how many ranks it sees.

`python -m hpcresume.ops.doctor.rank_program` under mpiexec or srun; one JSON line a rank on standard output, written at
once, so that lines of several ranks do not mix.
"""

from __future__ import annotations

import json
import os
import sys

from hpcresume.comm.nodes import node_name

__all__ = ["main"]


def main() -> int:
    """Print the line. Exit code 3: mpi4py is missing, 4: there is no MPI library for it."""
    try:
        from mpi4py import MPI
    except ModuleNotFoundError:
        return 3
    except (ImportError, RuntimeError) as error:
        sys.stderr.write(f"{error}\n")
        return 4
    world = MPI.COMM_WORLD
    value = {"rank": world.Get_rank(), "size": world.Get_size(), "node": node_name(os.environ),
             "library": MPI.Get_library_version().split("\n")[0].split(",")[0][:80].rstrip("\0 ")}  # fmt: skip
    os.write(1, (json.dumps(value) + "\n").encode())
    world.Barrier()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
