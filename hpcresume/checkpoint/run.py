"""The run directory: made, recognised, or refused. Owns run.json."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import secrets
import stat
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hpcresume.checkpoint.phases import together
from hpcresume.comm.ranks import Ranks
from hpcresume.comm.vote import agree_bytes
from hpcresume.errors import FormatVersionError, RunDirectoryError
from hpcresume.io.durable import create_durably, fsync_directory, make_directory, write_durably
from hpcresume.io.files import files
from hpcresume.io.paths import RunPaths
from hpcresume.model import FORMAT_VERSION
from hpcresume.version import __version__

__all__ = ["check_generations", "mark_done", "open_run", "read_run", "reopen", "run_id"]


VISIBLE_SECONDS = 10.0
"""How long a rank waits until it sees the run that rank 0 has opened."""
_EFFECTIVE = os.access in os.supports_effective_ids
"""Ask for the ids that open(2) will use."""
_RUN_ID = re.compile(r"[0-9a-f]{32}")


def open_run(root: Path | str, *, create: bool, ranks: Ranks) -> RunPaths:
    """Collective. The run at `root`, made if `create` and nothing is there yet.

    Raises:
        RunDirectoryError: missing, not a run, a file, read-only, unwritable or without its generations/, on any rank.
        FormatVersionError: written by another format version.
    """
    run = RunPaths(Path(os.path.abspath(root)))
    with together(ranks, "open the run", RunDirectoryError):
        if ranks.rank == 0:
            try:
                _open_locally(run, create=create)
            except OSError as error:
                raise _directory_error(run, error) from error
    with together(ranks, "look at the run", RunDirectoryError):
        if not _becomes_visible(run.run_json):
            raise RunDirectoryError(
                "this rank does not see the run directory",
                where=str(run.root),
                hint="use a path on a filesystem that all nodes share",
            )
    return run


def _becomes_visible(path: Path) -> bool:
    """An NFS client may go on for a while believing that a file made on another node is not there."""
    end = time.monotonic() + VISIBLE_SECONDS
    while not path.is_file():
        if time.monotonic() > end:
            return False
        with contextlib.suppress(OSError):
            os.listdir(path.parent)  # makes the client look again
        time.sleep(0.1)
    return True


def _directory_error(run: RunPaths, error: OSError) -> RunDirectoryError:
    return RunDirectoryError(
        f"the run directory cannot be used: {error.strerror or error}",
        where=str(error.filename or run.root),
        hint="check that it lies on a writable filesystem and belongs to you",
    )


def _open_locally(run: RunPaths, *, create: bool) -> None:
    if run.root.exists() and not run.root.is_dir():
        raise RunDirectoryError("the run directory is a file", where=str(run.root), hint="another path")
    if not run.run_json.exists():
        if not create:
            what = "there is no run here" if run.root.is_dir() else "the run directory does not exist"
            raise RunDirectoryError(what, where=str(run.root), hint="check the path")
        if _holds_something(run.generations) or _holds_something(run.attempts):
            raise RunDirectoryError(
                "there are generations or attempts here but no run.json",
                where=str(run.root),
                hint="restore run.json from a backup, or use a new directory",
            )
        _make(run)
    read_run(run)
    check_generations(run)
    if create:
        _check_writable(run)


def check_generations(run: RunPaths) -> None:
    """Refuse a run without its directory of generations, which is made with the run.

    Raises:
        RunDirectoryError: it is not there, or is none.
    """
    if not run.generations.is_dir():
        raise RunDirectoryError(
            "the run has lost its directory of generations",
            where=str(run.generations),
            hint="restore it from a backup; to start from nothing, use a new run directory",
        )


def _holds_something(directory: Path) -> bool:
    """An empty directory is what a process leaves that is killed while it makes the run."""
    return directory.is_dir() and any(directory.iterdir())


def _make(run: RunPaths) -> None:
    make_directory(run.root)
    make_directory(run.generations)
    make_directory(run.attempts)
    facts = {
        "format_version": FORMAT_VERSION,
        "run_id": secrets.token_hex(16),
        "hpcresume": __version__,
        "created": datetime.fromtimestamp(time.time(), timezone.utc).isoformat(timespec="seconds"),
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "host": platform.node(),
            "command": sys.argv,
        },
    }
    with contextlib.suppress(FileExistsError):  # another job was quicker: its run is ours too
        create_durably(run.run_json, json.dumps(facts, indent=1).encode() + b"\n")


def _check_writable(run: RunPaths) -> None:
    for path in (run.root, run.generations, run.attempts):
        if not path.is_dir():
            make_directory(path)
        if not os.access(path, os.W_OK | os.X_OK, effective_ids=_EFFECTIVE) or os.statvfs(path).f_flag & os.ST_RDONLY:
            raise RunDirectoryError(
                "the run directory is not writable",
                where=f"{path}, mode {stat.filemode(path.stat().st_mode)}",
                hint="chmod u+rwx, another path, or mount the filesystem read-write",
            )


def read_run(run: RunPaths) -> dict[str, Any]:
    """The content of run.json.

    Raises:
        RunDirectoryError: it is missing or damaged.
        FormatVersionError: written by another format version.
    """
    try:
        facts = json.loads(run.run_json.read_bytes())
        version, identity = facts["format_version"], facts["run_id"]
        if type(version) is not int or (version == FORMAT_VERSION and not _RUN_ID.fullmatch(identity)):
            raise ValueError("format_version or run_id is none")
    except FileNotFoundError:
        raise RunDirectoryError("there is no run here", where=str(run.root), hint="check the path") from None
    except OSError as error:
        raise _directory_error(run, error) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunDirectoryError(
            f"run.json is damaged: {error}", where=str(run.run_json), hint="restore it from a backup"
        ) from error
    if version != FORMAT_VERSION:
        raise FormatVersionError(
            f"this run has format version {version}; this hpcresume reads version {FORMAT_VERSION}",
            where=str(run.run_json),
            hint="use the version of hpcresume that wrote it, or a new run directory",
        )
    return dict(facts)


def run_id(run: RunPaths, ranks: Ranks) -> str:
    """Collective. The run's own random name, to which every digest is bound."""
    text = b""
    with together(ranks, "read run.json", RunDirectoryError):
        if ranks.rank == 0:
            text = read_run(run)["run_id"].encode()
    return agree_bytes(ranks, text).decode()


def mark_done(run: RunPaths, facts: dict[str, Any]) -> None:
    """Write DONE durably: the run is finished and never runs again until it is reopened. Rank 0 only."""
    write_durably(run.done, json.dumps(facts).encode() + b"\n")


def reopen(run: RunPaths) -> None:
    """Remove DONE durably. Rank 0 only."""
    if run.done.exists():
        files().unlink(run.done)
        fsync_directory(run.root)
