"""One rank of a scenario: `python scenario_driver.py SCENARIO DIRECTORY`, started by mpiexec or with env://.

Leaves `DIRECTORY/<rank>` with what the scenario returned as JSON, so that a rank that never came is noticed.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

from hpcresume.comm import messages
from hpcresume.comm.choose import choose_ranks, opened_ranks
from hpcresume.comm.ranks import Ranks
from hpcresume.comm.vote import vote
from hpcresume.errors import HpcresumeError, RanksError

RANK = int(os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("RANK", "0")))


def in_step(ranks: Ranks) -> None:
    assert ranks.allgather(b"%d" % ranks.rank) == [b"%d" % rank for rank in range(ranks.size)]


def error_of(call: Any, *arguments: Any) -> HpcresumeError:
    try:
        call(*arguments)
    except HpcresumeError as error:
        return error
    raise AssertionError(f"{call} raised nothing")


def auto() -> Any:
    """What "auto" chooses."""
    with opened_ranks("auto", os.environ) as ranks:
        in_step(ranks)
        return [ranks.backend, ranks.size]


def nodes() -> Any:
    """Two ranks a node, as the emulator says it."""
    os.environ["HPCRESUME_NODE"] = f"n{RANK // 2}"
    with opened_ranks("auto", os.environ) as ranks:
        return ranks.nodes


def too_large() -> Any:
    """More than one call can carry, with the limit set low; the ranks stay in step."""
    with opened_ranks("auto", os.environ) as ranks:
        messages.MAX_BYTES = 1000
        gathered = error_of(ranks.allgather, b"x" * (1001 if ranks.rank == 1 else 0))
        sent = error_of(ranks.broadcast, b"x" * (1001 if ranks.rank == 1 else 0), 1)
        in_step(ranks)
        return [type(gathered).__name__, type(sent).__name__]


def vote_cost() -> Any:
    """Median seconds of a vote in which all is well."""
    with opened_ranks("auto", os.environ) as ranks:
        seconds = []
        for _ in range(2000):
            before = time.perf_counter()
            vote(ranks, "write", None)
            seconds.append(time.perf_counter() - before)
        return statistics.median(seconds)


def abort_on_rank_1() -> Any:
    """Rank 1 aborts with 9 while the others wait in a barrier."""
    ranks = choose_ranks("auto", os.environ)
    Path(sys.argv[2], f"aborting-{RANK}").touch()
    if ranks.rank == 1:
        ranks.abort(9)
    raise error_of(ranks.barrier)


def users_mpi_traffic() -> Any:
    """A receive from anybody, posted by the user before our calls, gets the user's message and no other."""
    import numpy as np
    from mpi4py import MPI

    box = np.zeros(1, dtype=np.int64)
    pending = MPI.COMM_WORLD.Irecv(box, MPI.ANY_SOURCE, MPI.ANY_TAG)
    with opened_ranks("auto", os.environ) as ranks:
        in_step(ranks)
        assert not pending.Test()
        ranks.barrier()  # else a fast neighbour's message is there before the line above
        MPI.COMM_WORLD.Send(np.array([100 + ranks.rank]), (ranks.rank + 1) % ranks.size)
        pending.Wait()
        in_step(ranks)
        return int(box[0])


def users_communicator() -> Any:
    """A communicator of the user's is duplicated, and lives on after `close`."""
    from mpi4py import MPI

    half = MPI.COMM_WORLD.Split(RANK % 2)
    with opened_ranks(half, os.environ) as ranks:
        in_step(ranks)
        found = [ranks.backend, ranks.size, ranks.mpi() != half]
    half.Barrier()
    null = error_of(choose_ranks, MPI.COMM_NULL, os.environ)
    return [*found, type(null).__name__]


def users_torch_group() -> Any:
    """The user's default group stays, with its own traffic; ours goes."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    with opened_ranks("auto", {}) as ranks:
        value = torch.tensor([ranks.rank + 1])
        pending = dist.all_reduce(value, async_op=True)
        in_step(ranks)
        pending.wait()
        found = [ranks.backend, ranks.size, int(value)]
    dist.barrier()
    found.append(dist.is_initialized())
    dist.destroy_process_group()
    return found


def our_torch_group() -> Any:
    """Made by us from env://, gone after `close`."""
    import torch.distributed as dist

    with opened_ranks("torch", os.environ) as ranks:
        in_step(ranks)
        found = dist.is_initialized()
    return [found, dist.is_initialized()]


def no_thread_of_gloo_outlives_our_group() -> Any:
    """A thread that frees the last call's tensors when the interpreter ends is ended by SIGABRT with the process."""
    import torch.distributed as dist

    if sys.argv[3:] == ["lent"]:
        dist.init_process_group("gloo")
        dist.barrier()
    before = gloo_threads()
    ranks = choose_ranks("torch", os.environ)
    in_step(ranks)
    during = gloo_threads()
    ranks.close()
    closed = gloo_threads()
    late = error_of(ranks.barrier)
    return [during > before, closed <= before, type(late).__name__]


def gloo_threads() -> int:
    """How many threads of this process run collectives, once that has stayed the same for a second.

    A new thread gives itself its name only when it first runs, and /proc shows one that ended a moment longer.
    """
    found, since = -1, time.monotonic()
    while time.monotonic() - since < 1:
        names = []
        for path in Path("/proc/self/task").glob("*/comm"):
            with contextlib.suppress(OSError):
                names.append(path.read_text())
        count = sum(name.startswith("pt_gloo_runloop") for name in names)
        if count != found:
            found, since = count, time.monotonic()
        time.sleep(0.02)
    return found


def torch_peer_is_late() -> Any:
    """Gloo's own timeout, where no watchdog is."""
    from hpcresume.comm.torch_dist import TorchRanks

    ranks = TorchRanks(timeout=timedelta(seconds=2))
    if ranks.rank == 1:
        time.sleep(4)
        return None
    error = error_of(ranks.barrier)
    assert isinstance(error, RanksError)
    return type(error).__name__


def main(scenario: str, directory: Path) -> None:
    try:
        result = globals()[scenario]()
    except HpcresumeError as error:
        result = type(error).__name__
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # MPI_Finalize would wait for the peers
    (directory / str(RANK)).write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
