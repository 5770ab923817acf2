#!/usr/bin/env bash
# make_compare_environment.sh VENV: an environment for `make compare` with Lightning in it, beside .venv, whose packages
# (torch, submitit, hpcresume itself) it uses. Nothing of it belongs to what hpcresume needs.
set -euo pipefail

venv=$1
read -r -a pip_args <<<"${PIP_ARGS:-}"
rm -rf "$venv"
.venv/bin/python -m venv "$venv"
borrowed=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# addsitedir, not the bare path: the editable install is a path file itself.
printf 'import site; site.addsitedir("%s")\n' "$borrowed" >"$site/borrowed.pth"
echo "hpcresume: installing Lightning into $venv"
export PIP_DISABLE_PIP_VERSION_CHECK=1
# 2.6.6 was the newest when the programs of benchmarks/peers were written.
"$venv/bin/python" -m pip install --quiet ${pip_args[@]+"${pip_args[@]}"} \
    -c "${CONSTRAINTS:-constraints.txt}" 'lightning==2.6.6'
