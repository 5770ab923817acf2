"""Examples are found in a checkout and in an installed wheel alike."""

from __future__ import annotations

import pytest

from hpcresume import errors
from hpcresume.ops.resources import example_path


def test_the_demo_s_training_is_found():
    assert example_path("gpt/train.py").is_file()


@pytest.mark.parametrize("name", ["gpt/trian.py", "../pyproject.toml", "gpt", "/etc/passwd", ""])
def test_what_is_no_example_is_an_error_that_lists_what_there_is(name):
    with pytest.raises(errors.ConfigError, match=r"gpt/train\.py"):
        example_path(name)
