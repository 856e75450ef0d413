#!/usr/bin/env bash
# Trains a meta-learned and a pretrained policy and compares how they adapt by reward.
#   bash experiments/meta_rl/run.sh [--check]
# Without arguments: everything, five minutes on a busy machine; writes results.json. With --check: the
# same, PASS or FALL SHORT for each bar, nothing written. Non-zero if a line falls short.
# PYTHON=… chooses the interpreter (default .venv/bin/python).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
export PYTHONPATH=$root OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
[ -x "$python" ] || { echo "$python is not there: run make setup in $root, or set PYTHON." >&2; exit 1; }
cd "$here"
exec "$python" run.py "$@"
