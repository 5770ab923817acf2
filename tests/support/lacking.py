"""What a test says that cannot run on this machine."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def cannot(reason: str) -> NoReturn:
    """Skip the test, or fail it in CI, where a tier that is not run must not go unseen."""
    if os.environ.get("CI"):
        pytest.fail(f"in CI this may not be skipped: {reason}")
    pytest.skip(reason)
