#!/usr/bin/env bash
# Measures what the coordinator itself costs, up to 256 groups.   bash experiments/coordinator_scaling/run.sh [--check]
#
# Without arguments: everything that results.json does not hold yet, then picture.svg and README.md's tables. With
# --check: the bar (at most 5 % of a step at 64 groups and 40 M parameters) in some minutes; PASS or FALL SHORT,
# non-zero if it falls short. PYTHON=… chooses the interpreter (default .venv/bin/python).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
export PYTHONPATH=$root OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
[ -x "$python" ] || { echo "$python is not there: run make setup in $root, or set PYTHON." >&2; exit 1; }
cd "$here"
exec "$python" campaign.py "$@"
