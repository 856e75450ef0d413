#!/usr/bin/env bash
# Trains and measures MAML, FOMAML, Reptile, ANIL, Meta-SGD and a pretrained baseline on sinusoids.
#   bash experiments/sinusoid/run.sh [--check]
# Without arguments: everything, under ten minutes on one core; writes results.json and picture.svg. With --check: the two
# rows that have published figures, trained and measured anew; nothing is written. Non-zero if a line falls short.
# PYTHON=… chooses the interpreter (default .venv/bin/python).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
export PYTHONPATH=$root OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
[ -x "$python" ] || { echo "$python is not there: run make setup in $root, or set PYTHON." >&2; exit 1; }
cd "$here"
[ "${1:-}" = --check ] && exec "$python" run.py --check
"$python" run.py "$@" || short=$?
"$python" picture.py
exit "${short:-0}"
