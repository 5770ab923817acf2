"""Where the output of this process goes, when that is a file: what `hpcresume logs` finds the logs by."""

from __future__ import annotations

import os
import stat
from typing import Any

__all__ = ["output_files"]


def output_files() -> list[dict[str, Any]]:
    """The regular files behind standard output and standard error, each once, with the bytes that they hold now.

    A pipe, a terminal, or a file that has lost its name is not among them. `offset` is where what this process and
    its children write begins, as long as the file is appended to.
    """
    found: list[dict[str, Any]] = []
    seen = set()
    for descriptor in (1, 2):
        try:
            facts = os.fstat(descriptor)
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            named = os.stat(path)
        except (OSError, ValueError):
            continue
        identity = (facts.st_dev, facts.st_ino)
        if stat.S_ISREG(facts.st_mode) and identity == (named.st_dev, named.st_ino) and identity not in seen:
            seen.add(identity)
            found.append({"path": path, "offset": facts.st_size})
    return found
