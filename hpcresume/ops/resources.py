"""Where the files lie that come with the package and are not Python modules: examples and sbatch templates.

In a checkout they are folders beside the package; in an installed wheel they are inside it.
"""

from __future__ import annotations

from pathlib import Path

from hpcresume.errors import ConfigError

__all__ = ["example_path", "template_path"]


def example_path(name: str) -> Path:
    """The file of an example, for instance `gpt/train.py`.

    Raises:
        ConfigError: there is no such example.
    """
    return _find("examples", name)


def template_path(name: str) -> Path:
    """An sbatch template, for instance `srun.sbatch`.

    Raises:
        ConfigError: there is no such template.
    """
    return _find("sbatch_templates", name)


def _find(folder: str, name: str) -> Path:
    package = Path(__file__).resolve().parents[1]
    inside, beside = package / folder, package.parent / folder
    # `beside` counts in a checkout only: site-packages may hold a folder of that name from anyone.
    root = beside if (package.parent / "pyproject.toml").is_file() and beside.is_dir() else inside
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()) or not path.is_file():
        known = ", ".join(sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()))
        raise ConfigError(f"no file {name!r} in {folder}", where=str(root), hint=f"one of: {known or 'none'}")
    return path
