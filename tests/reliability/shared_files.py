"""A run's directory as different nodes see it: what one writes the others see some seconds later.

The files are real, and so is the code that reads and writes them. Around each look by a node, what it cannot see yet
is taken away, and put back behind what it wrote.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

LAGGING = frozenset({"barren-starts.jsonl", "ledger.jsonl", "notes.json", "siblings.jsonl", "start.json",
                     "supervisor.jsonl"})  # fmt: skip
"""Claims are not among them: they are made by mkdir, which no client answers from its cache."""


@dataclass(frozen=True)
class Version:
    """What a file held, who wrote that, and when others see it."""

    seen_from: float
    writer: str
    content: bytes | None


class SharedFiles:
    """`delay()` gives the seconds until others see a write."""

    def __init__(self, root: Path, delay: Callable[[], float]) -> None:
        self.root = root
        self.delay = delay
        self.broken = False
        self._versions: dict[Path, list[Version]] = {}
        self._stamps: dict[str, tuple[int, int]] = {}

    @contextlib.contextmanager
    def seen_by(self, node: str, now: float) -> Iterator[None]:
        """The directory as this node sees it now; what is written inside is this node's."""
        hidden: dict[Path, tuple[bytes | None, bytes | None]] = {}
        for path, versions in self._versions.items():
            if versions[-1].seen_from <= now:
                continue
            visible = next((v for v in reversed(versions) if v.writer == node or v.seen_from <= now), None)
            if visible is not versions[-1]:
                hidden[path] = (visible.content if visible else None, versions[-1].content)
                _put(path, hidden[path][0])
        with self._out_of_reach() if self.broken else contextlib.nullcontext():
            yield
        for path, (shown, real) in hidden.items():
            _put(path, _merged(path, shown, real, _get(path)))
        self._take_in(node, now)

    @contextlib.contextmanager
    def _out_of_reach(self) -> Iterator[None]:
        """Every access fails with ENOTDIR, until `come_back`."""
        self.root.rename(self._aside)
        self.root.touch()
        try:
            yield
        finally:
            self.come_back()

    def come_back(self) -> None:
        """The storage is there again."""
        if self._aside.exists():
            self.root.unlink()
            self._aside.rename(self.root)

    @property
    def _aside(self) -> Path:
        return self.root.with_name(self.root.name + ".aside")

    def _take_in(self, node: str, now: float) -> None:
        for name, stamp in self._changed():
            self._stamps[name] = stamp
            path = Path(name)
            content = path.read_bytes()
            known = self._versions.setdefault(path, [Version(float("-inf"), "", None)])
            if known[-1].content != content:
                known.append(Version(now + self.delay(), node, content))

    def _changed(self) -> list[tuple[str, tuple[int, int]]]:
        """The files that somebody has written since the last look."""
        found = []
        for folder in (os.path.join(self.root, "launch"), *_folders(self.root / "attempts")):
            for entry in os.scandir(folder) if os.path.isdir(folder) else ():
                if entry.name in LAGGING:
                    facts = entry.stat()
                    stamp = (facts.st_mtime_ns, facts.st_size)
                    if self._stamps.get(entry.path) != stamp:
                        found.append((entry.path, stamp))
        return found

    def settle(self) -> None:
        """Everybody sees everything."""
        self._versions.clear()


def _folders(parent: Path) -> list[str]:
    """The newest attempts, the only ones that anybody still writes to."""
    return sorted(entry.path for entry in os.scandir(parent))[-6:]


def _get(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _put(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(content)


def _merged(path: Path, shown: bytes | None, real: bytes | None, now: bytes | None) -> bytes | None:
    """Lines that were appended stand behind those that the node could not see; a replaced file stays replaced."""
    if now == shown:
        return real
    if path.suffix != ".jsonl" or now is None:
        return now
    return (real or b"") + now[len(shown or b"") :]
