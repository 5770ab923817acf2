"""Another root: the Slurm of another Debian, unpacked in a folder, on this machine and with this machine's files.

One process holds a mount namespace whose /usr, /bin, /lib and /etc are the other Debian's and everything else is this
machine's; daemons and commands enter it. Nothing is mounted outside of it, so nothing has to be unmounted.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from hpcresume.errors import ClusterError
from hpcresume.testing.minislurm.daemons import Daemons
from hpcresume.testing.minislurm.places import Places

__all__ = ["HOLDER", "OtherRoot"]

HOLDER = "root"
"""The name of the daemon that holds the namespace."""
COMMANDS = (
    "sacct", "sacctmgr", "salloc", "sattach", "sbatch", "sbcast", "scancel", "scontrol", "sdiag", "sinfo", "sprio",
    "squeue", "sreport", "srun", "sshare", "sstat", "strigger",
)  # fmt: skip

_THEIRS = ("bin", "etc", "lib", "lib32", "lib64", "libx32", "sbin", "usr")
_NAMES = ("passwd", "group", "resolv.conf", "localtime")
"""Of /etc, what stays this machine's: users above all."""
_SIGN = ".hpcresume-minislurm"

_HOLD = """\
set -eu
other=$1 new=$2 hosts=$3 ready=$4
shift 4
mount -t tmpfs -o mode=755 tmpfs "$new"
for entry in "$other"/*; do
    name=${entry##*/}
    case " $theirs " in *" $name "*) ;; *) continue ;; esac
    if [ -L "$entry" ]; then
        cp -P "$entry" "$new/$name"
    else
        mkdir "$new/$name"
        mount --rbind "$entry" "$new/$name"
    fi
done
mount --bind "$hosts" "$new/etc/hosts"
for path in "$@"; do
    [ -e "$new$path" ] || mkdir -p "$new$path"
    mount --rbind "$path" "$new$path"
done
# A virtual environment made with the system's Python names it /usr/bin/python3: inside, too, it is this one.
[ -z "$python" ] || mount --bind "$python" "$new/usr/bin/python3"
: > "$new/$sign"
mkdir "$new/.old"
cd "$new"
pivot_root . .old
umount -l /.old
rmdir /.old
: > "$ready"
exec sleep infinity
"""
_ENTERING = """\
#!/bin/sh
# {name} of the Slurm in {root}. A job is inside already.
[ -e /{sign} ] && exec /usr/bin/{name} "$@"
exec {enter} sh -c 'cd "$1" && shift && exec "$@"' sh "$PWD" /usr/bin/{name} "$@"
"""


class OtherRoot:
    """The other Debian in `root`, for one cluster."""

    def __init__(self, root: Path, places: Places, daemons: Daemons) -> None:
        self._root = root
        self._places = places
        self._daemons = daemons
        self._ready = places.run("root.ready")

    def start(self) -> None:
        """Start the holder; it is of use when `is_ready`."""
        new = self._places.directory / "root"
        new.mkdir(mode=0o700)
        user = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
        words = ["sh", "-c", _HOLD, "sh", str(self._root), str(new), str(self._places.hosts), str(self._ready)]
        spaces = ["unshare", *user, "--mount", "--propagation", "private"]
        system = [path for path in _system_python()[:1] if self._has(path) and self._has_python()]
        more = {"theirs": " ".join(_THEIRS), "sign": _SIGN, "python": "".join(system)}
        self._daemons.start(HOLDER, [*spaces, *words, *self._ours()], more)

    def _ours(self) -> list[str]:
        """Paths of this machine that are seen inside at the same place."""
        top = [f"/{name}" for name in os.listdir("/") if name not in _THEIRS]
        folders = [path for path in top if os.path.isdir(path) and not os.path.islink(path)]
        wanted = ["/usr/local", *(f"/etc/{name}" for name in _NAMES), *_system_python()]
        return sorted(folders) + [path for path in wanted if os.path.exists(path) and self._has(path)]

    def _has(self, path: str) -> bool:
        """Whether the other root has a place for it: nothing is ever made in there."""
        place = self._root / path.removeprefix("/")
        return place.exists() and not place.is_symlink() and place.is_dir() == os.path.isdir(path)

    def _has_python(self) -> bool:
        return (self._root / "usr/bin/python3").exists()

    def is_ready(self) -> bool:
        """Whether it can be entered."""
        return self._ready.exists()

    def enter(self) -> list[str]:
        """The beginning of a command that is to run inside.

        Raises:
            ClusterError: the holder has ended.
        """
        pid = self._daemons.pid(HOLDER)
        if pid is None:
            raise ClusterError("the cluster's other root is gone", where=str(self._places.directory), hint="down, up")
        user = [] if os.geteuid() == 0 else [f"--user=/proc/{pid}/ns/user", "--preserve-credentials"]
        return ["nsenter", *user, f"--mount=/proc/{pid}/ns/mnt", "--"]

    def write_programs(self) -> None:
        """Write sbatch, srun and their kind as programs that enter, then run the real one."""
        for name in COMMANDS:
            if not (self._root / "usr/bin" / name).exists():
                continue
            text = _ENTERING.format(name=name, root=self._root, sign=_SIGN, enter=shlex.join(self.enter()))
            path = self._places.programs / name
            path.write_text(text, encoding="utf-8")
            path.chmod(0o700)


def _system_python() -> list[str]:
    """This interpreter where it is the system's own, which the other Debian has in another version."""
    if sys.base_prefix != "/usr":
        return []
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return [f"/usr/bin/{version}", f"/usr/lib/{version}", "/usr/lib/python3/dist-packages"]
