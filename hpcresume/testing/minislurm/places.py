"""Where everything of a small Slurm lies in its directory, and whether a directory may be one.

The only authority on those paths. Starts nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hpcresume.errors import ConfigError

__all__ = ["LOGS", "MARKER", "Places", "checked_directory"]

MARKER = "minislurm.json"
"""The file by which a directory is known to be ours."""
LOGS = "log"

SOCKET_PATH = 107
"""Bytes of a path of a unix socket, without the zero at its end (unix(7), sun_path)."""
_LONGEST = "stepd.slurm.pmix.999999.99999"
"""The longest name of a socket that slurmd's PMIx plugin makes in a node's spool."""
_SAFE = re.compile(r"/[A-Za-z0-9._/+~-]*", re.ASCII)
"""What slurm.conf, munged's options and #SBATCH lines all take as it is."""


@dataclass(frozen=True)
class Places:
    """The paths in one cluster's directory."""

    directory: Path

    @property
    def marker(self) -> Path:
        """What the cluster is, as JSON."""
        return self.directory / MARKER

    @property
    def configuration(self) -> Path:
        """slurm.conf."""
        return self.directory / "etc" / "slurm.conf"

    @property
    def database_configuration(self) -> Path:
        """slurmdbd.conf; slurmdbd looks for it beside slurm.conf."""
        return self.directory / "etc" / "slurmdbd.conf"

    @property
    def hosts(self) -> Path:
        """What the nodes see as /etc/hosts."""
        return self.directory / "etc" / "hosts"

    @property
    def key(self) -> Path:
        """The key of munge."""
        return self.directory / "etc" / "munge.key"

    @property
    def munge_socket(self) -> Path:
        """Where munged listens."""
        return self.directory / "run" / "munge.socket"

    @property
    def database_socket(self) -> Path:
        """Where MariaDB listens."""
        return self.directory / "run" / "mariadb.socket"

    @property
    def logs(self) -> Path:
        """The daemons' logs."""
        return self.directory / LOGS

    @property
    def programs(self) -> Path:
        """The client commands of a Slurm in another root."""
        return self.directory / "bin"

    @property
    def database(self) -> Path:
        """MariaDB's files."""
        return self.directory / "db"

    def run(self, name: str) -> Path:
        """A small file of a running daemon: its pid, its socket."""
        return self.directory / "run" / name

    def spool(self, node: str) -> Path:
        """What slurmd keeps on a node."""
        return self.directory / "spool" / node

    def temporary(self, node: str) -> Path:
        """A node's TmpFS."""
        return self.directory / "tmp" / node

    def folders(self) -> list[Path]:
        """What must be there before anything starts."""
        return [self.directory / name for name in ("bin", "etc", "run", "state", LOGS, "spool", "tmp")]

    def everything_but_logs(self) -> list[Path]:
        """What `down` removes, the marker last."""
        names = ("bin", "db", "etc", "root", "run", "spool", "state", "tmp", MARKER)
        return [self.directory / name for name in names]


def checked_directory(path: Path, last_node: str) -> Path:
    """The absolute path of a directory that Slurm's configuration and unix sockets can bear.

    Raises:
        ConfigError: it is too long, or has characters that slurm.conf would misread.
    """
    absolute = path.absolute()
    if not _SAFE.fullmatch(str(absolute)):
        raise ConfigError(
            "slurm.conf cannot hold this path",
            where=str(absolute),
            hint="letters, digits and ._+~- only",
        )
    longest = Places(absolute).spool(last_node) / _LONGEST
    excess = len(str(longest)) - SOCKET_PATH
    if excess > 0:
        raise ConfigError(
            f"the path is {excess} bytes too long for the unix sockets in it",
            where=str(absolute),
            hint=f"a directory of at most {len(str(absolute)) - excess} bytes, such as /tmp/minislurm",
        )
    return absolute
