"""What this machine must have for a small Slurm: programs, and the right to make namespaces.

Looks and explains. Starts nothing that stays.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from hpcresume.errors import ClusterError
from hpcresume.testing.minislurm.daemons import search_path, user_name
from hpcresume.testing.minislurm.nodes import unshare

__all__ = ["check_machine", "missing_programs", "packages_of", "slurm_version"]

PROGRAMS: Mapping[str, str] = {
    "munged": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "scontrol": "slurm-client",
    "sinfo": "slurm-client",
    "srun": "slurm-client",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
    "hostname": "hostname",
    "env": "coreutils",
}
"""Program → the Debian package that has it."""
ACCOUNTING: Mapping[str, str] = {
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server-core",
    "mariadb-install-db": "mariadb-server-core",
    "my_print_defaults": "mariadb-client-core",
    "sacctmgr": "slurm-client",
}
ROOT: Mapping[str, str] = {"nsenter": "util-linux", "pivot_root": "util-linux", "unshare": "util-linux"}
"""What the machine itself needs when Slurm's own programs lie in another root."""

_PROBE = "hostname probe && mount -t proc proc /proc && mount -t tmpfs tmpfs /dev/shm"
_LIMITS = {
    "/proc/sys/kernel/unprivileged_userns_clone": ("0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    "/proc/sys/user/max_user_namespaces": ("0", "sysctl -w user.max_user_namespaces=15000"),
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
        "1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
}
"""Settings of the kernel that forbid user namespaces, the value that does, and what root types to allow them."""


def missing_programs(*, accounting: bool = False, root: Path | None = None) -> list[str]:
    """Programs that a cluster needs and this machine, or the other root, lacks."""
    wanted = {**PROGRAMS, **(ACCOUNTING if accounting else {})}
    if root is None:
        return [name for name in wanted if shutil.which(name, path=search_path()) is None]
    inside = os.pathsep.join(str(root / folder) for folder in ("usr/sbin", "usr/bin", "sbin", "bin"))
    missing = [name for name in wanted if shutil.which(name, path=inside) is None]
    return missing + [name for name in ROOT if shutil.which(name, path=search_path()) is None]


def packages_of(programs: list[str]) -> list[str]:
    """The Debian packages that bring the programs."""
    return sorted({{**ROOT, **PROGRAMS, **ACCOUNTING}[name] for name in programs})


def check_machine(*, accounting: bool = False, root: Path | None = None) -> None:
    """Whether a cluster can start here.

    Raises:
        ClusterError: programs are missing, our user has no name, or namespaces are forbidden; the hint says what
            to install or to allow.
    """
    if root is not None and not (root / "etc").is_dir():
        raise ClusterError("there is no Debian in this root", where=str(root), hint="tools/install_slurm_2411.sh")
    missing = missing_programs(accounting=accounting, root=root)
    if missing:
        packages = " ".join(packages_of(missing))
        place = "" if root is None else f"chroot {root} "
        raise ClusterError(
            f"Slurm needs {', '.join(missing)}",
            where="PATH" if root is None else str(root),
            hint=f"{place}apt-get install --no-install-recommends {packages}",
        )
    if user_name().isdecimal():
        raise ClusterError(
            f"user {user_name()} has no name on this machine, and Slurm starts jobs for named users only",
            where="/etc/passwd",
            hint="a user that getent passwd knows",
        )
    _check_namespaces()


def _check_namespaces() -> None:
    """Try for real what every node does first."""
    path = {"PATH": search_path(), "LC_ALL": "C"}
    done = subprocess.run(
        [*unshare(), "sh", "-c", _PROBE], env=path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
    )
    if done.returncode == 0:
        return
    words = next((line for line in done.stderr.splitlines() if "sigprocmask" not in line), "no words")
    raise ClusterError("nodes cannot have namespaces of their own", where=words.strip(), hint=_advice())


def _advice() -> str:
    if os.geteuid() == 0:
        return "in a container: docker run --privileged, or --cap-add SYS_ADMIN --security-opt seccomp=unconfined"
    for path, (value, advice) in _LIMITS.items():
        with contextlib.suppress(OSError):
            if Path(path).read_text(encoding="ascii").strip() == value:
                return f"as root, {advice}"
    return "as root, or in a container started with --privileged"


def slurm_version(root: Path | None = None) -> str:
    """The version of the Slurm here, or of the one in another root: "22.05.8".

    Raises:
        ClusterError: slurmctld does not tell.
    """
    words = ["slurmctld", "-V"]
    if root is not None:
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        words = ["unshare", *user, f"--root={root}", *words]
    path = {"PATH": search_path(), "LC_ALL": "C"}
    done = subprocess.run(words, env=path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    found = re.search(r"\b(\d+\.\d+\.\d+\S*)", done.stdout)
    if done.returncode != 0 or found is None:
        said = (done.stderr or done.stdout).strip()[:200]
        raise ClusterError(f"slurmctld does not say its version: {said}", where=" ".join(words))
    return found.group(1)
