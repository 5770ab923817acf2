"""A temporary directory of their own for what tests start: a process that is killed leaves its litter in there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import pytest

__all__ = ["own_temporary_directory"]


@pytest.fixture(scope="module", autouse=True)
def own_temporary_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For a folder's conftest.py to import. The name is short, since names of sockets may be no longer than 107."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("t")))
        patch.setattr(tempfile, "tempdir", None)
        yield
