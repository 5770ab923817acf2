"""What a test says that cannot run on this machine."""

from __future__ import annotations

import importlib
import os
from typing import Any, NoReturn

import pytest


def cannot(reason: str) -> NoReturn:
    """Skip the test, or fail it in CI, where a tier that is not run must not go unseen."""
    if os.environ.get("CI"):
        pytest.fail(f"in CI this may not be skipped: {reason}")
    pytest.skip(reason, allow_module_level=True)


def needed(module: str) -> Any:
    """A module that `make` installs for the tests; where somebody else made the environment it may be missing."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise  # it is there, and does not work
        cannot(f"no {module} here; `make test` makes an environment that has it")
