"""The start of a cluster, step by step: configuration, munge, accounting, controller, nodes."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from hpcresume.testing.minislurm.accounting import start_accounting
from hpcresume.testing.minislurm.daemons import user_name
from hpcresume.testing.minislurm.parts import Parts
from hpcresume.testing.minislurm.ports import taken_ports
from hpcresume.testing.minislurm.root import HOLDER
from hpcresume.testing.minislurm.texts import Site, hosts, slurm_conf, slurmdbd_conf

__all__ = ["start_cluster", "start_controller"]


def start_cluster(parts: Parts) -> None:
    """Start everything; return when all nodes are idle.

    Raises:
        ClusterError: a daemon ended, or something took too long.
    """
    _write_texts(parts)
    if parts.other is not None:
        parts.other.start()
        parts.expect(parts.other.is_ready, "root", (HOLDER,))
        parts.other.write_programs()
    _start_munge(parts)
    if parts.state.settings.accounting:
        start_accounting(parts)
    start_controller(parts)
    names = parts.state.settings.names
    for node in names:
        parts.nodes.start(node)
    idle = dict.fromkeys(names, "idle")
    parts.expect(lambda: parts.node_states() == idle, "idle nodes", ("munged", "slurmctld", *names))


def _write_texts(parts: Parts) -> None:
    places, settings = parts.places, parts.state.settings
    site = Site(socket.gethostname(), user_name(), parts.state.port)
    machine = ""
    with contextlib.suppress(OSError):
        machine = Path("/etc/hosts").read_text(encoding="utf-8", errors="replace")
    _write(places.configuration, slurm_conf(settings, places, site).encode())
    _write(places.hosts, hosts(settings.names, site.host, machine).encode())
    _write(places.key, os.urandom(128))
    if settings.accounting:
        _write(places.database_configuration, slurmdbd_conf(settings, places, site).encode())


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(0o600)


def _start_munge(parts: Parts) -> None:
    places = parts.places
    files = {
        "key-file": places.key,
        "socket": places.munge_socket,
        "pid-file": places.run("munged.pid"),
        "log-file": places.logs / "munged.log",
        "seed-file": places.run("munge.seed"),
    }
    # --force: munged is not happy with folders such as /tmp in its paths; ours is private.
    options = [f"--{name}={path}" for name, path in files.items()]
    parts.daemons.start(
        "munged", [*parts.enter(), "munged", "--foreground", "--force", "--num-threads=10", *options], {}
    )
    parts.expect(places.munge_socket.exists, "socket of munged", ("munged",))


def start_controller(parts: Parts) -> None:
    """Start slurmctld, or start it again with the state that it left; return when it listens.

    Raises:
        ClusterError: it ended, or took too long.
    """
    configuration = str(parts.places.configuration)
    parts.daemons.start("slurmctld", [*parts.enter(), "slurmctld", "-D", "-f", configuration], {})
    port = range(parts.state.port, parts.state.port + 1)
    parts.expect(lambda: bool(taken_ports(port)), "port of slurmctld", ("munged", "slurmctld"))
