#!/usr/bin/env bash
# Makes a virtual environment and installs this package into it, editable.
# usage: scripts/install.sh VENV [EXTRA,...]     PYTHON=python3.12 chooses the interpreter
set -euo pipefail
venv=$1
extra=${2:+[$2]}
cd "$(dirname "$0")/.."

supported() {
  "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
    if supported "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  echo "No Python 3.10 to 3.13 found; install one and say PYTHON=/path/to/python3 make ..." >&2
  return 1
}

make_venv() {
  local python=$1
  # Debian keeps ensurepip in a package of its own; without it, pip installs pip.
  if "$python" -c 'import ensurepip' 2>/dev/null; then
    "$python" -m venv "$venv"
  else
    "$python" -m venv --without-pip "$venv"
    "$python" -m pip install --quiet --target \
      "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" pip
  fi
}

install_torch() {
  "$venv/bin/python" -c 'import torch' 2>/dev/null && return
  if nvidia-smi >/dev/null 2>&1; then
    pip_install torch
    return
  fi
  # Without a GPU nobody should download several GB of CUDA: a CPU build that pip can find, else
  # the one of PyTorch's own index.
  pip_install 'torch==2.13.0+cpu' 2>/dev/null ||
    pip_install 'torch==2.13.0' --index-url https://download.pytorch.org/whl/cpu ||
    { echo "No CPU build of torch could be had; install any torch into $venv, then run make again:
  $venv/bin/python -m pip install torch" >&2; return 1; }
}

pip_install() {
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

[ -x "$venv/bin/python" ] || make_venv "$(find_python)"
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || make_venv "$(find_python)"
echo "Installing into $venv (the first time downloads some hundred MB) ..."
install_torch
pip_install --editable ".$extra"
