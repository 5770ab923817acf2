"""Figures as people read them."""

from __future__ import annotations

__all__ = ["size"]


def size(nbytes: int) -> str:
    """Bytes for people, binary units: 1536 → "1.5 KiB"."""
    if nbytes < 1024:
        return f"{nbytes} B"
    value = float(nbytes)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1024 or unit == "TiB":
            break
    return f"{value:.1f} {unit}"
