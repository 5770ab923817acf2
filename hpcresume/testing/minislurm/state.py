"""What is remembered of a cluster in its directory, so that another process can find and end it.

Owns minislurm.json and the question whose a directory is.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hpcresume.errors import ClusterError, ConfigError
from hpcresume.io.durable import create_durably, make_directory, remove_tree
from hpcresume.testing.minislurm.places import LOGS, Places
from hpcresume.testing.minislurm.settings import Settings

__all__ = ["State", "claim", "clear", "is_ours", "nothing_is_there", "read"]

FORMAT = 1


@dataclass(frozen=True)
class State:
    """One cluster.

    Attributes:
        format: of this file.
        token: the mark of its processes.
        user: the number of the user whose it is.
        port: the first of its ports.
        version: Slurm's.
        root: the other root in which Slurm's programs lie, or None.
        made: whether the directory itself was made for it, and goes with it.
        settings: what it was asked to be.
    """

    format: int
    token: str
    user: int
    port: int
    version: str
    root: str | None
    made: bool
    settings: Settings


def claim(places: Places, state: State) -> None:
    """Make the directory ours: missing or empty before, with the marker in it after.

    Raises:
        ConfigError: there is a cluster in it already, or something that is not ours.
        OSError: it cannot be made or written.
    """
    where = str(places.directory)
    if places.marker.exists():
        raise _in_use(where)
    make_directory(places.directory)
    if os.listdir(places.directory):
        raise ConfigError("this directory is not empty", where=where, hint="an empty or a new one")
    if places.directory.stat().st_uid != os.geteuid():
        raise ConfigError("this directory belongs to another user", where=where, hint="one of your own")
    places.directory.chmod(0o700)
    try:
        create_durably(places.marker, msgspec.json.encode(state))
    except FileExistsError:
        raise _in_use(where) from None
    for folder in places.folders():
        make_directory(folder)


def _in_use(where: str) -> ConfigError:
    hint = f"hpcresume minislurm down {where}, or another directory"
    return ConfigError("there is a cluster in this directory", where=where, hint=hint)


def read(places: Places) -> State:
    """What a directory says of its cluster.

    Raises:
        ClusterError: there is no cluster in it, it is another user's, or the file is damaged.
    """
    where = str(places.directory)
    try:
        if places.marker.stat().st_uid != os.geteuid():
            raise ClusterError("this cluster belongs to another user", where=where, hint="run it as that user")
        state = msgspec.json.decode(places.marker.read_bytes(), type=State)
    except (FileNotFoundError, NotADirectoryError):
        raise ClusterError("there is no cluster here", where=where, hint=f"hpcresume minislurm up {where}") from None
    except (msgspec.MsgspecError, ConfigError) as error:
        hint = "end its processes by hand, then remove the directory"
        raise ClusterError(f"the cluster's file is damaged: {error}", where=str(places.marker), hint=hint) from error
    if state.format != FORMAT:
        raise ClusterError(
            "another version of hpcresume started this cluster", where=where, hint="end it with that version"
        )
    return state


def is_ours(places: Places, token: str) -> bool:
    """Whether the directory is this very cluster's."""
    with contextlib.suppress(ClusterError):
        return read(places).token == token
    return False


def clear(places: Places, state: State, *, keep_logs: bool) -> None:
    """Remove what the cluster left; the logs stay when asked for. What a later cluster has there is not touched.

    Raises:
        OSError: something cannot be removed.
    """
    with contextlib.suppress(ClusterError):  # a damaged file is removed like any other
        if read(places).token != state.token:
            return
    paths = places.everything_but_logs()
    if not keep_logs:
        paths.insert(0, places.logs)
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            remove_tree(path)
    if state.made and not keep_logs:
        with contextlib.suppress(OSError):  # something else lies in it by now
            places.directory.rmdir()


def nothing_is_there(directory: Path) -> bool:
    """No cluster was ever here, or it has been taken down, its logs perhaps kept."""
    try:
        return set(os.listdir(directory)) <= {LOGS}
    except FileNotFoundError:
        return True
