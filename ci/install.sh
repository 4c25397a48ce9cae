#!/bin/sh
# install.sh PYTHON FOLDER: this checkout of Trueup, in a virtual environment of its own, with the versions of
# everything beside it that it was tested with. The environment of the job stays as it is.
#
# -I: what the pull request has in the current folder (venv.py, pip.py) is never imported.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
"$1" -I -m venv "$2"
"$2/bin/python" -I -m pip install --quiet --disable-pip-version-check --no-input \
  --constraint "$here/constraints.txt" "$here"
