"""Which exceptions may be the echo of a peer's end. The words are those that torch, MPI and the kernel print."""

from __future__ import annotations

import pytest

from hpcresume.policy.lost_peer import is_echo


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("PeerFailureError", "rank 1 failed"),
        ("RanksMissingError", "rank 1 is missing"),
        ("ConnectionResetError", "[Errno 104] Connection reset by peer"),
        ("BrokenPipeError", "[Errno 32] Broken pipe"),
        (
            "RuntimeError",
            "[/pytorch/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:2",
        ),
        ("RuntimeError", "Timed out waiting 1800000ms for recv operation to complete"),
        ("DistBackendError", "NCCL error in: NCCLUtils.hpp:268, remote process exited or there was a network error"),
        ("DistBackendError", "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=2)"),
        ("DistStoreError", "Socket Timeout"),
        ("Exception", "MPI_ERR_PROC_FAILED: Process Failure"),
        ("Exception", "MPI_ERR_OTHER: known error not in list"),
        ("OSError", "[Errno 113] No route to host"),
        ("OSError", "[Errno 107] Transport endpoint is not connected: '/scratch/run'"),
        ("OSError", "[Errno 116] Stale file handle"),
        ("TimeoutError", ""),
        ("OSError", "[Errno 5] Input/output error: '/scratch/run/step'"),
        ("OSError", "Can't write data (errno = 5, error message = 'Input/output error')"),
        ("RuntimeError", "NCCL communicator was aborted on rank 1."),
        ("RuntimeError", "ncclSystemError: System call (e.g. socket, malloc) or external library call failed"),
        ("RuntimeError", "Gloo connectFullMesh failed with [/gloo/transport/tcp/pair.cc:144] no error"),
        ("RuntimeError", "Application timeout caused pair closure"),
        ("RuntimeError", "wait timeout after 1800000ms, keys: /default_pg/0//1"),
        ("XlaRuntimeError", "UNAVAILABLE: Connection reset by peer"),
        ("HorovodInternalError", "MPI_ERR_OTHER: known error not in list"),
    ],
)
def test_what_a_rank_raises_when_a_peer_is_gone_says_nothing_of_the_program(kind, message):
    assert is_echo(kind, message)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("ValueError", "bad loss"),
        ("ValueError", "a bug in the training"),
        ("RuntimeError", "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        ("RuntimeError", "CUDA error: device-side assert triggered"),
        ("AssertionError", ""),
        ("KeyError", "'weights'"),
        ("IndexError", "list index out of range"),
        ("SystemExit", "user called sys.exit"),
        ("FileNotFoundError", "[Errno 2] No such file or directory: 'data.bin'"),
        ("MemoryError", "Unable to allocate 16.0 GiB for an array with shape (2147483648,)"),
        ("Exception", "the portfolio is empty"),
        ("ModuleNotFoundError", "No module named 'apex'"),
        ("KeyError", "'NCCL_DEBUG'"),
        ("ValueError", "bad timeout value"),
        ("ValueError", "connection timed out is no name of a column"),
        ("TypeError", "ProcessGroup is not callable"),
        ("AssertionError", "heartbeat timed out"),
        ("IndexError", "UCX"),
        ("ImportError", "cannot import name 'x' from 'gloo:y'"),
        ("FileNotFoundError", "[Errno 2] No such file or directory: '/data/gloo/pair.cc:5'"),
        ("RuntimeError", "bad timeout value"),
        ("RuntimeError", "NCCL_DEBUG is not set"),
        ("RuntimeError", "cannot read /data/gloo/images.tar"),
        ("OSError", "[Errno 28] No space left on device: '/data/gloo/images.tar'"),
    ],
)
def test_what_a_program_raises_for_reasons_of_its_own_is_no_echo(kind, message):
    assert not is_echo(kind, message)
