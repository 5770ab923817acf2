"""Being somebody who may not do everything."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

__all__ = ["unprivileged"]


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """As nobody, if we are root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
