"""Which filesystem a folder lies on, and what that means for checkpoints. Pure but for reading one file of /proc."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcresume.ops.doctor.finding import Finding, bad, ok, unknown, warn

__all__ = ["Mount", "kind_finding", "mount_of", "parse_mounts"]

AREA = "folder"

_SHARED: Final = ("lustre", "gpfs", "beegfs", "glusterfs", "ceph", "wekafs", "panfs", "pvfs2", "orangefs", "quobyte",
                  "daos", "moosefs", "juicefs", "vast")  # fmt: skip
_LAGGING: Final = ("nfs", "nfs4")
_FOREIGN: Final = ("cifs", "smb3", "sshfs", "s3fs", "9p", "goofys", "rclone")
_MEMORY: Final = ("tmpfs", "ramfs", "devtmpfs", "hugetlbfs")
_LOCAL: Final = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "virtiofs")


@dataclass(frozen=True)
class Mount:
    """Where a filesystem is mounted, its type as the kernel names it, and its source."""

    point: str
    kind: str
    source: str


def mount_of(path: Path) -> Mount | None:
    """The mount on which `path` lies; None where the kernel does not tell."""
    try:
        text = Path("/proc/self/mountinfo").read_text(errors="replace")
    except OSError:
        return None
    return _holding(os.path.realpath(path), parse_mounts(text))


def parse_mounts(text: str) -> list[Mount]:
    """Read /proc/self/mountinfo (proc_pid_mountinfo(5)), the newest mount last."""
    found = []
    for line in text.splitlines():
        head, dash, tail = line.partition(" - ")
        before, after = head.split(" "), tail.split(" ")
        if dash and len(before) >= 5 and len(after) >= 2:
            found.append(Mount(_unescaped(before[4]), after[0], _unescaped(after[1])))
    return found


def _unescaped(text: str) -> str:
    """Blanks and their like are written as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _holding(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """The longest mount point above the path; of two at one place the later one, which hides the other."""
    best = None
    for mount in mounts:
        inside = mount.point == "/" or path == mount.point or path.startswith(mount.point + "/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def kind_finding(mount: Mount | None, *, many_nodes: bool, seen_by_others: bool | None = None) -> Finding:
    """What the kind of filesystem means.

    Args:
        mount: where the folder lies.
        many_nodes: is this a place where jobs run on other nodes?
        seen_by_others: whether another node has seen a file of ours in it; None when that was not tried.
    """
    name = "filesystem"
    if mount is None:
        return unknown(AREA, name, "/proc/self/mountinfo does not tell on which filesystem the folder lies")
    kind = mount.kind.removeprefix("fuse.").removeprefix("fuseblk.")
    is_on = f"{mount.kind} at {mount.point}"
    if kind in _MEMORY:
        what = f"{is_on} is memory: its checkpoints go with the node, and no other node sees them"
        return bad(AREA, name, what, "a folder on the shared filesystem of the cluster, such as $SCRATCH/runs")
    if kind in _SHARED:
        return ok(AREA, name, f"{is_on}, shared between nodes")
    if kind in _LAGGING:
        what = f"{is_on}: shared, but a node may see another's changes late (acregmax, acdirmax: up to 60 s)"
        return warn(AREA, name, what, "a parallel filesystem where there is one")
    if kind in _FOREIGN:
        what = f"{is_on} does not promise what a commit needs: a rename that is atomic and durable"
        return bad(AREA, name, what, "the shared filesystem of the cluster, such as $SCRATCH/runs")
    if seen_by_others:
        return ok(AREA, name, f"{is_on}, and the other nodes see it")
    if kind in ("overlay", "squashfs"):
        what = f"{is_on} belongs to a container: what is written there goes with it"
        return warn(AREA, name, what, "a folder that is bound into the container")
    if kind not in _LOCAL:
        return unknown(AREA, name, f"{is_on}: a kind of filesystem that hpcresume does not know", "--probe tries it")
    if many_nodes and seen_by_others is None:
        what = f"{is_on}: a disk of this machine, unless it is exported to the nodes by other means"
        return warn(AREA, name, what, "hpcresume doctor --probe looks whether the nodes see it")
    if many_nodes:
        what = f"{is_on}: a disk of this machine, and the other nodes do not see it"
        return bad(AREA, name, what, "the shared filesystem of the cluster, such as $SCRATCH/runs")
    return ok(AREA, name, f"{is_on}, a disk of this machine")
