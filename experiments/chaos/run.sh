#!/usr/bin/env bash
# Strikes a long run with random faults; it must end with the same bytes.   bash experiments/chaos/run.sh [--check]
#
# Without arguments: 110 faults, then results.json and picture.svg. With --check: 12 faults in at most 8 minutes. PASS or
# FALL SHORT a line, non-zero if one falls short. PYTHON=… chooses the interpreter (default .venv/bin/python).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
export PYTHONPATH=$root OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
[ -x "$python" ] || { echo "$python is not there: run make setup in $root, or set PYTHON." >&2; exit 1; }
cd "$here"
exec "$python" chaos.py "$@"
