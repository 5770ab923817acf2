"""Accounting: slurmdbd with a MariaDB of its own, so that sacct works.

MariaDB listens on a socket in the cluster's private directory and nowhere else, so it asks for no password. What it
stores is thrown away with the cluster, so it waits for no disk.
"""

from __future__ import annotations

import time

from hpcresume.errors import ClusterError
from hpcresume.testing.minislurm.daemons import user_name
from hpcresume.testing.minislurm.logs import complaints
from hpcresume.testing.minislurm.parts import PATIENCE, Parts
from hpcresume.testing.minislurm.texts import CLUSTER

__all__ = ["start_accounting"]

_FAST = ("--innodb-buffer-pool-size=32M", "--innodb-flush-method=nosync", "--skip-log-bin", "--skip-name-resolve")


def start_accounting(parts: Parts) -> None:
    """Make the database, start MariaDB and slurmdbd, and make the cluster known to them. munged must run.

    Raises:
        ClusterError: one of them fails; the message has its last words.
    """
    places, daemons = parts.places, parts.daemons
    common = [f"--datadir={places.database}", f"--user={user_name()}", *_FAST]
    _make_database(parts, common)
    socket = places.database_socket
    options = [f"--socket={socket}", f"--pid-file={places.run('mariadbd.pid')}", f"--tmpdir={places.directory / 'run'}"]
    words = ["mariadbd", "--no-defaults", *common, *options, "--skip-networking", "--skip-grant-tables"]
    daemons.start("mariadbd", [*parts.enter(), *words], {})
    parts.expect(socket.exists, "socket of MariaDB", ("mariadbd",))
    # MariaDB's client library takes the socket's path from this variable; slurmdbd.conf has no word for it.
    more = {"SLURM_CONF": str(places.configuration), "MYSQL_UNIX_PORT": str(socket)}
    daemons.start("slurmdbd", [*parts.enter(), "slurmdbd", "-D"], more)
    parts.expect(lambda: _knows_cluster(parts), "answer of slurmdbd", ("mariadbd", "munged", "slurmdbd"))


def _make_database(parts: Parts, common: list[str]) -> None:
    name = "mariadb-install-db"
    words = [name, "--no-defaults", *common, "--auth-root-authentication-method=normal", "--skip-test-db"]
    parts.daemons.start(name, [*parts.enter(), *words], {})
    until = time.monotonic() + PATIENCE
    while parts.daemons.exit_code(name) is None and time.monotonic() < until:
        time.sleep(0.01)
    code = parts.daemons.exit_code(name)
    parts.daemons.end(name)
    if code != 0:
        said = complaints(parts.places.logs, name)
        raise ClusterError(f"MariaDB cannot make a database: {said}", where=str(parts.places.database))


def _knows_cluster(parts: Parts) -> bool:
    """Whether slurmdbd answers and knows the cluster, of which it is told as soon as it answers."""
    return parts.change("sacctmgr", "--immediate", "--quiet", "add", "cluster", CLUSTER)
